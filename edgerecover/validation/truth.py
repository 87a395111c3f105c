"""What labelled images come with, task by task: arrays. Shapes: N images, K classes, D values, H height, W width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.tasks.measure.boxes import NO_BOX
from edgerecover.tasks.measure.maps import IGNORED
from edgerecover.tasks.measure.several import join

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Truth = NDArray[Any]
    """One entry for each image, along the first axis."""


def example_of(output: OutputSpec) -> str:
    """What the truth of a task looks like, a sentence for whoever gave something else."""
    task, num_values = output.task, output.shape[0]
    if output.parts:
        return (
            f"a network with several outputs reads an .npz with images and one array of truth for each output: "
            f"{', '.join(output.names)}; each as `edgerecover help images` has the labels of its task"
        )
    if task is TaskKind.MULTI_LABEL:
        return (
            f"a network of several labels reads an .npz with labels (N, {num_values}) of 0 and 1, or a folder of "
            "images with labels.csv: `file,cat,dog`, then `a.png,0,1`"
        )
    if task is TaskKind.REGRESSION and len(output.shape) == 3:
        return f"a network of maps of values reads an .npz with labels (N, {_sides(output.shape)}) of numbers"
    if task is TaskKind.REGRESSION:
        num_values = output.num_values
        return (
            f"a network of values reads an .npz with labels (N, {num_values}) of numbers, or a folder of images with "
            "labels.csv: `file,width`, then `a.png,0.25`"
        )
    if task is TaskKind.SEGMENTATION:
        size = _sides(output.shape[1:])
        return (
            f"a segmentation network reads an .npz with labels (N, {size}) of class numbers, or a folder with "
            "images/a.jpg and masks/a.png, whose pixels are class numbers; 255 is ignored"
        )
    if task is TaskKind.DETECTION:
        return (
            "a detector reads an .npz with labels (N, M, 5) of class, left, top, right and bottom in pixels, the class "
            "being -1 in rows that are left, or a folder with images/a.jpg and labels/a.txt, whose lines are "
            "`class x y width height` as fractions of the image"
        )
    if task is TaskKind.EMBEDDING:
        return (
            "an embedding network reads an .npz with labels (N,), alike for images that belong together, or a folder "
            "with one folder of images for each of them: anna/1.jpg, anna/2.jpg, ben/1.jpg"
        )
    return "one folder of images per class, or an .npz file with images and labels (N,), is expected"


def truth_of_several(where: str, labels: Mapping[str, NDArray[Any]], num_images: int, output: OutputSpec) -> Truth:
    """The truth of several outputs, of an array for each by name: a structured array (N,) of `truth_of`.

    Raises:
        BadInputError: an output has none, or one that is no truth of its task.
    """
    if missing := [name for name in output.names if name not in labels]:
        raise BadInputError(
            f"images {where}: no truth of {', '.join(missing)}, found {', '.join(labels) or 'nothing'}",
            hint=example_of(output),
        )
    return join(
        {
            part.name: truth_of(f"{where}, {part.name}", labels[part.name], num_images, part.output, part.classes)
            for part in output.parts
        }
    )


def truth_of(
    where: str, labels: NDArray[Any], num_images: int, output: OutputSpec, classes: Sequence[str] | None
) -> Truth:
    """The truth of a task, of an array.

    Args:
        where: it comes from, for messages.
        labels: as they are given.
        num_images: N.
        output: of the network.
        classes: names of the classes, where they are known.

    Returns:
        Class indices (N,) int64 of one label or a binary network; any numbers (N,) int64 for an embedding; 0 and 1
        (N, K) uint8 for several labels; values (N, D); class maps (N, H, W), see `class_maps`;
        boxes (N, M, 5), see `boxes`.

    Raises:
        BadInputError: it is no truth of this task.
    """
    num_classes = output.num_classes
    if output.task in (TaskKind.ONE_LABEL, TaskKind.BINARY) and num_classes is not None:
        numbers = _as_numbers(labels, num_classes, classes)
        return _as_labels(where, numbers, num_images, num_classes)
    if len(labels.shape) and len(labels) != num_images:
        raise BadInputError(
            f"images {where}: {num_images} images but {len(labels)} labels", hint="give one label for each image"
        )
    read: dict[TaskKind, Callable[[str, NDArray[Any], OutputSpec], Truth]] = {
        TaskKind.MULTI_LABEL: label_sets,
        TaskKind.EMBEDDING: identities,
        TaskKind.REGRESSION: values,
        TaskKind.SEGMENTATION: class_maps,
        TaskKind.DETECTION: boxes,
    }
    return read[output.task](where, labels, output)


def label_sets(where: str, labels: NDArray[Any], output: OutputSpec) -> NDArray[numpy.uint8]:
    """Whether each label holds, 0 or 1 (N, K); a column (N,) is that of the only label.

    Raises:
        BadInputError: another shape, or other numbers.
    """
    import numpy as np

    labels_NK = labels[:, np.newaxis] if labels.ndim == 1 and output.shape == (1,) else labels
    if labels_NK.shape[1:] != output.shape or not (_is_numeric(labels_NK) and np.isin(labels_NK, (0, 1)).all()):
        raise _other(where, f"labels (N, {output.shape[0]}) of 0 and 1", labels, output)
    return labels_NK.astype(np.uint8)


def values(where: str, labels: NDArray[Any], output: OutputSpec) -> NDArray[numpy.floating[Any]]:
    """True values (N, D); a column (N,) is that of the only value, and (N, H, W) those of the only map.

    Raises:
        BadInputError: another shape, or no finite numbers.
    """
    import numpy as np

    of_one = output.shape[1:] if output.shape[0] == 1 else output.shape
    fits = labels.shape[1:] in (output.shape, of_one, (output.num_values,))
    if not (fits and _is_numeric(labels) and np.isfinite(labels).all()):
        raise _other(where, f"labels (N, {_sides(output.shape)}) of finite numbers", labels, output)
    return labels.reshape(len(labels), -1).astype(np.float64 if len(output.shape) == 1 else np.float32)


def identities(where: str, labels: NDArray[Any], output: OutputSpec) -> NDArray[numpy.int64]:
    """A number for each image (N,), alike for images that belong together: of any numbers or names.

    Raises:
        BadInputError: another shape, all labels are alike, or no two are.
    """
    import numpy as np

    labels_N = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    is_name = labels_N.dtype.kind in "US"
    if labels_N.ndim != 1 or not (is_name or (_is_numeric(labels_N) and bool((labels_N == np.floor(labels_N)).all()))):
        raise _other(where, "one number or name for each image (N,)", labels, output)
    found, numbers_N = np.unique(labels_N, return_inverse=True)
    if len(found) in (1, len(labels_N)):
        how = "are all alike" if len(found) == 1 else "are all different"
        raise BadInputError(
            f"images {where}: their {len(labels_N)} labels {how}",
            hint="an embedding is right where the nearest other image has the same label: give at least two labels, "
            "with two images each",
        )
    return numbers_N.astype(np.int64)


def class_maps(where: str, labels: NDArray[Any], output: OutputSpec) -> NDArray[Any]:
    """Class maps (N, H, W): uint8 with `IGNORED`, or for more classes than that int16 with -1.

    Where there are two classes and all pixels are 0 or 255, as image editors store a mask, 255 is class 1.

    Raises:
        BadInputError: another shape, no whole numbers, classes beyond the network's, or all of a map is ignored.
    """
    import numpy as np

    channels = [axis for axis in (1, 3) if labels.ndim == 4 and labels.shape[axis] == 1]
    maps_NHW = labels.squeeze(channels[0]) if channels else labels
    size = _sides(output.shape[1:])
    if maps_NHW.shape[1:] != output.shape[1:] or not _is_numeric(maps_NHW):
        raise _other(where, f"labels (N, {size}) of class numbers", labels, output)
    num_classes = max(2, output.shape[0])
    found = np.unique(np.concatenate([np.unique(map_HW) for map_HW in maps_NHW]))  # map by map: less to sort
    ignored = {-1} if num_classes > IGNORED else {-1, IGNORED}
    if num_classes == 2 and IGNORED in found and set(found.tolist()) <= {0, IGNORED}:
        is_object_NHW: NDArray[numpy.uint8] = np.equal(maps_NHW, IGNORED).astype(np.uint8)
        return is_object_NHW
    if wrong := sorted({number for number in found.tolist() if number not in range(num_classes)} - ignored):
        raise beyond(where, wrong, output)
    is_ignored_N = np.isin(maps_NHW, tuple(ignored)).all(axis=(1, 2))
    if is_ignored_N.any():
        raise BadInputError(
            f"images {where}: all pixels of {int(is_ignored_N.sum())} class maps are ignored, that of image "
            f"{int(is_ignored_N.argmax())} (counted from 0) among them",
            hint="leave these images out: there is nothing to judge on them",
        )
    if num_classes > IGNORED:
        return maps_NHW.astype(np.int16)
    return np.where(maps_NHW == -1, IGNORED, maps_NHW).astype(np.uint8)


def boxes(where: str, labels: NDArray[Any], output: OutputSpec) -> NDArray[numpy.float32]:
    """Boxes (N, M, 5) of class, left, top, right and bottom in pixels; the class is `NO_BOX` in rows that are left.

    Rows whose class is negative or that are NaN are no boxes.

    Raises:
        BadInputError: another shape, classes that the network does not have, or a box without an area.
    """
    import numpy as np

    expected = "labels (N, M, 5) of class, left, top, right and bottom"
    if labels.ndim != 3 or labels.shape[2] != 5 or not _is_numeric(labels):
        raise _other(where, expected, labels, output)
    labels_NM5 = labels.astype(np.float32)
    is_box_NM = ~np.isnan(labels_NM5).all(axis=2) & ~(labels_NM5[..., 0] < 0)
    rows_b5 = labels_NM5[is_box_NM]
    if not np.isfinite(rows_b5).all():
        raise BadInputError(f"images {where}: numbers of a box are not finite", hint=example_of(output))
    num_classes, numbers_b = output.num_classes or 0, rows_b5[:, 0]
    if wrong := sorted(set(numbers_b[(numbers_b >= num_classes) | (numbers_b != np.floor(numbers_b))].tolist())):
        raise beyond(where, wrong, output)
    sides_b2 = rows_b5[:, 3:] - rows_b5[:, 1:3]
    if (sides_b2 <= 0).any():
        number = int((sides_b2 <= 0).any(axis=1).argmax())
        row = ", ".join(f"{value:g}" for value in rows_b5[number])
        raise BadInputError(
            f"images {where}: a box should end right of and below where it begins, found {row}",
            hint=f"a centre with a width and a height is another layout: {example_of(output)}",
        )
    if len(rows_b5) and rows_b5[:, 1:].max() <= 1:
        raise BadInputError(
            f"images {where}: no box reaches beyond the first pixel: they look like fractions of the image",
            hint=f"multiply by the image's width and height: {example_of(output)}",
        )
    return np.where(is_box_NM[..., np.newaxis], labels_NM5, np.float32(NO_BOX))


def _sides(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def beyond(where: str, wrong: Sequence[float], output: OutputSpec) -> BadInputError:
    """An error about class numbers that the network does not have."""
    return BadInputError(
        f"images {where}: class numbers from 0 to {_num_known(output) - 1} were expected, found {_few(wrong)} too",
        hint=f"number the classes as the network does: {example_of(output)}",
    )


def _num_known(output: OutputSpec) -> int:
    return output.num_classes or 1 if output.task is TaskKind.DETECTION else max(2, output.shape[0])


def notes_of(name: str, truth: Truth, output: OutputSpec) -> tuple[str, ...]:
    """What to know of a truth, one sentence each.

    Args:
        name: of the images.
        truth: as `truth_of` gives it.
        output: of the network.
    """
    import numpy as np

    if output.parts:
        return tuple(
            note for part in output.parts for note in notes_of(f"{name}, {part.name}", truth[part.name], part.output)
        )
    if output.task is TaskKind.EMBEDDING:
        _, counts = np.unique(truth, return_counts=True)
        if num_single := int((counts == 1).sum()):
            return (
                f"{name}: {num_single:,} of {len(truth):,} images are the only one of their label, and count as wrong",
            )
    return ()


def _other(where: str, expected: str, labels: NDArray[Any], output: OutputSpec) -> BadInputError:
    span = ""
    if _is_numeric(labels) and labels.size and labels.dtype.kind != "b":
        span = f" from {labels.min():g} to {labels.max():g}"
    return BadInputError(
        f"images {where}: {expected} were expected, found {labels.dtype} {labels.shape}{span}", hint=example_of(output)
    )


def _is_numeric(labels: NDArray[Any]) -> bool:
    return labels.dtype.kind in "biuf"


def _few(numbers: Sequence[float]) -> str:
    shown = ", ".join(f"{number:g}" for number in numbers[:4])
    return shown if len(numbers) <= 4 else f"{shown} and {len(numbers) - 4} more"


def _as_numbers(labels: NDArray[Any], num_classes: int, classes: Sequence[str] | None) -> NDArray[Any]:
    """Class numbers of what says as much: one column, one-hot rows, whole floats, yes or no, names of classes."""
    import numpy as np

    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras stores CIFAR
        labels = labels[:, 0]
    if labels.dtype == np.bool_ and labels.ndim == 1 and num_classes == 2:
        return labels.astype(np.int64)
    is_number = np.issubdtype(labels.dtype, np.number) or labels.dtype == np.bool_
    if is_number and labels.ndim == 2 and labels.shape[1] == num_classes:
        is_one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
        return labels.argmax(axis=1) if is_one_hot else labels
    if np.issubdtype(labels.dtype, np.floating) and bool((labels == np.floor(labels)).all()):
        return labels.astype(np.int64)
    if labels.dtype.kind == "U" and classes and set(labels.ravel().tolist()) <= set(classes):
        return np.array([classes.index(name) for name in labels.ravel().tolist()]).reshape(labels.shape)
    return labels


def _as_labels(where: str, labels: NDArray[Any], num_images: int, num_classes: int) -> NDArray[numpy.int64]:
    import numpy as np

    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise BadInputError(
            f"images {where}: integer labels of shape (N,) were expected, found {labels.dtype} {labels.shape}",
            hint="give one class number, from 0, for each image; names are read where model.toml lists `classes`",
        )
    if len(labels) != num_images:
        raise BadInputError(
            f"images {where}: {num_images} images but {len(labels)} labels", hint="give one label for each image"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        raise BadInputError(
            f"images {where}: labels from {lowest} to {highest}, but the model has {num_classes} classes",
            hint=f"labels count from 0 to {num_classes - 1}",
        )
    return labels.astype(np.int64)

"""What labelled images come with. Shapes: N images, K classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


def class_indices(
    where: str, labels: NDArray[Any], num_images: int, num_classes: int, classes: Sequence[str] | None
) -> NDArray[numpy.int64]:
    """One class for each image.

    Args:
        where: they come from, for messages.
        labels: as they are given.
        num_images: N.
        num_classes: K.
        classes: names of the classes, where they are known.

    Raises:
        BadInputError: they are no class indices below K.
    """
    return _as_labels(where, _as_numbers(labels, num_classes, classes), num_images, num_classes)


def _as_numbers(labels: NDArray[Any], num_classes: int, classes: Sequence[str] | None) -> NDArray[Any]:
    """Class numbers of what says as much: one column, one-hot rows, whole floats, names of the model's classes."""
    import numpy as np

    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras stores CIFAR
        labels = labels[:, 0]
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

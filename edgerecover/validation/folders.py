"""Folders of labelled images, task by task: class folders, a table of labels. Shapes: N images, K labels."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.validation.image_files import IMAGE_SUFFIXES, find_images, images_below, is_litter, some
from edgerecover.validation.truth import example_of, truth_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgerecover.validation.truth import Truth

TABLE = "labels.csv"
"""Beside the images, where each has numbers and not one class."""
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
"""Names of folders that hold class folders, and are none."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Image files with their truth."""

    files: tuple[Path, ...]
    truth: Truth
    """As `truth.truth_of` gives it."""
    notes: tuple[str, ...]
    """What was left out, or how labels were read."""


def find_labelled(path: Path, output: OutputSpec, classes: Sequence[str] | None) -> Labelled:
    """Image files and what they come with, for every task but segmentation and detection.

    Args:
        path: of the folder.
        output: of the network.
        classes: names of the classes or labels, where they are known.

    Raises:
        BadInputError: the folder has another layout, or does not fit the network.
    """
    if output.task in (TaskKind.MULTI_LABEL, TaskKind.REGRESSION):
        return _find_in_table(path, output, classes)
    return _find_in_class_folders(path, output, classes)


# --- class folders ----------------------------------------------------------------------------------------------


def _find_in_class_folders(path: Path, output: OutputSpec, classes: Sequence[str] | None) -> Labelled:
    import numpy as np

    num_classes = output.num_classes
    names = subfolders(path, classes)
    if num_classes is None and not names:
        raise wrong_layout(path, "one folder for each label was expected", output)
    folders = names if num_classes is None else _class_folders(path, names, num_classes, classes)
    found = find_images(path, folders)
    if not found.files:
        raise BadInputError(
            f"images {path}: its subfolders hold no images", hint=f"read are {', '.join(IMAGE_SUFFIXES)}"
        )
    labels_N = np.array(found.labels, np.int64)
    truth = truth_of(str(path), labels_N, len(labels_N), output, classes)
    notes = () if classes or num_classes is None else _notes_of_order(path, names, output)
    return Labelled(found.files, truth, (*found.notes, *notes))


def subfolders(path: Path, classes: Sequence[str] | None = None) -> list[str]:
    """Names of the folders in a folder, sorted.

    Raises:
        BadInputError: they are parts of a data set.
    """
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not is_litter(entry.name))
    if len(names) >= 2 and _SPLITS.issuperset(name.lower() for name in names) and not set(names) & set(classes or ()):
        raise BadInputError(
            f"images {path}: its subfolders ({', '.join(names)}) are parts of a data set, not classes",
            hint=f"give one of them: {path / names[0]}",
        )
    return names


def _class_folders(path: Path, names: list[str], num_classes: int, classes: Sequence[str] | None) -> list[str]:
    """Subfolders in the order of the model's classes."""
    if len(names) != num_classes:
        raise BadInputError(
            f"images {path}: {len(names)} class subfolders, but the model has {num_classes} classes",
            hint="one subfolder of images per class, empty ones too; or an .npz with images and labels",
        )
    if classes is None:
        return names
    if unknown := sorted(set(names) - set(classes)):
        raise BadInputError(
            f"images {path}: {unknown[0]!r} is no class of the model; they are {_first(classes)}",
            hint="name the subfolders as the model's classes are named, or these as the subfolders: `classes` in "
            "model.toml wins over a config.json",
        )
    return list(classes)


def _notes_of_order(path: Path, names: list[str], output: OutputSpec) -> tuple[str, ...]:
    """Where an order that nobody stated may be another than the network's."""
    if output.task is TaskKind.BINARY:
        return (
            f"{path.name}: {names[0]!r} is taken as 0 (no) and {names[1]!r} as 1 (yes), in the order of their names; "
            "for another, list `classes` in model.toml",
        )
    if not all(name.isdecimal() for name in names) or names == sorted(names, key=int):
        return ()
    return (
        f"{path.name}: its class folders are taken in the order of text ({', '.join(names[:3])} …), as torchvision's "
        "ImageFolder takes them; for another, list `classes` in model.toml",
    )


def _first(classes: Sequence[str]) -> str:
    return ", ".join(classes[:8]) + (f" and {len(classes) - 8} more" if len(classes) > 8 else "")


# --- a table -----------------------------------------------------------------------------------------------------


def _find_in_table(path: Path, output: OutputSpec, classes: Sequence[str] | None) -> Labelled:
    table = path / TABLE
    if len(output.shape) == 3:
        raise wrong_layout(path, "an .npz was expected", output)
    if not table.is_file():
        raise wrong_layout(path, f"a file {TABLE} was expected", output)
    names, files, numbers_NK = _read_table(table, output)
    if len(names) != output.num_values:
        raise BadInputError(
            f"images {table}: {len(names)} columns beside the file's name, but the network has {output.num_values} "
            f"{'labels' if output.task is TaskKind.MULTI_LABEL else 'values'}",
            hint=example_of(output),
        )
    if output.task is TaskKind.MULTI_LABEL and classes is not None:
        numbers_NK = numbers_NK[:, _order_of(table, names, classes)]
    truth = truth_of(str(table), numbers_NK, len(files), output, classes)
    found = images_below(path)
    left_out = sorted(set(found) - set(files))
    notes = (f"{path.name}: not read, because {TABLE} does not name them: {some(left_out, path)}",) if left_out else ()
    return Labelled(files, truth, notes)


def _read_table(table: Path, output: OutputSpec) -> tuple[list[str], tuple[Path, ...], NDArray[Any]]:
    """Names of the columns, image files, and their numbers (N, K)."""
    import numpy as np

    (_, names), *lines = _rows_of(table, output) or [(1, [])]
    if len(names) < 2 or _is_file(table.parent / names[0]):
        raise BadInputError(
            f"images {table}: the first line should name the columns, found {','.join(names)[:80]!r}",
            hint=example_of(output),
        )
    files, numbers = [], []
    for number, cells in lines:
        if len(cells) != len(names):
            raise BadInputError(
                f"images {table}: line {number} has {len(cells)} cells, but the first line {len(names)}",
                hint=example_of(output),
            )
        file = table.parent / cells[0].strip()
        if not _is_file(file):
            raise BadInputError(
                f"images {table}: line {number} names {cells[0]!r}, and there is no such file in {table.parent}",
                hint="name image files by their paths from the folder of labels.csv",
            )
        files.append(file)
        numbers.append([_number_of(cell, table, number, output) for cell in cells[1:]])
    if not files:
        raise BadInputError(f"images {table}: there are no lines below the first", hint=example_of(output))
    if len(set(files)) != len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise BadInputError(f"images {table}: {twice.name} is named twice", hint="give each image one line")
    return [name.strip() for name in names[1:]], tuple(files), np.array(numbers, np.float64)


def _rows_of(table: Path, output: OutputSpec) -> list[tuple[int, list[str]]]:
    """Cells of every line that has some, and its number from 1."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines)
            return [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"images {table}: cannot be read as a table: {error}", hint=example_of(output)) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name that a file could have
        return False


def _number_of(cell: str, table: Path, line: int, output: OutputSpec) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInputError(
            f"images {table}: line {line} has {cell!r} where a number should be", hint=example_of(output)
        )
    return number


def _order_of(table: Path, names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """For each label of the model, its column."""
    if unknown := sorted(set(names) - set(classes)):
        raise BadInputError(
            f"images {table}: {unknown[0]!r} is no label of the model; they are {_first(classes)}",
            hint="name the columns as the model's labels are named, or these as the columns: `classes` in model.toml "
            "wins over a config.json",
        )
    if len(set(names)) != len(names):
        raise BadInputError(f"images {table}: two columns have one name", hint="name each label once")
    return [names.index(label) for label in classes]


def wrong_layout(path: Path, expected: str, output: OutputSpec) -> BadInputError:
    """An error about a folder that lacks what it should hold, with what it holds instead."""
    entries = sorted(entry.name for entry in path.iterdir() if not is_litter(entry.name))
    found = ", ".join(entries[:4]) + (f" and {len(entries) - 4:,} more" if len(entries) > 4 else "")
    return BadInputError(f"images {path}: {expected}, found {found or 'nothing'}", hint=example_of(output))

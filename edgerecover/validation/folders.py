"""Folders of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgerecover.errors import BadInputError
from edgerecover.validation.image_files import is_litter

_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
"""Names of folders that hold class folders, and are none."""


def note_of_order(path: Path) -> tuple[str, ...]:
    """Of folders called by numbers, where their order as text is another than that of the numbers."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not is_litter(entry.name))
    if not all(name.isdecimal() for name in names) or names == sorted(names, key=int):
        return ()
    return (
        f"{path.name}: its class folders are taken in the order of text ({', '.join(names[:3])} …), as torchvision's "
        "ImageFolder takes them; for another, list `classes` in model.toml",
    )


def class_folders(path: Path, num_classes: int, classes: Sequence[str] | None) -> list[str]:
    """Subfolders in the order of the model's classes."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not is_litter(entry.name))
    if len(names) >= 2 and _SPLITS.issuperset(name.lower() for name in names) and not set(names) & set(classes or ()):
        raise BadInputError(
            f"images {path}: its subfolders ({', '.join(names)}) are parts of a data set, not classes",
            hint=f"give one of them: {path / names[0]}",
        )
    if len(names) != num_classes:
        raise BadInputError(
            f"images {path}: {len(names)} class subfolders, but the model has {num_classes} classes",
            hint="one subfolder of images per class, empty ones too; or an .npz with images and labels",
        )
    if classes is None:
        return names
    if unknown := sorted(set(names) - set(classes)):
        raise BadInputError(
            f"images {path}: {unknown[0]!r} is no class of the model; they are {', '.join(classes[:8])}"
            + (f" and {len(classes) - 8} more" if len(classes) > 8 else ""),
            hint="name the subfolders as the model's classes are named, or these as the subfolders: `classes` in "
            "model.toml wins over a config.json",
        )
    return list(classes)

"""Writing a bundle: whole in its place, or not at all. Stdlib only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from edgerecover.artifacts import sha256_of
from edgerecover.bundle.manifest import MANIFEST_NAME, MEASUREMENTS_NAME, FileEntry, Manifest, Measurements, check_paths
from edgerecover.bundle.verify import read_manifest
from edgerecover.errors import BadInputError, VerificationError, unwritable_hint
from edgerecover.files import building_beside, move_into_place, nearest_existing

Measured = Path | bytes | str | Callable[[str], str]
"""A file to copy, bytes, text, or what makes the text from the manifest's sha256."""


def write_bundle(
    files: Mapping[str, Path | bytes | str],
    out: Path,
    fields: Mapping[str, Any],
    measured: Mapping[str, Measured] | None = None,
    measured_fields: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle: whole at `out`, or nothing at all.

    Args:
        files: what the manifest lists, by path inside the bundle: a file to copy, bytes, or text.
        out: a place that is free, an empty folder, or an earlier bundle, which is replaced.
        fields: what else the manifest states.
        measured: files that hold what was measured or timed, and differ from run to run.
        measured_fields: what else the measurements state.

    Raises:
        BadInputError: `out` holds something else, or cannot be written (no permission, disk full).
        ValueError: a path or field that a manifest may not hold, or a file to copy that is not there.
    """
    measured = measured or {}
    if both := sorted(files.keys() & measured.keys()):
        raise ValueError(f"{both[0]!r} is to be both made and measured")
    together = {**files, **measured}
    check_paths(together)
    if absent := [source for source in together.values() if isinstance(source, Path) and not source.is_file()]:
        raise ValueError(f"{absent[0]}: no such file to put into the bundle")
    check_writable(out)
    try:
        with building_beside(out) as building:
            building.mkdir()
            entries = {path: put(content, building / path) for path, content in files.items()}
            manifest = put(Manifest(entries, dict(fields)).dump(), building / MANIFEST_NAME)
            times = {
                path: put(content(manifest.sha256) if callable(content) else content, building / path)
                for path, content in measured.items()
            }
            put(Measurements(manifest.sha256, times, dict(measured_fields or {})).dump(), building / MEASUREMENTS_NAME)
            move_into_place(building, out)
    except OSError as error:
        raise unwritable(out, error) from error
    return out


def check_writable(out: Path) -> None:
    """Find out now, not after hours of work, whether a bundle can be written at `out`. Leaves nothing behind.

    Raises:
        BadInputError: `out` holds something that is not a bundle, or its folder cannot be written to.
    """
    try:
        if (out.exists() or out.is_symlink()) and not _replaceable(out):
            raise BadInputError(
                f"{out}: it already exists and is not a bundle",
                hint="name another place with --out, or remove it yourself",
            )
        existing = nearest_existing(out.absolute().parent)
        with tempfile.TemporaryDirectory(prefix=".edgerecover-", dir=existing) as probe:
            (Path(probe) / "probe").write_bytes(b"\0" * 4096)
    except OSError as error:
        raise unwritable(out, error) from error


def _replaceable(out: Path) -> bool:
    """An empty folder, or one whose manifest is a bundle's: many a project has a manifest.json of another kind."""
    if out.is_symlink() or not out.is_dir():
        return False
    if not any(out.iterdir()):
        return True
    try:
        read_manifest(out)
    except (BadInputError, VerificationError):
        return False
    return True


def unwritable(out: Path, error: OSError) -> BadInputError:
    """What a user reads where a bundle cannot be written."""
    return BadInputError(
        f"{out}: the bundle cannot be written: {error.strerror or error}",
        hint=unwritable_hint(error, "name another place with --out"),
    )


def put(content: Path | bytes | str | Iterable[bytes], path: Path) -> FileEntry:
    """Write a file of a bundle under way; digest and size of what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    elif isinstance(content, (str, bytes)):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        with path.open("wb") as file:
            file.writelines(content)
    return FileEntry(sha256_of(path), path.stat().st_size)

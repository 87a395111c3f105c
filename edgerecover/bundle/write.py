"""Writing a bundle: built beside its place, synced, then renamed into it. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgerecover.artifacts import sha256_of
from edgerecover.bundle.manifest import MANIFEST_NAME, FileEntry, Manifest, check_paths
from edgerecover.bundle.verify import read_manifest, verify_bundle
from edgerecover.errors import BadInputError, VerificationError


def write_bundle(files: Mapping[str, Path | bytes | str], out: Path, fields: Mapping[str, Any]) -> Path:
    """Write a bundle: whole at `out`, or nothing at all.

    Args:
        files: content by path inside the bundle: a file to copy, bytes, or text.
        out: a place that is free, an empty folder, or an earlier bundle, which is replaced.
        fields: what else the manifest states.

    Raises:
        BadInputError: `out` holds something else, or cannot be written (no permission, disk full).
        ValueError: a path or field that a manifest may not hold, or a file to copy that is not there.
    """
    check_paths(files)
    if absent := [source for source in files.values() if isinstance(source, Path) and not source.is_file()]:
        raise ValueError(f"{absent[0]}: no such file to put into the bundle")
    check_writable(out)
    try:
        with _building_beside(out) as building:
            entries = {path: _put(content, building / path) for path, content in files.items()}
            _put(Manifest(entries, dict(fields)).dump(), building / MANIFEST_NAME)
            _sync_folders(building)
            _move_into_place(building, out)
    except OSError as error:
        raise _unwritable(out, error) from error
    return out


def copy_bundle(bundle: Path, out: Path) -> None:
    """A verified copy of a bundle: whole at `out`, or nothing at all.

    Args:
        bundle: a folder.
        out: a place that is free, an empty folder, or an earlier bundle, which is replaced.

    Raises:
        BadInputError: `out` holds something else, or cannot be written.
        VerificationError: what was copied is not what its manifest lists.
    """
    check_writable(out)
    try:
        with _building_beside(out) as building:
            shutil.copytree(bundle, building, symlinks=True, dirs_exist_ok=True)
            verify_bundle(building)
            _sync_folders(building)
            _move_into_place(building, out)
    except OSError as error:
        raise _unwritable(out, error) from error


def check_writable(out: Path) -> None:
    """Find out now, not after hours of work, whether a bundle can be written at `out`. Leaves nothing behind.

    Raises:
        BadInputError: `out` holds something that is not a bundle, or its folder cannot be written to.
    """
    try:
        if (out.exists() or out.is_symlink()) and not _replaceable(out):
            raise BadInputError(
                f"{out}: there is something there already, and it is not a bundle",
                hint="name another place with --out, or remove it yourself",
            )
        existing = _nearest_existing(out.absolute().parent)
        with tempfile.TemporaryDirectory(prefix=".edgerecover-", dir=existing) as probe:
            (Path(probe) / "probe").write_bytes(b"\0" * 4096)
    except OSError as error:
        raise _unwritable(out, error) from error


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


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _unwritable(out: Path, error: OSError) -> BadInputError:
    return BadInputError(
        f"{out}: the bundle cannot be written: {error.strerror or error}",
        hint="free some space there, or name another place with --out",
    )


# --- the folder being built ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _building_beside(out: Path) -> Iterator[Path]:
    """A folder beside `out`; removed at the end if it is still there, with the parents made for it."""
    parent = out.absolute().parent
    existing = _nearest_existing(parent)
    building = _sibling(out, "partial")
    try:
        building.mkdir(parents=True)
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)
        _remove_empty(parent, until=existing)


def _sibling(out: Path, suffix: str) -> Path:
    """A free name beside `out`; `tempfile` would close the folder to other users."""
    return out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}.{suffix}")


def _remove_empty(folder: Path, until: Path) -> None:
    while folder != until:
        try:
            folder.rmdir()
        except OSError:  # not empty: the bundle is there
            return
        folder = folder.parent


def _put(content: Path | bytes | str, path: Path) -> FileEntry:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    _sync(path, os.O_RDWR)
    return FileEntry(sha256_of(path), path.stat().st_size)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(root: Path) -> None:
    """Make the names durable too, where the system opens folders at all."""
    if os.name == "nt":
        return
    for folder, _, _ in os.walk(root):
        _sync(Path(folder), os.O_RDONLY)


def _move_into_place(building: Path, out: Path) -> None:
    if not out.exists():
        building.rename(out)
        return
    earlier = _sibling(out, "old")
    out.rename(earlier)
    try:
        building.rename(out)
    except OSError:
        earlier.rename(out)
        raise
    shutil.rmtree(earlier, ignore_errors=True)

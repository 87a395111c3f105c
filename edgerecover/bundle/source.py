"""A bundle's files, in a folder or in an archive, before anything in them is trusted. Stdlib only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from edgerecover.bundle.archive import BLOCK, SUFFIX, Member, looks_like_archive, pieces_of, read_members
from edgerecover.bundle.manifest import MANIFEST_NAME, MAX_FILES, MAX_OWN_BYTES, OWN_NAMES, FileEntry
from edgerecover.errors import DAMAGED_HINT, UNREADABLE_HINT, BadInputError, VerificationError

_PIECE_BYTES = 1 << 20
_HINT = "a bundle is the folder that `edgerecover run` wrote, or the archive that `edgerecover bundle pack` made of it"


class Source(Protocol):
    """Where a bundle's files are read from."""

    def names(self) -> Mapping[str, str]:
        """What there is, by path; the value says why one is no plain file, "" for plain files."""

    def pieces(self, path: str) -> Iterator[bytes]:
        """Content of a plain file, in pieces."""


@dataclass(frozen=True)
class Snapshot:
    """What the files of a bundle were while they were read, once, from the first to the last."""

    entries: dict[str, FileEntry]
    """Of plain files, by path."""
    odd: dict[str, str]
    """What is no plain file, and what it is instead."""
    own: dict[str, bytes]
    """Content of those of `OWN_NAMES` that are there: what is parsed is what was hashed."""


@contextlib.contextmanager
def open_source(bundle: Path) -> Iterator[Source]:
    """Open a bundle, folder or archive.

    Raises:
        BadInputError: nothing there, or neither a bundle's folder nor an archive.
        VerificationError: an archive that is not as edgerecover writes them.
    """
    if bundle.is_dir():
        manifest = bundle / MANIFEST_NAME
        if manifest.is_symlink() or not manifest.is_file():
            raise BadInputError(f"{bundle} is not a bundle: it has no {MANIFEST_NAME}", hint=_HINT)
        yield _Folder(bundle)
        return
    if not bundle.exists():
        raise BadInputError(f"{bundle} does not exist", hint=_HINT)
    if not bundle.is_file():
        raise BadInputError(f"{bundle} is neither a folder nor a file", hint=_HINT)
    with contextlib.ExitStack() as open_until_done:
        try:
            file = open_until_done.enter_context(bundle.open("rb"))
            if not looks_like_archive(file.read(BLOCK)) and bundle.suffix != SUFFIX:
                raise BadInputError(f"{bundle} is not a bundle: it is neither a folder nor a tar archive", hint=_HINT)
            archive = _Archive(bundle, file, read_members(file, os.fstat(file.fileno()).st_size))
        except OSError as error:
            raise _unreadable(bundle, error) from error
        yield archive


def snapshot(source: Source) -> Snapshot:
    """Read and hash every file once.

    Raises:
        BadInputError: a file cannot be read.
        VerificationError: one of the bundle's own files is too large to be one.
    """
    names = source.names()
    entries: dict[str, FileEntry] = {}
    own: dict[str, bytes] = {}
    for path in sorted(path for path, odd in names.items() if not odd):
        entries[path], kept = _hash(path, source.pieces(path))
        if path in OWN_NAMES:
            own[path] = kept
    return Snapshot(entries, {path: odd for path, odd in names.items() if odd}, own)


def _hash(path: str, pieces: Iterator[bytes]) -> tuple[FileEntry, bytes]:
    digest, size_bytes, kept = hashlib.sha256(), 0, b""
    for piece in pieces:
        digest.update(piece)
        size_bytes += len(piece)
        if path in OWN_NAMES:
            kept += piece
            if size_bytes > MAX_OWN_BYTES:
                raise VerificationError(
                    f"{path}: larger than the {MAX_OWN_BYTES >> 20} MiB that it may take",
                    hint=DAMAGED_HINT,
                )
    return FileEntry(digest.hexdigest(), size_bytes), kept


@dataclass(frozen=True)
class _Folder:
    root: Path

    def names(self) -> Mapping[str, str]:
        """Links are not followed; a folder that holds nothing counts as a thing that is no file."""
        found: dict[str, str] = {}
        folders = [self.root]
        while folders:
            folder = folders.pop()
            try:
                entries = list(folder.iterdir())
            except OSError as error:
                raise _unreadable(folder, error) from error
            if not entries and folder != self.root:
                found[folder.relative_to(self.root).as_posix() + "/"] = "an empty folder"
            for entry in entries:
                mode = entry.lstat().st_mode
                if stat.S_ISDIR(mode):
                    folders.append(entry)
                else:
                    found[entry.relative_to(self.root).as_posix()] = _kind(mode)
            if len(found) > MAX_FILES + len(OWN_NAMES):
                raise VerificationError(
                    f"{self.root}: holds more than the {MAX_FILES:,} files of a bundle",
                    hint=DAMAGED_HINT,
                )
        return found

    def pieces(self, path: str) -> Iterator[bytes]:
        file = self.root / path
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(file, flags)
            with open(descriptor, "rb") as opened:  # noqa: PTH123 - a link put there meanwhile must not be followed
                if kind := _kind(os.fstat(descriptor).st_mode):
                    raise VerificationError(
                        f"{file} became {kind} while it was read",
                        hint="nothing may write to a bundle while it is read; try again",
                    )
                while piece := opened.read(_PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise _unreadable(file, error) from error


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link, not a file"
    return "" if stat.S_ISREG(mode) else "not a regular file"


@dataclass(frozen=True)
class _Archive:
    path: Path
    file: BinaryIO
    members: Mapping[str, Member]

    def names(self) -> Mapping[str, str]:
        return dict.fromkeys(self.members, "")

    def pieces(self, path: str) -> Iterator[bytes]:
        try:
            yield from pieces_of(self.file, self.members[path])
        except OSError as error:
            raise _unreadable(self.path, error) from error


def _unreadable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(
        f"{path} cannot be read: {error.strerror or error}",
        hint=UNREADABLE_HINT,
    )

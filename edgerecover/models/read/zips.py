"""Zip archives as torch writes them; every size is checked before anything is unpacked. Stdlib only."""

from __future__ import annotations

import copy
import zipfile
from typing import Any, BinaryIO

MAX_EXPANSION = 16
"""A file may unpack to this many times its size: zip-compressed zeros do, a zip bomb does more."""

MAX_EXPANSION_FREE_BYTES = 1 << 20
"""Files that unpack to less than this are not checked for expansion."""

MAX_MEMBERS = 100_000

_ENCRYPTED = 0x1
_HEADER_BYTES = 30


class ZipError(Exception):
    """The archive cannot be used; the text is for people."""


class ZipBombError(ZipError):
    """The archive claims to unpack to far more than its size."""


class Archive:
    """The members of a zip, named relative to the top folder that all of them share."""

    def __init__(self, file: BinaryIO, size_bytes: int, *, max_unpacked_bytes: int | None = None) -> None:
        """Read the directory.

        Args:
            file: the zip; it must stay open while members are read.
            size_bytes: size of the zip.
            max_unpacked_bytes: what all members together may take; None for `MAX_EXPANSION` times the zip.

        Raises:
            ZipError: the file is not a zip or is damaged, or its members overlap, share a name, are encrypted or
                unpack to more than allowed.
        """
        self.max_unpacked_bytes = max_unpacked_bytes or MAX_EXPANSION * size_bytes + MAX_EXPANSION_FREE_BYTES
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # hostile bytes raise anything
            raise ZipError(str(error)[:200] or type(error).__name__) from error
        members = self._zip.infolist()
        _check(members, size_bytes, self.max_unpacked_bytes)
        top = members[0].filename.partition("/")[0] + "/" if members else ""
        shared = all(member.filename.startswith(top) for member in members)
        self._members = {member.filename.removeprefix(top) if shared else member.filename: member for member in members}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all members, in the order of the directory."""
        return tuple(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size_bytes(self, name: str) -> int:
        """Unpacked size of a member; 0 if there is none of that name."""
        return self._members[name].file_size if name in self._members else 0

    def read(self, name: str) -> bytearray:
        """Unpack one member.

        Raises:
            ZipError: there is none of that name, or it is damaged.
        """
        if name not in self._members:
            raise ZipError(f"{name[:80]!r} is missing from the archive")
        member = copy.copy(self._members[name])
        if member.CRC == 0:
            # torch.serialization.set_crc32_options(False) writes zeros for checksums.
            member.CRC = None  # type: ignore[assignment]  # zipfile then checks none
        content = bytearray(member.file_size)
        try:
            with self._zip.open(member) as unpacked:
                num_read = _read_into(unpacked, content)
        except Exception as error:  # hostile bytes raise anything
            raise ZipError(str(error)[:200] or type(error).__name__) from error
        if num_read != len(content):
            raise ZipError(f"{name[:80]!r} ends after {num_read:,} of its {len(content):,} bytes")
        return content


def _read_into(unpacked: Any, content: bytearray) -> int:
    position, view = 0, memoryview(content)
    while position < len(content):
        read = unpacked.readinto(view[position : position + (1 << 20)])
        if not read:
            break
        position += read
    if position == len(content):
        unpacked.read(1)  # at the end of the member its checksum is compared
    return position


def _check(members: list[zipfile.ZipInfo], size_bytes: int, max_unpacked_bytes: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise ZipError(f"it has {len(members):,} members, more than any checkpoint")
    if len({member.filename for member in members}) < len(members):
        raise ZipError("several members share a name")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise ZipError("it is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ZipError(f"it is packed with method {member.compress_type}; stored and deflated ones are read")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ZipError(f"{member.filename[:80]!r} has two sizes")
    unpacked_bytes = sum(member.file_size for member in members)
    if unpacked_bytes > max_unpacked_bytes:
        raise ZipBombError(f"{size_bytes:,} bytes claim to unpack to {unpacked_bytes:,}: refused as a zip bomb")
    ordered = sorted(members, key=lambda member: member.header_offset)
    ends = [member.header_offset + _HEADER_BYTES + member.compress_size for member in ordered]
    starts = [member.header_offset for member in ordered[1:]]
    if any(end > start for end, start in zip(ends, [*starts, size_bytes], strict=False)):
        raise ZipError("its members overlap")

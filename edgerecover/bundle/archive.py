"""A bundle in one file: a tar archive of which every byte follows from the files in it. Stdlib only.

POSIX.1-1988 "ustar": plain files alone, in one order, with one owner, mode and date; zeros between them, two empty
blocks at the end and nothing after. A reader takes no other form, so whatever is changed outside the contents shows,
and no two programs can read two things out of one archive. Nothing is compressed: no entry can be larger than the
archive, and the bytes do not depend on a version of zlib.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from edgerecover.bundle.manifest import MAX_FILES, OWN_NAMES, check_path
from edgerecover.errors import VerificationError

SUFFIX = ".tar"
BLOCK = 512
_END = bytes(2 * BLOCK)
_MAX_SIZE_BYTES = 0o77777777777
_NAME_BYTES, _PREFIX_BYTES = 100, 155
_PIECE_BYTES = 1 << 20
_MAGIC = slice(257, 263)
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder of its own",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"x": "an extended header",
    b"g": "an extended header",
    b"L": "an extended header",
    b"K": "an extended header",
}


@dataclass(frozen=True)
class Member:
    """Where a file stands in an archive."""

    offset: int
    size_bytes: int


def looks_like_archive(head: bytes) -> bool:
    """Whether the first block of a file is that of a tar archive."""
    return head[_MAGIC] == b"ustar\0"


def in_order(paths: Iterable[str]) -> list[str]:
    """The order of an archive: signature, manifest and measurements first, so that it can be verified as it arrives."""
    return sorted(paths, key=_rank)


def write_archive(files: Mapping[str, tuple[int, Iterable[bytes]]], out: BinaryIO) -> None:
    """Write an archive; the same files give the same bytes.

    Args:
        files: size in bytes and content, in pieces, by path.
        out: where to.

    Raises:
        ValueError: a path that no header holds, a file of 8 GiB or more, or a content that has not its size.
    """
    for path in in_order(files):
        size_bytes, pieces = files[path]
        out.write(_header(path, size_bytes))
        written = 0
        for piece in pieces:
            written += out.write(piece)
        if written != size_bytes:
            raise ValueError(f"{path}: {written} bytes came where {size_bytes} were announced")
        out.write(bytes(_padding(size_bytes)))
    out.write(_END)


def read_members(archive: BinaryIO, size_bytes: int) -> dict[str, Member]:
    """Find every file, and check all bytes that are not content.

    Args:
        archive: open at any place.
        size_bytes: of the whole archive.

    Raises:
        VerificationError: it is not as `write_archive` writes; says where. Nothing of a content is read.
    """
    members: dict[str, Member] = {}
    offset, last = 0, ""
    while True:
        block = _read(archive, offset, BLOCK)
        if block == bytes(BLOCK):
            break
        path, entry_bytes = _parse_header(block, offset)
        if members and _rank(path) <= _rank(last):
            raise _refusal(f"{path!r} stands twice" if path in members else f"{path!r} is out of order", offset)
        if len(members) == MAX_FILES:
            raise _refusal(f"it holds more than the {MAX_FILES:,} files of a bundle", offset)
        offset += BLOCK
        members[path], last = Member(offset, entry_bytes), path
        end = offset + entry_bytes
        if end > size_bytes:
            raise _refusal(f"{path!r} claims {entry_bytes} bytes, more than there are", offset)
        offset = end + _padding(entry_bytes)
        if _read(archive, end, offset - end) != bytes(offset - end):
            raise _refusal(f"what stands after {path!r} is not zeros", end)
    if _read(archive, offset, len(_END)) != _END or offset + len(_END) != size_bytes:
        raise _refusal(f"it does not end as it should: {size_bytes - offset} bytes after the last file", offset)
    return members


def pieces_of(archive: BinaryIO, member: Member) -> Iterator[bytes]:
    """Content of one file, in pieces."""
    archive.seek(member.offset)
    left = member.size_bytes
    while left and (piece := archive.read(min(left, _PIECE_BYTES))):
        left -= len(piece)
        yield piece


# --- headers ------------------------------------------------------------------------------------------------


def _rank(path: str) -> tuple[int, bytes]:
    place = OWN_NAMES.index(path) if path in OWN_NAMES else len(OWN_NAMES)
    return place, path.encode()


def _padding(size_bytes: int) -> int:
    return -size_bytes % BLOCK


def _header(path: str, size_bytes: int) -> bytes:
    """The one block that announces a file (POSIX.1-1988, 10.1.1).

    Raises:
        ValueError: the path is not plain or does not fit, or the file is too large.
    """
    check_path(path)
    if not 0 <= size_bytes <= _MAX_SIZE_BYTES:
        raise ValueError(f"{path!r} has 8 GiB or more, which an archive cannot hold")
    prefix, name = _split(path.encode())
    fields = (
        *(name.ljust(_NAME_BYTES, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size_bytes),
        *(b"00000000000\0", b" " * 8, b"0", bytes(100), b"ustar\0", b"00", bytes(64), bytes(16)),
        *(prefix.ljust(_PREFIX_BYTES, b"\0"), bytes(12)),
    )
    block = b"".join(fields)
    assert len(block) == BLOCK
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Folder and name of a header; a path that fits is all name, else the folder is as long as it may be."""
    if len(path) <= _NAME_BYTES:
        return b"", path
    cut = path.rfind(b"/", 0, _PREFIX_BYTES + 1)
    if cut < 1 or len(path) - cut - 1 > _NAME_BYTES:
        raise ValueError(f"{path.decode()[:40]!r}… has a part that is longer than an archive can hold")
    return path[:cut], path[cut + 1 :]


def _parse_header(block: bytes, offset: int) -> tuple[str, int]:
    """Path and size that a header announces, once it is the very block that is written for them."""
    if not looks_like_archive(block):
        raise _refusal("what stands there is no header", offset)
    prefix, name = block[345:500].rstrip(b"\0"), block[:100].rstrip(b"\0")
    if kind := _KINDS.get(block[156:157]):
        raise _refusal(f"{name.decode(errors='replace')!r} is {kind}", offset)
    try:
        path = (prefix + b"/" + name if prefix else name).decode()
        check_path(path)
        size_bytes = int(block[124:135], 8)
    except ValueError as error:
        raise _refusal(str(error), offset) from error
    try:
        expected = _header(path, size_bytes)
    except ValueError as error:
        raise _refusal(str(error), offset) from error
    if expected != block:
        raise _refusal(f"the header of {path!r} is not as edgerecover writes it", offset)
    return path, size_bytes


def _read(archive: BinaryIO, offset: int, count: int) -> bytes:
    archive.seek(offset, io.SEEK_SET)
    content = archive.read(count)
    if len(content) < count:
        raise _refusal("it ends too early", offset)
    return content


def _refusal(why: str, offset: int) -> VerificationError:
    return VerificationError(
        f"the archive is not one that edgerecover wrote: byte {offset:,}: {why}",
        hint="copy it again, or make it again with `edgerecover bundle pack`",
    )

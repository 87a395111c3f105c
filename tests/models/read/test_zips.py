"""Archives are read only when every member's place and size is sound."""

import io
import warnings
import zipfile

import pytest

from edgerecover.models.read.zips import Archive, ZipBombError, ZipError


def packed(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def opened(content):
    return Archive(io.BytesIO(content), len(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_named_below_their_shared_folder(method):
    archive = opened(packed([("top/a", b"x" * 100), ("top/in/b", b"")], method))
    assert archive.names == ("a", "in/b")
    assert archive.read("a") == b"x" * 100
    assert archive.read("in/b") == b""
    assert archive.size_bytes("a") == 100
    assert "c" not in archive
    with pytest.raises(ZipError, match="missing"):
        archive.read("c")


def test_without_a_shared_folder_names_are_whole():
    assert opened(packed([("a", b"1"), ("top/b", b"2")])).names == ("a", "top/b")


def changed(content, where, value):
    """The first entry of the directory with other bytes."""
    place = content.index(b"PK\x01\x02") + where
    return content[:place] + value + content[place + len(value) :]


def test_a_wrong_checksum_is_found_and_a_missing_one_let_pass():
    content = packed([("top/a", b"x" * 100)])
    with pytest.raises(ZipError, match="CRC"):
        opened(changed(content, 16, b"abcd")).read("a")
    assert opened(changed(content, 16, bytes(4))).read("a") == b"x" * 100


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"PK\x03\x04 nothing", "zip"),
        (packed([("t/a", b"1"), ("t/a", b"2")]), "share a name"),
        (packed([("t/a", b"1")], zipfile.ZIP_LZMA), "method 14"),
        (changed(packed([("t/a", b"1")]), 8, b"\x01"), "encrypted"),
        (changed(packed([("t/a", b"1")]), 24, b"\x09"), "two sizes"),
        (changed(packed([("t/a", b"1" * 50), ("t/b", b"2" * 50)]), 42, b"\x20"), "overlap"),
    ],
)
def test_unsound_archives_are_refused(content, part):
    with pytest.raises(ZipError, match=part):
        opened(content)


def test_a_bomb_is_refused_by_what_it_claims():
    content = packed([("t/a", bytes(8 << 20))], zipfile.ZIP_DEFLATED)
    with pytest.raises(ZipBombError):
        opened(content)
    assert Archive(io.BytesIO(content), len(content), max_unpacked_bytes=9 << 20).size_bytes("a") == 8 << 20

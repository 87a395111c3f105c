import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.bundle.archive import BLOCK, in_order, looks_like_archive, pieces_of, read_members, write_archive
from edgerecover.bundle.manifest import OWN_NAMES
from edgerecover.errors import VerificationError

FILES = {"manifest.json": b"{}", "model.onnx": b"onnx" * 300, "golden/inputs.npy": b"", "z": b"1" * BLOCK}

parts = st.text(st.sampled_from("abcxyz019_- é"), min_size=1, max_size=60).filter(lambda part: part[-1] != " ")
paths = st.lists(parts, min_size=1, max_size=4).map("/".join).filter(lambda path: len(path.encode()) <= 200)
trees = st.dictionaries(paths, st.binary(max_size=1200), max_size=6)


def packed(files):
    out = io.BytesIO()
    write_archive({path: (len(content), [content]) for path, content in files.items()}, out)
    return out.getvalue()


def read(archive):
    file = io.BytesIO(archive)
    return {path: b"".join(pieces_of(file, member)) for path, member in read_members(file, len(archive)).items()}


def writable(files):
    try:
        packed(files)
    except ValueError:
        return False
    return True


@given(trees.filter(writable))
def test_what_was_packed_is_read_back(files):
    assert read(packed(files)) == files


@given(trees.filter(writable))
def test_the_same_files_give_the_same_bytes(files):
    backwards = dict(reversed(files.items()))
    pieces = {path: (len(content), [content[:5], content[5:]]) for path, content in backwards.items()}
    out = io.BytesIO()
    write_archive(pieces, out)
    assert out.getvalue() == packed(files)


@given(trees.filter(writable))
def test_other_programs_read_it_too(files):
    with tarfile.open(fileobj=io.BytesIO(packed(files)), mode="r:", encoding="utf-8") as archive:
        assert archive.getnames() == in_order(files)
        for member in archive:
            assert (member.isreg(), member.mode, member.uid, member.mtime, member.uname) == (True, 0o644, 0, 0, "")
            assert archive.extractfile(member).read() == files[member.name]


def test_tar_unpacks_it(tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("no tar here")
    (tmp_path / "b.tar").write_bytes(packed(FILES))
    subprocess.run(["tar", "xf", "b.tar"], cwd=tmp_path, check=True)
    assert {path: (tmp_path / path).read_bytes() for path in FILES} == FILES


def test_the_tables_of_contents_come_first():
    names = in_order(["a", "model.onnx", *reversed(OWN_NAMES), "Z"])
    assert names == [*OWN_NAMES, "Z", "a", "model.onnx"]


def test_contents_that_have_not_their_size():
    with pytest.raises(ValueError, match="2 bytes came where 3 were announced"):
        write_archive({"a": (3, [b"12"])}, io.BytesIO())


@pytest.mark.parametrize(
    ("path", "size"), [("../a", 1), ("a" * 101, 1), ("a" * 160 + "/b", 1), ("a", 8 << 30), ("a", -1), ("/a", 1)]
)
def test_what_a_header_cannot_hold_is_not_written(path, size):
    out = io.BytesIO()
    with pytest.raises(ValueError, match=r"plain relative|longer|8 GiB"):
        write_archive({path: (size, [b"1"])}, out)
    assert not out.getvalue()


def test_a_long_path_goes_into_both_fields():
    path = "d" * 90 + "/" + "e" * 90
    assert read(packed({path: b"1"})) == {path: b"1"}


# --- hostile archives ---------------------------------------------------------------------------------------


def test_every_byte_outside_the_contents_counts():
    """All values of a byte but the right one, at every place of headers, padding and end."""
    archive = packed({"a": b"1", "b": b"22"})
    contents = {BLOCK, 3 * BLOCK, 3 * BLOCK + 1}
    for place in range(len(archive)):
        for flip in (1, 0x20, 0x80, 0xFF):
            changed = archive[:place] + bytes([archive[place] ^ flip]) + archive[place + 1 :]
            if place in contents:
                assert read(changed) != read(archive)
            else:
                with pytest.raises(VerificationError):
                    read(changed)


@given(trees.filter(writable), st.data())
def test_any_changed_byte_changes_a_content_or_is_refused(files, data):
    archive = bytearray(packed(files))
    place = data.draw(st.integers(0, len(archive) - 1))
    archive[place] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(archive))
    except VerificationError:
        return
    assert found != files
    assert found.keys() == files.keys()


def entry(name, content=b"", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    for field, value in changes.items():
        setattr(info, field, value)
    return info, content


def tarred(*entries, format=tarfile.USTAR_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    whole = out.getvalue()
    end = len(whole.rstrip(b"\0"))
    return whole[: -(-end // BLOCK) * BLOCK] + bytes(2 * BLOCK)  # without the filling up to 20 blocks


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([entry("/etc/passwd", b"x")], "'/etc/passwd' is not a plain relative path"),
        ([entry("../../x", b"x")], "not a plain relative path"),
        ([entry("a/../../x", b"x")], "not a plain relative path"),
        ([entry("a\\..\\x", b"x")], "not a plain relative path"),
        ([entry("C:x", b"x")], "not a plain relative path"),
        ([entry("\x1b[2J", b"x")], "not a plain relative path"),
        ([entry("NUL", b"x")], "Windows keeps"),
        ([entry("a", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "'a' is a symbolic link"),
        ([entry("a", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "'a' is a hard link"),
        ([entry("a", type=tarfile.CHRTYPE)], "'a' is a device"),
        ([entry("a", type=tarfile.BLKTYPE)], "'a' is a device"),
        ([entry("a", type=tarfile.FIFOTYPE)], "'a' is a pipe"),
        ([entry("a", type=tarfile.DIRTYPE)], "'a/' is a folder of its own"),
        ([entry("a", type=b"7")], "header of 'a' is not as edgerecover writes it"),
        ([entry("a", b"1"), entry("a", b"2")], "'a' stands twice"),
        ([entry("b", b"1"), entry("a", b"2")], "'a' is out of order"),
        ([entry("a", b"1", mode=0o755)], "header of 'a' is not"),
        ([entry("a", b"1", mtime=1)], "header of 'a' is not"),
        ([entry("a", b"1", uid=1)], "header of 'a' is not"),
        ([entry("a", b"1", uname="root")], "header of 'a' is not"),
    ],
)
def test_hostile_entries_are_refused(entries, says):
    with pytest.raises(VerificationError, match=says) as caught:
        read(tarred(*entries))
    assert "\x1b" not in caught.value.message
    assert caught.value.exit_code == 4


def test_tarfile_itself_writes_entries_that_are_taken():
    """So the hostile ones above are refused for what is hostile in them."""
    assert read(tarred(entry("a", b"1"), entry("b", b"2"))) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers_are_refused(format):
    with pytest.raises(VerificationError, match=r"PaxHeader' is an extended header|is no header"):
        read(tarred(entry("long/" * 60 + "x", b"1"), format=format))


def test_entries_that_claim_too_much_take_no_memory():
    archive = bytearray(packed({"a": b"1"}))
    huge = io.BytesIO()
    with pytest.raises(ValueError, match="announced"):
        write_archive({"a": ((8 << 30) - 1, [])}, huge)
    archive[:BLOCK] = huge.getvalue()[:BLOCK]
    with pytest.raises(VerificationError, match="'a' claims 8589934591 bytes, more than there are"):
        read(bytes(archive))


@pytest.mark.parametrize(
    "change",
    [
        lambda archive: archive[:-1],
        lambda archive: archive[:-BLOCK],
        lambda archive: archive[: -2 * BLOCK],
        lambda archive: archive[: BLOCK + 7],
        lambda archive: archive[:100],
        lambda archive: b"",
        lambda archive: archive + b"\0",
        lambda archive: archive + bytes(BLOCK),
        lambda archive: archive + archive,
        lambda archive: b"\0" + archive,
        lambda archive: bytes(BLOCK) + archive,
        lambda archive: b"#!/bin/sh\n" + archive,
        lambda archive: archive[: -2 * BLOCK] + archive,
    ],
)
def test_cut_longer_and_doubled_archives_are_refused(change):
    with pytest.raises(VerificationError, match="byte"):
        read(change(packed(FILES)))


def test_too_many_entries(monkeypatch):
    monkeypatch.setattr("edgerecover.bundle.archive.MAX_FILES", 3)
    with pytest.raises(VerificationError, match="more than the 3 files"):
        read(packed(dict.fromkeys("abcd", b"")))


def test_what_looks_like_an_archive():
    assert looks_like_archive(packed(FILES)[:BLOCK])
    assert not looks_like_archive(b"\x08\x07onnx")

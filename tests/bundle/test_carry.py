import hashlib
import os
import sys
import tarfile

import pytest

from edgerecover.bundle import carry
from edgerecover.bundle.carry import archive_path, check_free, open_as_folder, pack_bundle, unpack_bundle
from edgerecover.bundle.verify import BundleDiffersError, verify_bundle
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import BadInputError, EdgeRecoverError, VerificationError

FILES = {"model.onnx": b"onnx" * 300, "golden/inputs.npy": b"123"}


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(FILES, tmp_path / "b", {"target": "pi"}, {"report.md": b"text"}, {})


@pytest.fixture
def archive(bundle, tmp_path):
    return pack_bundle(bundle, tmp_path / "b.tar").path


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_there_and_back(bundle, archive, tmp_path):
    assert archive_path(bundle) == archive
    assert verify_bundle(archive).files == verify_bundle(bundle).files
    assert verify_bundle(archive).manifest_sha256 == verify_bundle(bundle).manifest_sha256
    verified = unpack_bundle(archive, tmp_path / "again")
    assert verified.path == tmp_path / "again"
    assert tree(tmp_path / "again") == tree(bundle)
    assert names_in(tmp_path) == ["again", "b", "b.tar"]


def test_the_same_files_give_the_same_archive(bundle, archive, tmp_path):
    os.utime(bundle / "model.onnx", (1, 1))
    (bundle / "model.onnx").chmod(0o600)
    other = write_bundle(dict(reversed(FILES.items())), tmp_path / "c", {"target": "pi"}, {"report.md": b"text"}, {})
    for again in (pack_bundle(bundle, tmp_path / "1.tar"), pack_bundle(other, tmp_path / "2.tar")):
        assert again.path.read_bytes() == archive.read_bytes()
    assert pack_bundle(archive, tmp_path / "3.tar").path.read_bytes() == archive.read_bytes()


def test_an_archive_is_read_without_unpacking(archive):
    verified = verify_bundle(archive)
    assert verified.read("golden/inputs.npy") == b"123"


def test_a_private_folder_goes_away(bundle, archive):
    with open_as_folder(archive) as (verified, folder):
        assert tree(folder) == tree(bundle)
        assert verified.path == archive
    assert not folder.exists()
    with open_as_folder(bundle) as (_, folder):
        assert folder == bundle


def test_a_damaged_bundle_is_not_packed(bundle, tmp_path):
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(VerificationError):
        pack_bundle(bundle, tmp_path / "b.tar")
    assert names_in(tmp_path) == ["b"]


def test_every_byte_of_an_archive_counts(archive):
    whole = archive.read_bytes()
    for place in range(0, len(whole), 13):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(VerificationError):
            verify_bundle(archive)


def test_nothing_is_written_of_an_archive_that_is_not_whole(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[content.index(b"onnxonnx")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(BundleDiffersError, match=r"changed: model\.onnx"):
        unpack_bundle(archive, tmp_path / "out")
    assert names_in(tmp_path) == ["b", "b.tar"]


def test_an_archive_that_changes_after_it_was_verified(archive, tmp_path, monkeypatch):
    verify, other = carry.verify_bundle, bytearray(archive.read_bytes())
    other[other.index(b"onnxonnx")] ^= 1

    def swapped_after(*arguments):
        verified = verify(*arguments)
        archive.write_bytes(other)
        return verified

    monkeypatch.setattr(carry, "verify_bundle", swapped_after)
    with pytest.raises(BundleDiffersError, match=r"changed while it was read:\n  changed: model\.onnx"):
        unpack_bundle(archive, tmp_path / "out")
    assert names_in(tmp_path) == ["b", "b.tar"]


def test_a_folder_that_changes_while_it_is_packed(bundle, tmp_path, monkeypatch):
    verify = carry.verify_bundle

    def swapped_after(path, *arguments):
        verified = verify(path, *arguments)
        if path == bundle:
            (bundle / "model.onnx").write_bytes(b"evil" * 300)
        return verified

    monkeypatch.setattr(carry, "verify_bundle", swapped_after)
    with pytest.raises(VerificationError, match=r"changed: model\.onnx"):
        pack_bundle(bundle, tmp_path / "b.tar")
    assert names_in(tmp_path) == ["b"]


def test_what_is_no_archive_is_bad_input(bundle, tmp_path):
    with pytest.raises(BadInputError, match="is a folder already"):
        unpack_bundle(bundle, tmp_path / "out")
    with pytest.raises(BadInputError, match="does not exist"):
        unpack_bundle(tmp_path / "nothing.tar", tmp_path / "out")
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(VerificationError, match="ends too early"):
        unpack_bundle(tmp_path / "text.tar", tmp_path / "out")


def test_an_archive_of_something_else(tmp_path):
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(tmp_path / "x", "x")
    with pytest.raises(VerificationError, match="not as edgerecover writes it"):
        verify_bundle(tmp_path / "x.tar")


def test_only_an_archive_of_a_bundle_is_replaced(bundle, archive, tmp_path):
    before = archive.read_bytes()
    assert pack_bundle(bundle, archive).path.read_bytes() == before
    mine = tmp_path / "mine.tar"
    mine.write_bytes(b"mine")
    (tmp_path / "folder.tar").mkdir()
    for out in (mine, tmp_path / "folder.tar"):
        with pytest.raises(BadInputError, match="not the archive of a bundle"):
            pack_bundle(bundle, out)
        with pytest.raises(BadInputError, match="not the archive of a bundle"):
            check_free(out)
    assert mine.read_bytes() == b"mine"


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_link_is_not_replaced(bundle, archive, tmp_path):
    (tmp_path / "link.tar").symlink_to(archive)
    with pytest.raises(BadInputError, match="not the archive of a bundle"):
        pack_bundle(bundle, tmp_path / "link.tar")


def test_what_is_there_is_not_unpacked_over(archive, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(BadInputError, match="not a bundle"):
        unpack_bundle(archive, tmp_path / "mine")
    assert names_in(tmp_path / "mine") == ["thesis.tex"]


def test_an_earlier_bundle_is_replaced_when_unpacking(bundle, archive, tmp_path):
    out = write_bundle({"old": b"old"}, tmp_path / "out", {})
    unpack_bundle(archive, out)
    assert tree(out) == tree(bundle)


def test_a_place_that_cannot_be_written(bundle, archive, tmp_path):
    (tmp_path / "file").write_text("")
    for act in (lambda out: pack_bundle(bundle, out), lambda out: unpack_bundle(archive, out)):
        with pytest.raises(BadInputError, match="cannot be written"):
            act(tmp_path / "file" / "deep" / "x")


HOSTILE = {
    "../evil": b"x",
    "/tmp/evil": b"x",
    "a/../../evil": b"x",
    "C:\\evil": b"x",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_paths_leave_no_trace(archive, tmp_path, name):
    """Put into an otherwise good archive, with a manifest that lists them."""
    inside = {"manifest.json": b"{}", name: b"x"}
    with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.USTAR_FORMAT) as hostile:
        for path, content in inside.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o644
            import io

            hostile.addfile(info, io.BytesIO(content))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(EdgeRecoverError) as caught:
        unpack_bundle(tmp_path / "evil.tar", tmp_path / "deep" / "out")
    assert caught.value.exit_code == 4
    assert names_in(tmp_path) == ["b", "b.tar", "evil.tar"]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest

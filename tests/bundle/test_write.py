import os
import stat
import subprocess
import sys

import pytest

from edgerecover.bundle.verify import verify_bundle
from edgerecover.bundle.write import check_writable, write_bundle
from edgerecover.errors import BadInputError

FILES = {"model.onnx": b"onnx", "report.md": "# Zürich\n", "golden/inputs.npy": b"\x93NUMPY"}


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_bundle_holds_its_files_and_verifies(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"from a file")
    out = write_bundle(FILES | {"copied.bin": source}, tmp_path / "b.bundle", {"target": "pi"})
    assert names_in(tmp_path) == ["b.bundle", "source.bin"]
    assert (out / "copied.bin").read_bytes() == b"from a file"
    assert (out / "report.md").read_text(encoding="utf-8") == "# Zürich\n"
    manifest = verify_bundle(out)
    assert manifest.fields == {"target": "pi"}
    assert set(manifest.files) == {*FILES, "copied.bin"}


def test_missing_parents_are_made(tmp_path):
    assert verify_bundle(write_bundle(FILES, tmp_path / "new" / "deep" / "b", {}))


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_others_may_read_a_bundle_as_far_as_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        out = write_bundle(FILES, tmp_path / "b", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o755


def test_an_earlier_bundle_is_replaced_whole(tmp_path):
    write_bundle(FILES | {"old.txt": "old"}, tmp_path / "b", {})
    write_bundle(FILES, tmp_path / "b", {"run": 2})
    assert verify_bundle(tmp_path / "b").fields == {"run": 2}
    assert not (tmp_path / "b" / "old.txt").exists()
    assert names_in(tmp_path) == ["b"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "b").mkdir()
    assert verify_bundle(write_bundle(FILES, tmp_path / "b", {}))
    assert names_in(tmp_path) == ["b"]


def make_file(out):
    out.write_text("mine")


def make_folder(out):
    out.mkdir()
    (out / "thesis.tex").write_text("mine")


def make_web_app(out):
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "mine", "icons": []}')


def make_link(out):
    elsewhere = out.parent / "elsewhere"
    write_bundle(FILES, elsewhere, {})
    out.symlink_to(elsewhere)


@pytest.mark.parametrize("make", [make_file, make_folder, make_web_app, make_link])
def test_what_is_not_a_bundle_is_left_alone(tmp_path, make):
    make(tmp_path / "b")
    before = names_in(tmp_path)
    for attempt in (lambda out: write_bundle(FILES, out, {}), check_writable):
        with pytest.raises(BadInputError, match="not a bundle"):
            attempt(tmp_path / "b")
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("path", ["../escape", "/abs", "a\\b", "manifest.json"])
def test_a_path_outside_is_refused_before_anything_is_written(tmp_path, path):
    with pytest.raises(ValueError, match=r"plain relative path|for its own"):
        write_bundle({path: b""}, tmp_path / "b", {})
    assert not names_in(tmp_path)


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for attempt in (lambda out: write_bundle(FILES, out, {}), check_writable):
        with pytest.raises(BadInputError, match="cannot be written: Not a directory"):
            attempt(tmp_path / "file" / "deep" / "b")
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(BadInputError, match="Permission denied"):
            check_writable(tmp_path / "b")
    finally:
        tmp_path.chmod(0o755)


def test_check_writable_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "not" / "there" / "b")
    write_bundle(FILES, tmp_path / "b", {})
    check_writable(tmp_path / "b")
    assert names_in(tmp_path) == ["b"]
    assert verify_bundle(tmp_path / "b")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import BadInputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bundle({"a": b"a", "model.onnx": b"0" * 1_000_000}, Path(sys.argv[1]), {})
except BadInputError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file size limit")
@pytest.mark.parametrize("earlier", [False, True])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, earlier):
    out = tmp_path / "new" / "b"
    if earlier:
        write_bundle(FILES, out, {})
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(out)], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    if earlier:
        assert set(verify_bundle(out).files) == set(FILES)
        assert names_in(tmp_path / "new") == ["b"]
    else:
        assert not names_in(tmp_path)


def test_a_source_that_is_missing_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        write_bundle({"model.onnx": tmp_path / "nothing"}, tmp_path / "b", {})
    assert not names_in(tmp_path)

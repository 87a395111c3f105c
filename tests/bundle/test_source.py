import io
import os
import sys
from dataclasses import replace

import pytest

from edgerecover.bundle import source as source_module
from edgerecover.bundle.carry import pack_bundle
from edgerecover.bundle.source import open_source, snapshot
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import BadInputError, VerificationError


@pytest.fixture
def bundle(tmp_path):
    return write_bundle({"model.onnx": b"onnx" * 300, "a/b": b"1"}, tmp_path / "b", {}, {"report.md": b"text"}, {})


@pytest.fixture(params=["folder", "archive"])
def either(request, bundle, tmp_path):
    return bundle if request.param == "folder" else pack_bundle(bundle, tmp_path / "b.tar").path


def test_a_snapshot_is_one_reading(either):
    with open_source(either) as source:
        found = snapshot(source)
    assert found.entries.keys() == {"manifest.json", "measurements.json", "model.onnx", "a/b", "report.md"}
    assert found.own.keys() == {"manifest.json", "measurements.json"}
    assert found.entries["model.onnx"].size_bytes == 1200
    assert not found.odd


def test_what_goes_wrong_with_the_readers_own_files_stays_what_it_is(either):
    with pytest.raises(OSError, match="disk full"), open_source(either):
        raise OSError("disk full")


def test_an_archive_that_cannot_be_read_any_more(bundle, tmp_path):
    archive = pack_bundle(bundle, tmp_path / "b.tar").path

    class BrokenDisk(io.BytesIO):
        def read(self, size=-1):
            raise OSError("Input/output error")

    with open_source(archive) as source:
        broken = replace(source, file=BrokenDisk())
        with pytest.raises(BadInputError, match=r"b\.tar cannot be read: Input/output error"):
            list(broken.pieces("model.onnx"))


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links and pipes")
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/hostname"), os.mkfifo])
def test_a_file_that_becomes_something_else_is_not_followed(bundle, make):
    with open_source(bundle) as source:
        assert source.names()["model.onnx"] == ""
        (bundle / "model.onnx").unlink()
        make(bundle / "model.onnx")
        with pytest.raises((BadInputError, VerificationError), match=r"Too many levels|became not a regular file"):
            list(source.pieces("model.onnx"))


def test_a_folder_of_too_many_files(bundle, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_FILES", 3)
    for number in range(10):
        (bundle / str(number)).write_bytes(b"")
    with open_source(bundle) as source, pytest.raises(VerificationError, match="more than the 3 files"):
        source.names()

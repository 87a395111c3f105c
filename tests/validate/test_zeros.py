import numpy as np
import torch

from edgerecover.models.onnx_weights import OnnxWeight
from edgerecover.validate.zeros import count_regrown


def weight(name, values):
    return OnnxWeight(name, np.asarray(values, np.float32), None, 0, 1)


CONV = torch.tensor([[1, 0], [0, 1], [1, 1]]).bool().view(3, 2, 1, 1)
FC = torch.tensor([[1, 0, 0], [0, 1, 1]]).bool()


def file(conv, fc, names=("conv.weight", "fc.weight")):
    return [weight(names[0], conv), weight(names[1], fc)]


def test_kept_zeros_are_none_regrown_whatever_the_layout_and_name():
    masks = {"conv.weight": CONV, "fc.weight": FC}
    values = CONV.numpy() * 0.5, FC.numpy() * 2.0
    assert count_regrown(masks, file(*values)) == 0
    assert count_regrown(masks, file(values[0], values[1].T)) == 0
    assert count_regrown(masks, file(values[0].reshape(3, 2), values[1], names=("a", "b"))) == 0


def test_regrown_weights_are_counted():
    grown = FC.numpy() * 1.0
    grown[0, 1] = 0.1
    assert count_regrown({"conv.weight": CONV, "fc.weight": FC}, file(CONV.numpy() * 1.0, grown)) == 1


def test_equal_shapes_are_told_apart_by_their_zeros():
    one, other = torch.eye(4).bool(), ~torch.eye(4).bool()
    stored = [weight("folded_7", other.numpy() * 1.0), weight("folded_3", one.numpy() * 1.0)]
    assert count_regrown({"a.weight": one, "b.weight": other}, stored) == 0


def test_a_layer_that_is_not_there_settles_nothing():
    assert count_regrown({"conv.weight": CONV, "fc.weight": FC}, [weight("fc.weight", FC.numpy() * 1.0)]) is None

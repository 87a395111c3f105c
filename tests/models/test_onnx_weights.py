"""Weights are found through whatever stands between them and their layer."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import make_graph, make_model, make_node

from edgerecover.models.onnx_weights import weights_of

WEIGHT = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], np.float32)


def found(nodes, tensors, sparse=()):
    graph = make_graph(nodes, "g", [], [], [numpy_helper.from_array(v, k) for k, v in tensors.items()])
    graph.sparse_initializer.extend(sparse)
    return [(w.name, w.is_zero.astype(int).tolist(), w.input_axis) for w in weights_of(make_model(graph))]


ZEROS = [[1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize(
    ("nodes", "axis"),
    [
        ([make_node("MatMul", ["x", "w"], ["y"])], 0),
        ([make_node("MatMul", ["w", "x"], ["y"])], 1),
        ([make_node("Gemm", ["x", "w"], ["y"], transB=1)], 1),
        ([make_node("Transpose", ["w"], ["t"]), make_node("MatMul", ["x", "t"], ["y"])], 1),
        ([make_node("Transpose", ["w"], ["t"], perm=[1, 0]), make_node("Gemm", ["x", "t"], ["y"])], 1),
        ([make_node("Cast", ["w"], ["t"], to=10), make_node("MatMul", ["x", "t"], ["y"])], 0),
        ([make_node("Reshape", ["w", "s"], ["t"]), make_node("MatMul", ["x", "t"], ["y"])], None),
    ],
)
def test_the_axis_of_the_inputs_is_followed(nodes, axis):
    assert found(nodes, {"w": WEIGHT}) == [("w", ZEROS, axis)]


def test_a_four_dimensional_transpose_is_followed():
    nodes = [make_node("Transpose", ["w"], ["t"], perm=[3, 2, 0, 1]), make_node("Conv", ["x", "t"], ["y"])]
    ((name, _, axis),) = found(nodes, {"w": np.ones((3, 3, 8, 16), np.float32)})  # as TensorFlow stores it
    assert (name, axis) == ("w", 2)


def test_integers_are_zero_at_their_zero_point():
    stored = np.array([[5, 1, 2], [3, 7, 7]], np.int8)
    zero_points = np.array([5, 7], np.int8)
    dequantize = make_node("DequantizeLinear", ["w", "scale", "zero"], ["t"], axis=0)
    nodes = [dequantize, make_node("MatMul", ["x", "t"], ["y"])]
    assert found(nodes, {"w": stored, "zero": zero_points})[0][:2] == ("w", ZEROS)
    nodes = [make_node("QLinearMatMul", ["x", "a", "b", "w", "c", "zero", "d", "e"], ["y"])]
    stored = np.array([[7, 1, 2], [3, 7, 7]], np.int8)
    assert found(nodes, {"w": stored, "zero": np.array(7, np.int8)}) == [("w", ZEROS, 0)]


def test_constants_and_sparse_tensors_are_weights():
    constant = make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT))
    assert found([constant, make_node("MatMul", ["x", "w"], ["y"])], {}) == [("w", ZEROS, 0)]
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(WEIGHT[WEIGHT != 0], "w"),
        indices=numpy_helper.from_array(np.flatnonzero(WEIGHT)),
        dims=WEIGHT.shape,
    )
    assert found([make_node("MatMul", ["x", "w"], ["y"])], {}, [sparse]) == [("w", ZEROS, 0)]


def test_a_shared_weight_counts_once_and_inputs_not_at_all():
    nodes = [make_node("MatMul", ["x", "w"], ["h"]), make_node("MatMul", ["h", "w"], ["y"])]
    assert len(found(nodes, {"w": WEIGHT})) == 1
    assert found([make_node("MatMul", ["x", "y"], ["z"])], {}) == []


def test_nodes_in_a_circle_end():
    nodes = [
        make_node("Identity", ["a"], ["b"]),
        make_node("Identity", ["b"], ["a"]),
        make_node("MatMul", ["x", "a"], ["y"]),
    ]
    assert found(nodes, {}) == []

"""Weights are found through whatever stands between them and their layer."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import make_function, make_graph, make_model, make_node, make_opsetid

from edgerecover.models.onnx.weights import UnknownWeight, layers_of, weights_of

WEIGHT = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], np.float32)


def model_of(nodes, tensors, sparse=(), **settings):
    graph = make_graph(nodes, "g", [], [], [numpy_helper.from_array(v, k) for k, v in tensors.items()])
    graph.sparse_initializer.extend(sparse)
    return make_model(graph, opset_imports=[make_opsetid("", 18)], **settings)


def found(nodes, tensors, sparse=()):
    model = model_of(nodes, tensors, sparse)
    return [(w.name, w.is_zero.astype(int).tolist(), w.input_axis) for w in weights_of(model)]


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
        make_node("Add", ["c", "w"], ["d"]),
        make_node("Add", ["d", "w"], ["c"]),
        make_node("MatMul", ["x", "a"], ["y"]),
        make_node("MatMul", ["x", "c"], ["z"]),
    ]
    assert found(nodes, {"w": WEIGHT}) == []


MASK = np.array([[0, 1, 1], [1, 0, 0]], np.float32)


def test_a_mask_that_is_still_in_the_file_is_applied():
    """As torch.onnx.export writes a layer that torch.nn.utils.prune has hold of."""
    dense = np.full((2, 3), 2.0, np.float32)
    masked = make_node("Mul", ["w_mask", "w_orig"], ["t"])
    for layer in (make_node("MatMul", ["x", "t"], ["y"]), make_node("Einsum", ["x", "t"], ["y"], equation="ij,jk->ik")):
        ((name, zeros, _),) = found([masked, layer], {"w_orig": dense, "w_mask": MASK})
        assert (name, zeros) == ("w_orig", ZEROS)


def test_a_weight_that_is_computed_from_stored_ones_is_what_its_layer_gets():
    """Weight standardisation leaves no zero; a norm per row does."""
    axes = {"axes": np.array([1], np.int64)}
    mean = make_node("ReduceMean", ["w", "axes"], ["m"], keepdims=1)
    layer = make_node("MatMul", ["x", "t"], ["y"])
    standardised = [mean, make_node("Sub", ["w", "m"], ["t"]), layer]
    ((name, zeros, _),) = found(standardised, {"w": WEIGHT, **axes})
    assert (name, zeros) == ("w", [[0, 1, 0], [0, 0, 0]])  # 1 is the first row's mean
    norm = make_node("ReduceL2", ["w", "axes"], ["n"], keepdims=1)
    normed = [norm, make_node("Div", ["w", "n"], ["d"]), make_node("Mul", ["d", "g"], ["t"]), layer]
    assert found(normed, {"w": WEIGHT, "g": np.ones((2, 1), np.float32), **axes}) == [("w", ZEROS, 0)]


def test_a_dequantized_weight_under_a_mask_counts_by_its_value():
    stored = np.array([[9, 6, 7], [8, 5, 5]], np.int8)
    nodes = [
        make_node("DequantizeLinear", ["w", "scale", "zero"], ["d"]),
        make_node("Mul", ["d", "mask"], ["t"]),
        make_node("MatMul", ["x", "t"], ["y"]),
    ]
    tensors = {"w": stored, "scale": np.float32(0.1), "zero": np.int8(5), "mask": MASK}
    assert found(nodes, tensors)[0][:2] == ("w", [[1, 0, 0], [0, 1, 1]])


def test_what_a_quantizer_gets_is_not_yet_quantized():
    nodes = [
        make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        make_node("DequantizeLinear", ["q", "scale", "zero"], ["t"]),
        make_node("MatMul", ["x", "t"], ["y"]),
    ]
    assert found(nodes, {"w": WEIGHT, "scale": np.float32(0.1), "zero": np.int8(3)}) == [("w", ZEROS, 0)]


def test_parts_of_a_stored_weight_count_once_and_whole():
    """Query, key and value, split from one matrix."""
    nodes = [
        make_node("Split", ["w"], ["q", "k"], axis=0, num_outputs=2),
        make_node("MatMul", ["x", "q"], ["a"]),
        make_node("MatMul", ["x", "k"], ["b"]),
    ]
    assert found(nodes, {"w": WEIGHT}) == [("w", ZEROS, None)]


def test_integers_in_blocks_have_a_zero_point_each():
    stored = np.array([[5, 5, 7], [5, 5, 7], [7, 1, 5]], np.int8)
    dequantize = make_node("DequantizeLinear", ["w", "scale", "zero"], ["t"], axis=0, block_size=2)
    zero = np.array([[5, 5, 5], [7, 7, 7]], np.int8)
    nodes = [dequantize, make_node("MatMul", ["x", "t"], ["y"])]
    assert found(nodes, {"w": stored, "zero": zero})[0][1] == [[1, 1, 0], [1, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "axis"),
    [
        ("QGemm", ["x", "a", "b", "w", "s", "zero", "c"], {"transB": 1}, 1),
        ("QGemm", ["x", "a", "b", "w", "s", "zero", "c"], {}, 0),
        ("MatMulIntegerToFloat", ["x", "w", "a", "s", "b", "zero"], {}, 0),
        ("DynamicQuantizeMatMul", ["x", "w", "s", "zero"], {}, 0),
        ("QAttention", ["x", "w", "bias", "a", "s", "m", "b", "zero"], {}, 0),
    ],
)
def test_integer_layers_of_onnxruntime(kind, inputs, attributes, axis):
    node = make_node(kind, inputs, ["y"], domain="com.microsoft", **attributes)
    stored = np.array([[7, 1, 2], [3, 7, 7]], np.int8)
    assert found([node], {"w": stored, "zero": np.array(7, np.int8)}) == [("w", ZEROS, axis)]


@pytest.mark.parametrize(("kind", "axis"), [("FusedMatMul", 1), ("FusedGemm", 1), ("FusedConv", 1)])
def test_fused_layers_of_onnxruntime(kind, axis):
    node = make_node(kind, ["x", "w"], ["y"], domain="com.microsoft", transB=1)
    assert found([node], {"w": WEIGHT}) == [("w", ZEROS, axis)]


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_few_bits_are_unpacked(bits):
    """Two outputs of three inputs in one block of 16, as onnxruntime's MatMulNBits packs them."""
    half, values = 1 << (bits - 1), np.full((2, 16), 5, np.uint8)
    values[:, :3] = np.where(np.array(ZEROS) == 1, half, 1)
    packed = values if bits == 8 else values[:, ::2] | (values[:, 1::2] << 4)
    attributes = {"K": 3, "N": 2, "bits": bits, "block_size": 16}
    node = make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)
    assert found([node], {"w": packed[:, None]}) == [("w", ZEROS, 1)]
    zero = np.array([[half], [half]], np.uint8)
    node = make_node("MatMulNBits", ["x", "w", "s", "zero"], ["y"], domain="com.microsoft", **attributes)
    assert found([node], {"w": packed[:, None], "zero": zero}) == [("w", ZEROS, 1)]


def test_weights_in_functions_of_the_file_are_found():
    body = [make_node("MatMul", ["a", "b"], ["c"])]
    function = make_function("own", "Linear", ["a", "b"], ["c"], body, [make_opsetid("", 18)])
    imports = [make_opsetid("", 18), make_opsetid("own", 1)]
    graph = make_graph(
        [make_node("Linear", ["x", "w"], ["y"], domain="own")], "g", [], [], [numpy_helper.from_array(WEIGHT, "w")]
    )
    (weight,) = weights_of(make_model(graph, functions=[function], opset_imports=imports))
    assert (weight.name, weight.is_zero.astype(int).tolist()) == ("w", ZEROS)


def unknown(nodes, tensors):
    layers = list(layers_of(model_of(nodes, tensors)))
    assert all(isinstance(layer, UnknownWeight) for layer in layers)
    return [(layer.layer, layer.reason) for layer in layers]


def test_a_layer_whose_weight_cannot_be_told_is_named():
    foreign = make_node("Mixture", ["x", "w"], ["y"], name="moe", domain="own")
    ((layer, reason),) = unknown([foreign], {"w": WEIGHT})
    assert layer == "Mixture moe"
    assert "own.Mixture is not an operator" in reason
    drawn = [make_node("Multinomial", ["w"], ["t"]), make_node("MatMul", ["x", "t"], ["y"])]
    assert unknown(drawn, {"w": WEIGHT}) == [("MatMul y", "Multinomial is not followed")]
    hidden = [make_node("Sigmoid", ["x"], ["t"]), make_node("Conv", ["x", "t"], ["y"])]
    assert unknown(hidden, {}) == [("Conv y", "its weight is computed from the input")]


def test_kernels_that_the_input_mixes_are_weights():
    """CondConv: shares by image, then one kernel; the shares' own layer counts as always."""
    nodes = [
        make_node("MatMul", ["x", "fc"], ["scores"]),
        make_node("Sigmoid", ["scores"], ["shares"]),
        make_node("Mul", ["shares", "experts"], ["weighted"]),
        make_node("ReduceSum", ["weighted"], ["t"], keepdims=0),
        make_node("Conv", ["x", "t"], ["y"]),
    ]
    assert found(nodes, {"fc": WEIGHT, "experts": WEIGHT.T}) == [
        ("fc", ZEROS, 0),
        ("experts", np.transpose(ZEROS).tolist(), None),
    ]


def test_a_small_file_cannot_make_a_large_tensor():
    row, column = np.zeros((1, 2**15), np.float32), np.zeros((2**15, 1), np.float32)
    for kind in ("Mul", "MatMul"):
        nodes = [make_node(kind, ["column", "row"], ["t"]), make_node("MatMul", ["x", "t"], ["y"])]
        assert unknown(nodes, {"row": row, "column": column}) == [("MatMul y", f"what {kind} makes may be too large")]

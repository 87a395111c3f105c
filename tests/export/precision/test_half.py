from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_node, make_tensor_value_info

from edgerecover.export.precision.graph import prepare
from edgerecover.export.precision.half import nodes_that_overflow, to_half
from edgerecover.export.precision.ranges import scan
from tests.export.precision.conftest import Builder, ImagesInMemory, random_images, residual, run, transformer

IMAGES = random_images(16)


def halved(save, model, extra_kept=()):
    graph = prepare(Path(save(model).path))
    kept = nodes_that_overflow(graph, scan(graph, ImagesInMemory(IMAGES), max_images=16))
    half = to_half(graph, {*kept, *extra_kept})
    onnx.checker.check_model(half, full_check=True)
    return graph, kept, half


def types_of(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("model", [residual(), residual(relu6=True, batch=1), residual(opset=13), transformer()])
def test_weights_are_halved_and_the_ends_stay_float32(save, model):
    graph, kept, half = halved(save, model)
    assert kept == {}
    ends = [half.graph.input[0], half.graph.output[0]]
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    assert TensorProto.FLOAT not in types_of(half).values()
    expected, found = run(graph.model, IMAGES), run(half, IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.01 * expected.std())
    assert [node.op_type for node in half.graph.node].count("Cast") == 2


def planted(factor):
    """residual(), its features made `factor` times larger and smaller again."""
    b = Builder()
    x = b.add("Conv", ["input", b.weight("conv.weight", 8, 3, 3, 3)], "a")
    x = b.add("Mul", [x, b.weight("up", values=np.float32(factor))], "large", name="scale_up")
    x = b.add("Mul", [x, b.weight("down", values=np.float32(1 / factor))], "small", name="scale_down")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "b")], "c")
    return b.model(b.add("Gemm", [x, b.weight("fc.weight", 5, 8)], "logits", transB=1))


@pytest.mark.parametrize(("factor", "said"), [(1e5, "float16 ends at 65504"), (1e-7, "underflow in float16")])
def test_exactly_the_nodes_around_a_planted_overflow_or_underflow_stay_float32(save, factor, said):
    graph, kept, half = halved(save, planted(factor))
    assert set(kept) == {"scale_up", "scale_down"}
    assert all(said in reason for reason in kept.values())
    expected = run(graph.model, IMAGES)
    np.testing.assert_allclose(run(half, IMAGES), expected, atol=0.01 * expected.std())
    broken = run(to_half(graph, ()), IMAGES)
    assert not np.isfinite(broken).all() or np.abs(broken - expected).max() > 0.1 * expected.std()


def test_values_near_the_end_stay_float32_because_real_images_may_pass_it(save):
    _, kept, _ = halved(save, planted(65504 / 3 / 6))
    assert "scale_up" in kept


def test_sums_that_overflow_inside_a_node_keep_it(save):
    b = Builder()
    x = b.add("Mul", ["input", b.weight("up", values=np.float32(4000))], "large")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [b.add("Abs", [x], "abs")], "pooled", name="pool")], "a")
    _, kept, _ = halved(save, b.model(b.add("Gemm", [x, b.weight("fc.weight", 5, 3)], "logits", transB=1)))
    assert list(kept) == ["pool"]
    assert "its sums reach" in kept["pool"]


def test_a_tiny_bias_is_no_reason_to_stay(save):
    b = Builder()
    x = b.add("Flatten", ["input"], "a")
    bias = b.weight("fc.bias", 5, values=np.full(5, 1e-9))
    _, kept, _ = halved(save, b.model(b.add("Gemm", [x, b.weight("fc.weight", 5, 192), bias], "logits", transB=1)))
    assert kept == {}


def test_zeros_stay_zeros(save):
    b = Builder()
    x = b.add("Flatten", ["input"], "a")
    weight = np.random.default_rng(0).standard_normal((5, 192))
    weight[:, ::2] = 0
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 192, values=weight)], "logits", transB=1)
    _, _, half = halved(save, b.model(x))
    (stored,) = (numpy_helper.to_array(t) for t in half.graph.initializer if t.dims == [5, 192])
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored == 0, weight == 0)


def test_a_branch_reads_outer_tensors_as_float32(save):
    """The body of If is left alone, so what it captures must be what it was."""
    b = Builder()
    x = b.add("Flatten", ["input"], "a")
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 192)], "scores", transB=1)
    branch = make_graph(
        [make_node("Identity", ["scores"], ["same"])],
        "branch",
        [],
        [make_tensor_value_info("same", TensorProto.FLOAT, ["N", 5])],
    )
    total = b.add("ReduceSum", ["input"], "total", keepdims=0)
    b.add("Greater", [total, b.weight("never", values=np.float32(1e9))], "is_large")
    x = b.add("If", ["is_large"], "logits", then_branch=branch, else_branch=branch)
    graph, _, half = halved(save, b.model(x))
    np.testing.assert_allclose(run(half, IMAGES), run(graph.model, IMAGES), atol=0.01)

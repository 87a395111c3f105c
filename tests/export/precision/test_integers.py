from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgerecover.artifacts.int8 import SCHEMES
from edgerecover.export.precision.graph import prepare
from edgerecover.export.precision.integers import CLIPS, integer_weight, layers_of, quantize
from edgerecover.export.precision.ranges import scan
from edgerecover.models.onnx.weights import weights_of
from tests.export.precision.conftest import Builder, ImagesInMemory, random_images, residual, run, transformer

IMAGES = random_images(16)
NAMES = tuple(SCHEMES)


def prepared(save, model, images=IMAGES):
    graph = prepare(Path(save(model).path))
    return graph, scan(graph, ImagesInMemory(images), max_images=16, with_histograms=True)


def classifier(weight, x="input", build=None):
    b = build or Builder()
    x = b.add("Flatten", [x], "flat")
    return b.model(b.add("Gemm", [x, b.weight("fc.weight", *weight.shape, values=weight)], "logits", transB=1))


def close(graph, quantized, images=IMAGES, tolerance=0.2):
    onnx.checker.check_model(quantized, full_check=True)
    expected, found = run(graph.model, images), run(quantized, images)
    assert np.abs(found - expected).max() < tolerance * expected.std()


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("scheme", NAMES)
def test_every_scheme_runs_and_stays_close(save, scheme, clip):
    graph, ranges = prepared(save, residual(relu6=True, batch_norm=True))
    quantized = quantize(graph, ranges, SCHEMES[scheme], clip=clip)
    close(graph, quantized, tolerance=0.4 if scheme == "u8s7" else 0.2)


@pytest.mark.parametrize("batch", ["N", 1, 4])
@pytest.mark.parametrize("opset", [13, 18, 21, 26])
def test_opsets_and_batches(save, batch, opset):
    graph, ranges = prepared(save, residual(batch=batch, opset=opset))
    quantized = quantize(graph, ranges, SCHEMES["u8s8"])
    assert quantized.opset_import[0].version == opset
    close(graph, quantized)


def test_the_same_inputs_give_the_same_bytes_silently(save, capfd):
    graph, ranges = prepared(save, residual())
    first, second = (quantize(graph, ranges, SCHEMES["u8s8"]).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert capfd.readouterr() == ("", "")


def test_tensorrt_has_symmetric_integers_and_no_integer_bias(save):
    graph, ranges = prepared(save, residual())
    model = quantize(graph, ranges, SCHEMES["tensorrt"])
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        assert stored[node.input[2]].dtype == np.int8
        assert not stored[node.input[2]].any()
    assert not [values for values in stored.values() if values.dtype == np.int32]
    assert kinds(model)["Relu"] == 3


def test_what_onnxruntime_runs_in_integers(save, tmp_path):
    """Of the u8s8 file no float convolution is left; the classifier gives float logits out of integers."""
    import onnxruntime

    graph, ranges = prepared(save, residual())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    content = quantize(graph, ranges, SCHEMES["u8s8"]).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    ran = kinds(onnx.load(tmp_path / "optimized.onnx"))
    assert (ran["QLinearConv"], ran["QGemm"], ran["QLinearAdd"]) == (3, 1, 1)
    assert not {"Conv", "FusedConv", "Gemm", "Add"} & set(ran)


def test_logits_leave_in_float_but_not_for_qnn(save):
    graph, ranges = prepared(save, residual())
    for scheme in NAMES:
        model = quantize(graph, ranges, SCHEMES[scheme])
        last = next(node for node in model.graph.node if "logits" in node.output)
        assert last.op_type == ("DequantizeLinear" if scheme == "qnn" else "Gemm")


@pytest.mark.parametrize("scheme", NAMES)
def test_zeros_stay_zeros_and_two_of_four_stay_two(save, scheme):
    weight = np.random.default_rng(0).standard_normal((5, 192))
    weight.reshape(-1, 4)[:, :2] = 0
    weight[3, 8:] = 0
    graph, ranges = prepared(save, classifier(weight))
    (stored,) = weights_of(quantize(graph, ranges, SCHEMES[scheme]))
    assert stored.stored.dtype == np.int8
    assert not (~stored.is_zero & (weight == 0)).any()
    assert (stored.is_zero.reshape(-1, 4).sum(1) >= 2).all()


def test_weights_of_seven_bits_keep_away_from_the_ends(save):
    graph, _ = prepared(save, residual())
    for scheme, end in (("u8s8", 127), ("u8s7", 64)):
        integers, _, _ = integer_weight(graph, graph.layers[0], SCHEMES[scheme])
        assert np.abs(integers).max() == end


def test_a_channel_of_zeros_keeps_its_bias(save):
    """With scale 1, as the quantizer would choose, a bias of 0.001 were rounded off."""
    b = Builder()
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3))
    weight[2] = 0
    bias = np.full(8, 0.001)
    x = b.add("Conv", ["input", b.weight("w", 8, 3, 3, 3, values=weight), b.weight("b", 8, values=bias)], "a")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "c")], "d")
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 8)], "logits", transB=1)
    graph, ranges = prepared(save, b.model(x))
    model = quantize(graph, ranges, SCHEMES["u8s8"])
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["b_quantized"][2] * stored["b_quantized_scale"][2] == pytest.approx(0.001, rel=0.15)
    close(graph, model)


def test_all_weights_zero_and_activations_constant(save):
    b = Builder()
    x = b.add("Mul", ["input", b.weight("nothing", values=np.float32(0))], "constant")
    x = b.add("Conv", [x, b.weight("w", 8, 3, 3, 3, values=np.zeros((8, 3, 3, 3))), b.weight("b", 8)], "a")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "c")], "d")
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 8)], "logits", transB=1)
    graph, ranges = prepared(save, b.model(x))
    for scheme in NAMES:
        found = run(quantize(graph, ranges, SCHEMES[scheme]), IMAGES)
        np.testing.assert_allclose(found, run(graph.model, IMAGES), atol=0.05)


def test_raw_bytes_as_input(save):
    images = random_images(16, low=0.0, high=255.0)
    graph, ranges = prepared(save, residual(), images)
    for scheme in NAMES:
        close(graph, quantize(graph, ranges, SCHEMES[scheme]), images, tolerance=0.4)


def test_a_weight_that_two_layers_share_can_be_kept_in_one(save):
    b = Builder()
    weight = b.weight("conv.weight", 3, 3, 1, 1)
    x = b.add("Conv", [b.add("Relu", [b.add("Conv", ["input", weight], "a")], "r"), weight], "b")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "c")], "d")
    graph, ranges = prepared(save, b.model(b.add("Gemm", [x, b.weight("fc.weight", 5, 3)], "logits", transB=1)))
    model = quantize(graph, ranges, SCHEMES["u8s8"], kept=["conv:2"])
    kept = next(node for node in model.graph.node if node.name == "conv:2")
    assert kept.input[1] == "conv.weight"
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["conv.weight"].dtype == np.float32
    close(graph, model)


def test_in_a_transformer_layers_alone_are_integers(save):
    graph, ranges = prepared(save, transformer())
    assert layers_of(graph) == (
        "patch", "attention.q", "attention.k", "attention.v", "mlp", "fc",
    )  # fmt: skip
    for scheme in NAMES:
        model = quantize(graph, ranges, SCHEMES[scheme])
        close(graph, model, tolerance=0.5)
        made = {name: node for node in model.graph.node for name in node.output}
        adds = [node for node in model.graph.node if node.name in ("the_first_sum", "the_second_sum")]
        read = [made[name].op_type for node in adds for name in node.input if name in made]
        products = [node for node in model.graph.node if node.name in ("the_scores", "the_mixed")]
        read += [made[name].op_type for node in products for name in node.input]
        # The patches, a convolution's output, begin the residual stream; what comes after is float.
        assert read.count("DequantizeLinear") == 0 or scheme == "qnn"


def test_a_clip_away_from_zero_is_not_taken_out(save):
    b = Builder()
    bounds = [b.weight(n, values=np.float32(v)) for n, v in (("low", 1.0), ("high", 5.0))]
    x = b.add("Conv", ["input", b.weight("w", 8, 3, 3, 3)], "a")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [b.add("Clip", [x, *bounds], "b")], "c")], "d")
    graph, ranges = prepared(save, b.model(b.add("Gemm", [x, b.weight("fc.weight", 5, 8)], "logits", transB=1)))
    model = quantize(graph, ranges, SCHEMES["u8s8"])
    assert kinds(model)["Clip"] == 1
    close(graph, model)


def test_computed_weights_and_transposed_inputs_are_left(save):
    b = Builder()
    x = b.add("Flatten", ["input"], "flat")
    y = b.add("Transpose", [x], "turned", perm=[1, 0])
    x = b.add("Gemm", [y, b.weight("fc.weight", 192, 5)], "logits", transA=1)
    graph, ranges = prepared(save, b.model(x))
    assert layers_of(graph) == ()
    assert kinds(quantize(graph, ranges, SCHEMES["u8s8"]))["QuantizeLinear"] == 0


def test_only_one_layer(save):
    graph, ranges = prepared(save, residual())
    model = quantize(graph, ranges, SCHEMES["u8s8"], only="dw")
    integers = [t.name for t in model.graph.initializer if t.name.endswith("weight_quantized")]
    assert integers == ["dw.weight_quantized"]

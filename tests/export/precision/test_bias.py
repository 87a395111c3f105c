from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from edgerecover.artifacts.int8 import SCHEMES
from edgerecover.export.precision.bias import correct_biases
from edgerecover.export.precision.graph import prepare
from edgerecover.export.precision.integers import integer_weight
from edgerecover.export.precision.ranges import scan
from tests.export.precision.conftest import Builder, ImagesInMemory, random_images, residual, run


def test_the_mean_output_of_a_layer_with_rounded_weights_is_what_it_was(save):
    b = Builder()
    x = b.add("Conv", ["input", b.weight("w", 6, 1, 1, 1), b.weight("b", 6)], "a", group=3)
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "c")], "d")
    x = b.add("Gemm", [x, b.weight("fc.weight", 6, 5)], "logits")
    images = random_images(16, low=0.0, high=4.0)
    graph = prepare(Path(save(b.model(x)).path))
    ranges = scan(graph, ImagesInMemory(images), max_images=16)
    corrected = correct_biases(graph, ranges, SCHEMES["u8s7"])
    rounded_alone, rounded_and_corrected = (_with_rounded_weights(g, SCHEMES["u8s7"]) for g in (graph, corrected))
    expected = run(graph.model, images).mean(0)
    before = np.abs(run(rounded_alone, images).mean(0) - expected).max()
    after = np.abs(run(rounded_and_corrected, images).mean(0) - expected).max()
    assert before > 1e-3
    assert after < 1e-5


def _with_rounded_weights(graph, scheme):
    """Float, but each weight is what its integers stand for."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in graph.layers:
        integers, scale, axis = integer_weight(graph, node, scheme)
        shape = [1] * integers.ndim
        shape[axis] = -1
        values = (integers * scale.reshape(shape)).astype(np.float32)
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(values, node.input[1]))
    return model


def test_layers_that_are_kept_keep_their_bias(save):
    graph = prepare(Path(save(residual()).path))
    ranges = scan(graph, ImagesInMemory(random_images(8)), max_images=8)
    corrected = correct_biases(graph, ranges, SCHEMES["u8s8"], kept=["stem", "dw"])
    biases = {node.name: node.input[2] if len(node.input) > 2 else None for node in corrected.layers}
    assert (biases["stem"], biases["dw"]) == ("stem.bias", None)
    assert biases["fc"] == "fc.corrected_bias"
    assert graph.layers[0].input[2] == "stem.bias"


@pytest.mark.parametrize("scheme", ["u8s8", "tensorrt"])
def test_a_corrected_network_can_be_quantised(save, scheme):
    from edgerecover.export.precision.integers import quantize

    images = random_images(8)
    graph = prepare(Path(save(residual()).path))
    ranges = scan(graph, ImagesInMemory(images), max_images=8)
    model = quantize(correct_biases(graph, ranges, SCHEMES[scheme]), ranges, SCHEMES[scheme])
    expected = run(graph.model, images)
    assert np.abs(run(model, images) - expected).max() < 0.2 * expected.std()

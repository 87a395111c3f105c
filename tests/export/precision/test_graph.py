from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from edgerecover.artifacts import Exported
from edgerecover.errors import BadInputError, StageError
from edgerecover.export.precision.graph import prepare, write
from tests.export.precision.conftest import Builder, random_images, residual, run, transformer


def test_batch_norm_is_folded_and_the_network_computes_the_same(save):
    float32 = save(residual(batch_norm=True))
    graph = prepare(Path(float32.path))
    assert "BatchNormalization" not in {node.op_type for node in graph.nodes}
    images = random_images(4)
    np.testing.assert_allclose(run(graph.model, images), run(Path(float32.path), images), atol=1e-5)


def test_layers_are_called_as_their_weights_and_every_node_has_a_name_of_its_own(save):
    model = residual()
    for node in model.graph.node:
        node.name = ""
    graph = prepare(Path(save(model).path))
    assert [node.name for node in graph.layers] == ["stem", "dw", "grouped", "fc"]
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    assert all(names)


def test_two_layers_with_one_weight_have_two_names(save):
    b = Builder()
    weight = b.weight("conv.weight", 3, 3, 1, 1)
    x = b.add("Conv", ["input", weight], "a")
    x = b.add("Conv", [x, weight], "b")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "c")], "d")
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 3)], "logits", transB=1)
    graph = prepare(Path(save(b.model(x)).path))
    assert [node.name for node in graph.layers] == ["conv", "conv:2", "fc"]


def test_transformers_are_told_from_convolutional_networks(save):
    assert prepare(Path(save(transformer()).path)).is_transformer
    assert not prepare(Path(save(residual()).path)).is_transformer


def test_a_softmax_after_the_classifier_makes_no_transformer(save):
    b = Builder()
    x = b.add("Flatten", ["input"], "a")
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 192)], "b", transB=1)
    assert not prepare(Path(save(b.model(b.add("Softmax", [x], "logits"))).path)).is_transformer


def test_what_is_no_model_or_quantised_already_is_refused(tmp_path, save):
    (tmp_path / "broken.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(BadInputError, match="cannot be prepared"):
        prepare(tmp_path / "broken.onnx")
    b = Builder()
    scale = b.weight("scale", values=np.float32(0.1))
    x = b.add("DequantizeLinear", [b.add("QuantizeLinear", ["input", scale], "q"), scale], "dq")
    x = b.add("Gemm", [b.add("Flatten", [x], "a"), b.weight("fc.weight", 5, 192)], "logits", transB=1)
    with pytest.raises(BadInputError, match="quantised already"):
        prepare(Path(save(b.model(x)).path))


def test_a_variant_that_the_checker_refuses_is_not_written(tmp_path, save):
    float32: Exported = save(residual())
    model = onnx.load(float32.path)
    model.graph.node.append(make_node("Conv", ["nowhere"], ["never"]))
    with pytest.raises(StageError, match=r"onnx\.checker refuses"):
        write(model, tmp_path / "out.onnx", float32)
    assert not (tmp_path / "out.onnx").exists()

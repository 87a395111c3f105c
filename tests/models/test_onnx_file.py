"""`inspect` on ONNX files: what is in them, in PyTorch's layout of weights."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgerecover.artifacts import Pattern
from edgerecover.errors import BadInputError
from edgerecover.models.networks import inspect


def inspected(path):
    return inspect(path, arch=None, input_flags=None, trust_code=False)


def written(path, nodes, weights, external=()):
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    tensors = [numpy_helper.from_array(weight.numpy(), name) for name, weight in weights.items()]
    for tensor in tensors:
        if tensor.name in external:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.bin")
    graph = helper.make_graph(nodes, "g", values, [], tensors)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))
    return path


def test_weights_are_laid_out_as_in_pytorch(tmp_path):
    """Rows are outputs; two of every four inputs are zero, which only that layout shows as 2:4."""
    torch.manual_seed(0)
    weight = torch.rand(3, 4) + 0.1
    weight[:, ::2] = 0
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["1"], transB=1),
        helper.make_node("Gemm", ["x", "b"], ["2"]),
        helper.make_node("MatMul", ["x", "c"], ["3"]),
        helper.make_node("Transpose", ["d"], ["turned"]),
        helper.make_node("MatMul", ["x", "turned"], ["4"]),
    ]
    weights = {"a": weight, "b": weight.T.contiguous(), "c": weight.T.contiguous(), "d": weight}
    facts = inspected(written(tmp_path / "m.onnx", nodes, weights))
    assert [layer.shape for layer in facts.sparsity.layers] == [(3, 4)] * 4
    assert {layer.pattern for layer in facts.sparsity.layers} == {Pattern.TWO_FOUR}
    assert facts.format == "ONNX, opset 18, input x n×4"
    assert facts.num_parameters == 48
    assert facts.architecture == "a graph of 5 nodes"


def test_an_exported_network(tmp_path, network):
    with pytest.warns():
        torch.onnx.export(network.eval(), (torch.zeros(1, 1, 6, 6),), tmp_path / "m.onnx", dynamo=False)
    facts = inspected(tmp_path / "m.onnx")
    assert facts.sparsity.num_weights == 36 + 432
    assert facts.format.endswith("1×1×6×6")


def test_external_weights_are_not_read(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "a"], ["y"])]
    facts = inspected(written(tmp_path / "m.onnx", nodes, {"a": torch.ones(4, 4)}, external=("a",)))
    assert facts.num_parameters == 16
    assert facts.sparsity.layers == ()


def test_damage_is_refused(tmp_path):
    path = written(tmp_path / "m.onnx", [helper.make_node("Gemm", ["x", "a"], ["y"])], {"a": torch.ones(4, 4)})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInputError, match="damaged"):
        inspected(path)

import json

import pytest

from edgerecover.artifacts import SparseLayers
from edgerecover.runtime.engine.layers import by_type, layers_of_inspector, layers_of_log, sparse_layers

LOG_LINE = (
    "Layers:\n"
    "Name: conv + relu, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,3,4,4], Strides: [48,16,4,1], "
    "StrideOrder: [3,2,1,0], Datatype: Int8, Format: (NHWC) }], "
    "Constants: [ { Name: w, Datatype: Float, Format: (Linear) }], "
    "Outputs: [ { Name: y, Dimensions: [1,8,4,4], Datatype: Half, Format: (NHWC) }], TacticName: sm86_i8, StreamId: 0, "
    "Metadata: [ONNX Layer: conv]\n"
    "Name: wait0, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: \n"
)


def test_the_log_lists_layers_as_the_inspector_does() -> None:
    layers = layers_of_log(["something else", LOG_LINE])
    assert [layer["Name"] for layer in layers] == ["conv + relu", "wait0"]
    assert layers[0]["Inputs"] == [{"Datatype": "Int8"}]  # a constant is no input
    assert layers[0]["Outputs"] == [{"Datatype": "Half"}]
    assert layers[0]["TacticName"] == "sm86_i8"
    assert by_type(layers) == {"Int8": 1}


def test_layers_of_the_inspector_old_and_new() -> None:
    old = {"Name": "a", "LayerType": "Convolution", "Inputs": [{"Format/Datatype": "Row major linear FP16 format"}]}
    new = {"Name": "b", "LayerType": "gemm", "Inputs": [{"Datatype": "Half"}], "Outputs": [{"Datatype": "Float"}]}
    layers = layers_of_inspector(json.dumps({"Layers": [old, new, "a name alone"], "Bindings": []}))
    assert by_type(layers) == {"Half": 2, "unknown": 1}


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"Layers": []}'])
def test_an_inspector_that_says_nothing(text: str) -> None:
    assert layers_of_inspector(text) == []


def test_sparse_layers_by_name() -> None:
    """As in the TensorRT developer guide, section "Sparsity"."""
    texts = [
        "(Sparsity) Layers eligible for sparse math: conv1, conv2, conv3",
        "(Sparsity) TRT inference plan picked sparse implementation for layers: conv2, conv3",
    ]
    assert sparse_layers(texts) == SparseLayers(eligible=3, picked=2)
    texts[1] = "(Sparsity) TRT inference plan picked sparse implementation for layers:"
    assert sparse_layers(texts) == SparseLayers(eligible=3, picked=0)


def test_sparse_layers_by_count_the_last_pass_decides() -> None:
    texts = [
        "(Sparsity) Found 40 layer(s) eligible to use sparse tactics: conv1, conv2",
        "(Sparsity) Chose 7 layer(s) using sparse tactics: conv1",
        "(Sparsity) Found 39 layer(s) eligible to use sparse tactics",
        "(Sparsity) Chose 0 layer(s) using sparse tactics",
    ]
    assert sparse_layers(texts) == SparseLayers(eligible=39, picked=0)


def test_a_log_that_says_nothing_of_sparsity() -> None:
    assert sparse_layers(["Engine generation completed in 0.2 seconds."]) is None

#!/bin/sh
# onnx's reference evaluator is expected to run every standard operator of a model that onnx.checker accepts. It has no
# DequantizeLinear for opsets 13 to 18, in which torch.onnx and onnxruntime's quantizers write most int8 files; from 19
# on it has. Users meet it when they check a quantized file, or fold its constants, without onnxruntime.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2
"$folder/venv/bin/python" - <<'P'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def run(opset):
    node = helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["y"])
    inputs = [
        helper.make_tensor_value_info("w", TensorProto.INT8, [2]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("zero", TensorProto.INT8, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs), opset_imports=[helper.make_opsetid("", opset)]
    )
    onnx.checker.check_model(model, full_check=True)
    given = {"w": np.array([5, 7], np.int8), "scale": np.float32(0.5), "zero": np.int8(5)}
    given = {name: np.asarray(value) for name, value in given.items()}
    try:
        return ReferenceEvaluator(model).run(None, given)[0].tolist()
    except RuntimeError as error:
        return str(error)


found = {opset: run(opset) for opset in (13, 18, 19, 21)}
print("onnx", onnx.__version__)
for opset, result in found.items():
    print(f"opset {opset}: {result}")
as_known = all("No implementation" in str(found[opset]) for opset in (13, 18)) and found[19] == found[21] == [0.0, 1.0]
sys.exit(0 if as_known else 1)
P

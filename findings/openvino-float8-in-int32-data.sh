#!/bin/sh
# One would expect that OpenVINO reads a weight alike from both of ONNX's fields for it, or refuses one. float8 and
# bfloat16 tensors whose values lie in int32_data, where onnx.helper.make_tensor puts them, are read as other numbers
# without an error or a warning; the same values in raw_data, and float16 in int32_data, are read well. Whoever makes a
# float8 file with the onnx package's own helper gets a network that decides at random in OpenVINO and rightly elsewhere.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys

sys.modules["openvino.tools.ovc"] = None  # its import sends a usage event; it is not needed

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
weight = random.integers(-3, 4, (16, 8)).astype(np.float32)  # exact in every type below
images = random.standard_normal((2, 16)).astype(np.float32)
meant = images @ weight
info = helper.make_tensor_value_info


def outputs(tensor):
    """Of one matrix product with the weight, by onnxruntime and by OpenVINO."""
    nodes = [
        helper.make_node("Cast", ["w"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "cast"], ["y"]),
    ]
    ends = [info("x", TensorProto.FLOAT, [2, 16])], [info("y", TensorProto.FLOAT, [2, 8])]
    graph = helper.make_graph(nodes, "g", *ends, [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "m.onnx")
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("m.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session.run(None, {"x": images})[0], compiled({0: images})[0]


print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__)
wrong = {}
for name in ("FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"):
    kind = getattr(TensorProto, name)
    tensors = {
        "raw_data": numpy_helper.from_array(weight.astype(helper.tensor_dtype_to_np_dtype(kind)), "w"),
        "int32_data": helper.make_tensor("w", kind, weight.shape, weight.ravel()),
    }
    for field, tensor in tensors.items():
        assert len(tensor.int32_data) == (weight.size if field == "int32_data" else 0)
        by_onnxruntime, by_openvino = (float(np.abs(found - meant).max()) for found in outputs(tensor))
        print(f"{name} in {field}: off by {by_onnxruntime:.2g} in onnxruntime, by {by_openvino:.2g} in OpenVINO")
        assert by_onnxruntime < 1e-3
        wrong[name, field] = by_openvino > 1
expected = {("BFLOAT16", "int32_data"), ("FLOAT8E4M3FN", "int32_data"), ("FLOAT8E5M2", "int32_data")}
sys.exit({case for case, is_wrong in wrong.items() if is_wrong} != expected)
P

#!/bin/sh
# One would expect that a file whose weights alone are int8 (DequantizeLinear, then MatMul) computes in float32, as it
# says. onnxruntime makes MatMulNBits with accuracy_level 4 of it by default, which rounds the other input to 8 bits as
# well: outputs are off by about a hundredth of their spread. Whoever keeps activations in float32 for accuracy does not
# get that. The entry session.qdq_matmulnbits_accuracy_level = 1 switches it off.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
weight = random.integers(-100, 100, (256, 64)).astype(np.int8)
images = random.standard_normal((2, 256)).astype(np.float32)
meant = images.astype(np.float64) @ (weight.astype(np.float64) * 0.01)
info = helper.make_tensor_value_info
nodes = [
    helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
    helper.make_node("MatMul", ["x", "wd"], ["y"]),
]
ends = [info("x", TensorProto.FLOAT, [2, 256])], [info("y", TensorProto.FLOAT, [2, 64])]
values = {"w": weight, "s": np.float32(0.01), "z": np.int8(0)}
initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
graph = helper.make_graph(nodes, "g", *ends, initializers)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def run(*entry):
    """Largest error in standard deviations of the outputs, and the operators that the model became."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the optimised file, which is only looked at, fits this machine alone
    options.optimized_model_filepath = "optimised.onnx"
    if entry:
        options.add_session_config_entry(*entry)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    error = float(np.abs(session.run(None, {"x": images})[0] - meant).max() / meant.std())
    became = onnx.load("optimised.onnx").graph.node
    levels = [a.i for node in became for a in node.attribute if a.name == "accuracy_level"]
    return error, [node.op_type for node in became], levels


print("onnxruntime", onnxruntime.__version__)
plain, precise = run(), run("session.qdq_matmulnbits_accuracy_level", "1")
print(f"as it comes: {plain[1]}, accuracy_level {plain[2]}, off by {plain[0]:.1e} standard deviations")
print(f"with the entry: {precise[1]}, accuracy_level {precise[2]}, off by {precise[0]:.1e}")
sys.exit(not (plain[2] == [4] and plain[0] > 1e-3 and precise[0] < 1e-4))
P

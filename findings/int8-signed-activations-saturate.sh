#!/bin/sh
# One would expect, from ONNX Runtime's page on quantisation, that only unsigned activations with signed weights (U8S8)
# saturate on x86 processors without VNNI. Signed ones (S8S8) do too: they are turned unsigned before they are multiplied.
# So an int8 file for an Arm board is judged by the overflow of the desk. The entry session.x64quantprecision undoes both.
# What is checked holds on every processor: both kinds come out alike, and with the entry both are exact.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'P'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

random = np.random.default_rng(0)
weight = (random.integers(100, 128, (5, 32, 1, 1)) * random.choice([-1, 1], (5, 1, 1, 1))).astype(np.int8)
images = np.ones((1, 32, 4, 4), np.float32)
meant = weight[:, :, 0, 0].astype(np.int64).sum(1) / 127


def convolution(kind, zero):
    """Q/DQ around one convolution whose pairs of 8-bit products pass 16 bits: 2 x 255 x 127."""
    values = {
        "xs": np.float32(1 / 255), "xz": kind(zero), "w": weight, "ws": np.float32(1 / 127), "wz": np.int8(0),
        "ys": np.float32(0.25), "yz": kind(zero + 128),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "ys", "yz"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 32, 4, 4])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 5, 4, 4])]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def largest_error(model, precise):
    options = onnxruntime.SessionOptions()
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return float(np.abs(session.run(None, {"x": images})[0][0, :, 0, 0] - meant).max())


print("onnxruntime", onnxruntime.__version__)
saturates, is_exact = {}, {}
for name, kind, zero in (("U8S8", np.uint8, 0), ("S8S8", np.int8, -128)):
    model = convolution(kind, zero)
    plain, precise = largest_error(model, False), largest_error(model, True)
    saturates[name], is_exact[name] = plain > 0.13, precise <= 0.13  # half a step of the output
    print(f"{name}: outputs of about {np.abs(meant).mean():.0f} are off by {plain:.2f}, with the entry by {precise:.2f}")
sys.exit(saturates["U8S8"] != saturates["S8S8"] or not all(is_exact.values()))
P

#!/bin/sh
# One would expect that a provider which get_available_providers() lists runs when it is named in a session's list of
# providers, or that there is an error or a warning, as there is for an unknown name. A plugin provider that is
# registered is listed, and dropped from the list without a word: everything runs on the CPU. So whoever follows the
# pages on QNN from before it was a plugin measures the CPU and calls it the NPU. add_provider_for_devices works.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnxruntime-qnn==2.7.0 onnx==1.23.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'P'
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import onnxruntime_qnn
from onnx import helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
warnings.simplefilter("always")
qnn = "QNNExecutionProvider"
info = helper.make_tensor_value_info
weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "g",
    [info("x", onnx.TensorProto.FLOAT, [1, 4])],
    [info("y", onnx.TensorProto.FLOAT, [1, 4])],
    [weight],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def opened(providers=None, devices=()):
    """The providers that a session has, and what was warned of while it was made."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if devices:
        options.add_provider_for_devices(list(devices), {"backend_type": "htp"})
    with warnings.catch_warnings(record=True) as warned:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    return session.get_providers(), len(warned)


print("onnxruntime", onnxruntime.__version__, "onnxruntime-qnn", onnxruntime_qnn.__version__)
unknown = opened(["NoSuchExecutionProvider", "CPUExecutionProvider"])
onnxruntime.register_execution_provider_library(qnn, onnxruntime_qnn.get_library_path())
is_listed = qnn in onnxruntime.get_available_providers()
listed = opened([qnn, "CPUExecutionProvider"])
added = opened(devices=[one for one in onnxruntime.get_ep_devices() if one.ep_name == qnn][:1])
print(f"an unknown name in the list: {unknown[0]}, {unknown[1]} warnings")
print(f"registered, so available: {is_listed}")
print(f"named in the list: {listed[0]}, {listed[1]} warnings")
print(f"added by its device: {added[0]}")
dropped = listed == (["CPUExecutionProvider"], 0)
sys.exit(not (is_listed and dropped and unknown[1] and qnn in added[0]))
P

#!/bin/sh
# One would expect that a network with an open batch size says so once it is converted: ONNX has a name there, and MNN
# itself gives -1 for an open height and width. Of an open batch it says 1, as of a fixed one, and runs any number of
# images. Whoever sizes buffers or splits batches by get_info() runs images one at a time, or refuses a file that works.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q MNN==3.6.1 onnx==1.23.2 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import importlib.metadata
import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

import _mnncengine
import _tools

print("MNN", importlib.metadata.version("MNN"))
expr, nn = _mnncengine._expr, _mnncengine._nn


def converted(name, sides):
    info = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])], "g",
        [info("x", onnx.TensorProto.FLOAT, sides)], [info("y", onnx.TensorProto.FLOAT, [sides[0], 2, *sides[2:]])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), f"{name}.onnx")
    _tools.mnnconvert(["MNNConvert", "-f", "ONNX", "--modelFile", f"{name}.onnx", "--MNNModel", f"{name}.mnn"])
    manager = nn.create_runtime_manager(({"backend": "CPU"},))
    module = nn.load_module_from_file(
        manager, [], [], f"{name}.mnn", 0, 1, 0, expr.Backend.CPU, expr.MemoryMode.Normal, expr.PowerMode.Normal,
        expr.PrecisionMode.High, 1,
    )
    return module, list(module.get_info()["inputs"][0].shape)


fixed = converted("fixed", [1, 3, 4, 4])[1]
module, batch_open = converted("batch", ["N", 3, 4, 4])
sides_open = converted("sides", [1, 3, "H", "W"])[1]
images = expr.placeholder([5, 3, 4, 4], expr.NCHW, expr.float)
images.write(np.ones((5, 3, 4, 4), np.float32))
answer = list(module.onForward([images])[0].shape)
print(f"batch 1: {fixed}; an open batch: {batch_open}; open height and width: {sides_open}")
print(f"five images through the one with an open batch: {answer}")
sys.exit(not (fixed == batch_open == [1, 3, 4, 4] and sides_open == [1, 3, -1, -1] and answer[0] == 5))
P

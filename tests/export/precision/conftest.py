"""Small networks as ONNX files, and images to calibrate them on."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from edgerecover.artifacts import Exported, InputSpec, sha256_of

INPUT = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3)


class ImagesInMemory:
    def __init__(self, images_NCHW):
        self._images_NCHW = images_NCHW

    def __len__(self):
        return len(self._images_NCHW)

    def batches(self, batch_size):
        for start in range(0, len(self), batch_size):
            yield self._images_NCHW[start : start + batch_size]


def random_images(num_images=48, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, (num_images, 3, 8, 8)).astype(np.float32)


def run(model_or_path, images_NCHW):
    """Scores by onnxruntime as the file says, on every processor; image batch as the file takes it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    content = (
        model_or_path.SerializeToString() if isinstance(model_or_path, onnx.ModelProto) else model_or_path.read_bytes()
    )
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (input,) = session.get_inputs()
    size = input.shape[0] if isinstance(input.shape[0], int) else len(images_NCHW)
    return np.concatenate(
        [session.run(None, {input.name: images_NCHW[i : i + size]})[0] for i in range(0, len(images_NCHW), size)]
    )


class Builder:
    """Writes a network node by node; `weight` draws a tensor."""

    def __init__(self, seed=0):
        self._random = np.random.default_rng(seed)
        self.nodes, self.stored = [], []

    def weight(self, name, *shape, scale=None, values=None):
        fan_in = int(np.prod(shape[1:])) or 1
        if values is None:
            values = self._random.standard_normal(shape) * (scale or (2 / fan_in) ** 0.5)
        self.stored.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def integers(self, name, values):
        self.stored.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def add(self, op, inputs, output, name="", **attributes):
        self.nodes.append(make_node(op, inputs, [output], name or f"the_{output}", **attributes))
        return output

    def model(self, output, *, batch="N", opset=18, num_classes=5):
        graph = make_graph(
            self.nodes,
            "network",
            [make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 8, 8])],
            [make_tensor_value_info(output, TensorProto.FLOAT, [batch, num_classes])],
            self.stored,
        )
        model = make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual(build=None, *, batch="N", opset=18, relu6=False, batch_norm=False):
    """Conv, depthwise and grouped, a shortcut, pooling, a classifier; named as PyTorch names them."""
    b = build or Builder()
    x = b.add("Conv", ["input", b.weight("stem.weight", 8, 3, 3, 3), b.weight("stem.bias", 8)], "a", pads=[1] * 4)
    if batch_norm:
        statistics = [b.weight(f"bn.{n}", 8, values=b._random.uniform(0.5, 1.5, 8)) for n in "sbmv"]
        x = b.add("BatchNormalization", [x, *statistics], "normalised")
    if relu6:
        bounds = [b.weight(n, values=np.float32(v)) for n, v in (("low", 0.0), ("high", 6.0))]
        stem = b.add("Clip", [x, *bounds], "b")
    else:
        stem = b.add("Relu", [x], "b")
    x = b.add("Conv", [stem, b.weight("dw.weight", 8, 1, 3, 3)], "c", pads=[1] * 4, group=8)
    x = b.add("Relu", [x], "d")
    x = b.add("Conv", [x, b.weight("grouped.weight", 8, 4, 1, 1), b.weight("grouped.bias", 8)], "e", group=2)
    x = b.add("Add", [x, stem], "sum")
    x = b.add("Relu", [x], "f")
    x = b.add("MaxPool", [x], "g", kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("GlobalAveragePool", [x], "h")
    x = b.add("Flatten", [x], "features")
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 8), b.weight("fc.bias", 5)], "logits", transB=1)
    return b.model(x, batch=batch, opset=opset)


def transformer():
    """Patches, one block with layer norm, attention and GELU, a classifier."""
    b = Builder()
    x = b.add("Conv", ["input", b.weight("patch.weight", 8, 3, 4, 4)], "a", strides=[4, 4])
    x = b.add("Reshape", [x, b.integers("to_tokens", [0, 8, 4])], "b")
    x = b.add("Transpose", [x], "tokens", perm=[0, 2, 1])
    norm = [b.weight("norm.weight", 8, values=np.ones(8)), b.weight("norm.bias", 8)]
    y = b.add("LayerNormalization", [x, *norm], "c", axis=-1)
    q, k, v = (b.add("MatMul", [y, b.weight(f"attention.{n}.weight", 8, 8)], n) for n in "qkv")
    scores = b.add("MatMul", [q, b.add("Transpose", [k], "kt", perm=[0, 2, 1])], "scores")
    y = b.add("MatMul", [b.add("Softmax", [scores], "shares", axis=-1), v], "mixed")
    x = b.add("Add", [x, y], "first_sum")
    y = b.add("MatMul", [x, b.weight("mlp.weight", 8, 8)], "d")
    y = b.add("Add", [y, b.weight("mlp.bias", 8)], "e")
    half, one = b.weight("half", values=np.float32(0.5)), b.weight("one", values=np.float32(1))
    y = b.add("Mul", [y, b.add("Add", [b.add("Erf", [y], "erf"), one], "erf1")], "gelu2")
    y = b.add("Mul", [y, half], "gelu")
    x = b.add("Add", [x, y], "second_sum")
    x = b.add("ReduceMean", [x, b.integers("axes", [1])], "mean", keepdims=0)
    x = b.add("Gemm", [x, b.weight("fc.weight", 5, 8), b.weight("fc.bias", 5)], "logits", transB=1)
    return b.model(x)


@pytest.fixture
def save(tmp_path):
    """Writes a model as the float32 export that variants are made from."""

    def save(model, name="float32"):
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        dim = model.graph.input[0].type.tensor_type.shape.dim[0]
        return Exported(
            path=str(path),
            sha256=sha256_of(path),
            size_bytes=path.stat().st_size,
            opset=model.opset_import[0].version,
            exporter="by hand",
            batch=dim.dim_value or None,
            num_weights=0,
            num_nonzero=0,
        )

    return save

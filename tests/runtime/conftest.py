import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info


def write_classifier(path, batch, shape=(3, 4, 4), num_classes=5):
    """Conv, Relu, mean, Gemm: written by hand, so that these tests need no torch."""
    random = np.random.default_rng(0)
    weights = {
        "conv": random.standard_normal((8, shape[0], 3, 3), np.float32),
        "fc": random.standard_normal((8, num_classes), np.float32),
    }
    nodes = [
        make_node("Conv", ["input", "conv"], ["a"], pads=[1, 1, 1, 1]),
        make_node("Relu", ["a"], ["b"]),
        make_node("GlobalAveragePool", ["b"], ["c"]),
        make_node("Flatten", ["c"], ["d"]),
        make_node("Gemm", ["d", "fc"], ["logits"]),
    ]
    graph = make_graph(
        nodes,
        "classifier",
        [make_tensor_value_info("input", onnx.TensorProto.FLOAT, [batch, *shape])],
        [make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, num_classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def classifier(tmp_path):
    return write_classifier(tmp_path / "static.onnx", batch=4)


@pytest.fixture
def dynamic_classifier(tmp_path):
    return write_classifier(tmp_path / "dynamic.onnx", batch="batch")

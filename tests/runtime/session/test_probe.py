"""A file that would hang or break the process ends in a message."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_function, make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from edgerecover.errors import BadInputError
from edgerecover.runtime.session import probe as probe_module
from edgerecover.runtime.session.probe import probe

SHAPE = (3, 8, 8)


def written(path, nodes, tensors=(), functions=()):
    graph = make_graph(
        nodes,
        "g",
        [make_tensor_value_info("x", TensorProto.FLOAT, [1, *SHAPE])],
        [make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors],
    )
    opsets = [make_opsetid("", 18), make_opsetid("f", 1)]
    model = make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))
    path.write_bytes(model.SerializeToString())
    return path


def test_a_sound_file_passes(write_onnx, tmp_path):
    probe(write_onnx(tmp_path / "net.onnx"), SHAPE, 5)


def test_refusals_come_through_with_their_hints(write_onnx, tmp_path):
    with pytest.raises(BadInputError, match="K = 7") as caught:
        probe(write_onnx(tmp_path / "net.onnx"), SHAPE, 7)
    assert "export the network" in caught.value.hint
    with pytest.raises(BadInputError, match="IR version"):
        probe(write_onnx(tmp_path / "new.onnx", ir_version=99), SHAPE, 5)


def test_a_loop_without_end_is_ended(tmp_path):
    body = make_graph(
        [make_node("Identity", ["go"], ["go_on"]), make_node("Identity", ["v"], ["w"])],
        "body",
        [
            make_tensor_value_info("i", TensorProto.INT64, []),
            make_tensor_value_info("go", TensorProto.BOOL, []),
            make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [make_tensor_value_info("go_on", TensorProto.BOOL, []), make_tensor_value_info("w", TensorProto.FLOAT, None)],
    )
    path = written(
        tmp_path / "loop.onnx", [make_node("Loop", ["", "true", "x"], ["y"], body=body)], [("true", np.array(True))]
    )
    with pytest.raises(BadInputError, match="did not finish within 3 s"):
        probe(path, SHAPE, None, timeout_s=3)


def test_functions_that_double_at_each_level_are_ended(tmp_path):
    def level(number):
        inner = f"F{number + 1}"
        nodes = [make_node(inner, ["a"], ["t"], domain="f"), make_node(inner, ["t"], ["b"], domain="f")]
        return make_function("f", f"F{number}", ["a"], ["b"], nodes, [make_opsetid("f", 1)])

    last = make_function("f", "F30", ["a"], ["b"], [make_node("Relu", ["a"], ["b"])], [make_opsetid("", 18)])
    path = written(tmp_path / "f.onnx", [make_node("F0", ["x"], ["y"], domain="f")], (), [*map(level, range(30)), last])
    with pytest.raises(BadInputError, match=r"did not finish|crashes|memory"):
        probe(path, SHAPE, None, timeout_s=3)


def test_a_tensor_larger_than_memory_is_refused(tmp_path):
    nodes = [make_node("ConstantOfShape", ["shape"], ["y"])]
    path = written(tmp_path / "large.onnx", nodes, [("shape", np.array([2**20, 2**20]))])
    with pytest.raises(BadInputError, match=r"cannot run it|memory"):
        probe(path, SHAPE, None)


def test_a_crash_is_bad_input(write_onnx, tmp_path, monkeypatch):
    """No file that crashes the installed onnxruntime is known; the child's end is what is tested."""
    import subprocess

    path = write_onnx(tmp_path / "net.onnx")
    monkeypatch.setattr(
        probe_module, "run_fresh", lambda *_, **__: subprocess.CompletedProcess([], -11, stdout="", stderr="")
    )
    with pytest.raises(BadInputError, match=r"crashes on it \(status -11\)"):
        probe(path, SHAPE, 5)

"""Names of tensors out of a file's bytes, without the onnx package."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgerecover.runtime.session.wire import stored_as_int32

BFLOAT16 = frozenset({TensorProto.BFLOAT16})


def tensor(name, kind=TensorProto.BFLOAT16):
    return helper.make_tensor(name, kind, [2], [1, 2])


def model(nodes=(), stored=(), functions=()):
    graph = helper.make_graph(list(nodes), "g", [], [], list(stored))
    return helper.make_model(graph, functions=list(functions))


def constant(name, output="c"):
    return helper.make_node("Constant", [], [output], value=tensor(name))


def test_tensors_are_found_wherever_a_file_keeps_them(tmp_path):
    branch = helper.make_graph([constant("in a constant of a branch")], "b", [], [], [tensor("in a branch")])
    nodes = [constant("in a constant"), helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    function = helper.make_function("own", "f", [], ["c"], [constant("in a function")], [helper.make_opsetid("", 18)])
    stored = [tensor("stored"), tensor("another type", TensorProto.FLOAT16), numpy_helper.from_array(np.ones(2), "raw")]
    onnx.save(model(nodes, stored, [function]), tmp_path / "m.onnx")
    assert set(stored_as_int32(tmp_path / "m.onnx", BFLOAT16)) == {
        "stored", "in a constant", "in a branch", "in a constant of a branch", "in a function",
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\xff\x7f", b"\x0b"])
def test_what_is_no_file_has_none(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    assert stored_as_int32(tmp_path / "m.onnx", BFLOAT16) == ()


def test_a_file_that_breaks_off_has_none(tmp_path):
    content = model(stored=[tensor("stored")]).SerializeToString()
    for size in range(1, len(content)):
        (tmp_path / "m.onnx").write_bytes(content[:size])
        assert stored_as_int32(tmp_path / "m.onnx", BFLOAT16) in ((), ("stored",))

"""`edgerecover engine`: exit codes and messages. Builds are real, by TensorRT-RTX."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from edgerecover.cli import main


def edgerecover(cwd, *arguments):
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["edgerecover", *map(str, arguments)])
        patch.setenv("NO_COLOR", "1")
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(arguments, ended.value.code or 0, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def folder(tmp_path):
    """A folder with model.onnx (static batch), open.onnx, and refused.onnx (an operator that nobody has)."""
    weights = [numpy_helper.from_array(np.ones((48, 5), np.float32), "w")]
    for name, batch, first in (("model", 1, "Flatten"), ("open", "N", "Flatten"), ("refused", 1, "Nonsense")):
        nodes = [make_node(first, ["input"], ["x"], name="first"), make_node("Gemm", ["x", "w"], ["logits"])]
        graph = make_graph(
            nodes,
            "g",
            [make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 4, 4])],
            [make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])],
            weights,
        )
        model = make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10)
        onnx.save(model, tmp_path / f"{name}.onnx")
    return tmp_path


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86_64 Linux, Windows)")


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_an_engine_is_built_and_shown(folder):
    done = edgerecover(folder, "engine", "build", "model.onnx", "--target", "rtx-40", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["file"] == "model.rtx-40.engine"
    assert facts["key"]["compute_capabilities"] == ["8.9"]
    shown = edgerecover(folder, "engine", "show", "model.rtx-40.engine")
    assert shown.returncode == 0
    assert "for compute capability 8.9; batch as in the file" in shown.stdout
    assert "sparse kernels: requested, with no effect that could be seen" in " ".join(shown.stdout.split())


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_an_open_batch(folder):
    refused = edgerecover(folder, "engine", "build", "open.onnx", "-t", "rtx-30", "-o", "e.engine")
    assert refused.returncode == 2
    assert "--batch-range 1,1,8" in refused.stderr
    assert not (folder / "e.engine").exists()
    built = edgerecover(
        folder, "engine", "build", "open.onnx", "-t", "rtx-30", "-o", "e.engine", "--batch-range", "1,2,8"
    )
    assert built.returncode == 0
    assert "batch 1 to 8, tuned for 2" in built.stdout


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_check_answers_by_its_exit_code(folder):
    taken = edgerecover(folder, "engine", "check", "model.onnx", "--target", "jetson-orin")
    assert taken.returncode == 0
    assert "stands in for the device's own TensorRT" in taken.stdout
    refused = edgerecover(folder, "engine", "check", "refused.onnx", "--target", "jetson-orin", "--json")
    assert refused.returncode == 1
    assert "(Nonsense)" in json.loads(refused.stdout)["problems"][0]


def test_a_jetsons_engine_is_built_on_the_jetson(folder):
    done = edgerecover(folder, "engine", "build", "model.onnx", "--target", "jetson-orin-nano")
    assert done.returncode == 3
    assert "built on that device" in done.stderr
    assert "engine check" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "model.onnx", "-t", "onnx-generic"), "not engines"),
        (("build", "nowhere.onnx", "-t", "rtx-40"), "nowhere.onnx"),
        (("build", "model.onnx", "-t", "rtx-40", "--batch-range", "1,2"), "expected one size, or three"),
        (("show", "model.onnx"), "model.onnx.json beside it is missing, or describes another engine"),
        (("show", "nowhere.engine"), "no such file"),
    ],
)
def test_bad_input(folder, arguments, message):
    done = edgerecover(folder, "engine", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())

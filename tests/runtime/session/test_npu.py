"""Compiled for Qualcomm's NPU and run in its emulation, for real where onnxruntime-qnn is installed."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgerecover.artifacts.int8 import SCHEMES
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.export.npu import tidy_context
from edgerecover.export.precision.graph import prepare
from edgerecover.export.precision.integers import quantize
from edgerecover.export.precision.ranges import scan
from edgerecover.runtime.session import npu
from edgerecover.runtime.session.npu import NpuProcess, require_npu_compiler
from tests.export.precision.conftest import ImagesInMemory, random_images, residual, run

WHY = "onnxruntime-qnn is not installed (Python 3.11 and later, x86-64)"


@pytest.fixture
def quantized(tmp_path):
    onnx.save(residual(batch=1), tmp_path / "float.onnx")
    graph = prepare(tmp_path / "float.onnx")
    ranges = scan(graph, ImagesInMemory(random_images(16)), max_images=16, with_histograms=True)
    path = tmp_path / "int8.onnx"
    onnx.save(quantize(graph, ranges, SCHEMES["qnn"]), path)
    return path


@pytest.fixture
def process():
    pytest.importorskip("onnxruntime_qnn", reason=WHY)
    with NpuProcess() as process:
        yield process


@pytest.mark.parametrize(("generation", "chip"), [("68", "SM8350"), ("81", "SM8850")])
def test_a_file_is_compiled_and_decides_in_the_emulation_as_on_the_cpu(quantized, process, tmp_path, generation, chip):
    out = tmp_path / "npu.onnx"
    assert process.compile(quantized, generation, out).chip == chip
    assert tidy_context(out, quantized) == ("QuantizeLinear", "DequantizeLinear")
    model = onnx.load(out)
    assert model.ir_version == onnx.load(quantized).ir_version
    assert {entry.domain for entry in model.opset_import} == {"", "com.microsoft"}
    images = random_images(4, seed=1)
    np.save(tmp_path / "images.npy", images)
    nodes = process.score(out, tmp_path / "images.npy", tmp_path / "scores.npy")
    assert nodes["QNNExecutionProvider"] == 1
    found, on_cpu = np.load(tmp_path / "scores.npy"), run(quantized, images)
    assert np.abs(found - on_cpu).max() < 0.1 * on_cpu.std()


def test_the_files_of_two_generations_differ(quantized, process, tmp_path):
    for generation in ("73", "75"):
        process.compile(quantized, generation, tmp_path / f"{generation}.onnx")
    assert (tmp_path / "73.onnx").read_bytes() != (tmp_path / "75.onnx").read_bytes()


def test_a_generation_that_the_compiler_does_not_know_is_refused(quantized, process, tmp_path):
    out = tmp_path / "npu.onnx"
    with pytest.raises(StageError, match="asked for NPU generation 99 and compiled for 68"):
        process.compile(quantized, "99", out)
    assert not out.exists()


def test_a_broken_file_is_refused_and_leaves_nothing(process, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(BadInputError, match=r"broken\.onnx: cannot be compiled for the NPU"):
        process.compile(tmp_path / "broken.onnx", "75", tmp_path / "npu.onnx")
    assert not (tmp_path / "npu.onnx").exists()


def test_a_file_whose_nodes_all_stay_on_the_cpu_is_refused(quantized):
    with pytest.raises(BadInputError, match="took none of its nodes"):
        tidy_context(quantized, quantized)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(npu, "is_plugin", lambda provider: False)
    with pytest.raises(MissingError, match="not installed") as caught:
        require_npu_compiler()
    assert caught.value.exit_code == 3
    assert "install 'edgerecover[qnn]'" in caught.value.hint


def test_a_compiled_file_does_not_open_on_the_cpu_and_says_where_it_does(quantized, process, tmp_path):
    from edgerecover.runtime.session.onnxruntime import open_session

    process.compile(quantized, "75", Path(tmp_path / "npu.onnx"))
    with pytest.raises(BadInputError) as caught:
        open_session(tmp_path / "npu.onnx", ["CPUExecutionProvider"])
    assert "emulation of onnxruntime-qnn" in caught.value.hint

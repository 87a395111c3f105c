"""The int8 variant compiled for the generations of a target and judged in the emulation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgerecover.artifacts import Outcome, Precision, Race, Runner, Variant
from edgerecover.artifacts.int8 import SCHEMES
from edgerecover.config import Fact, load_profile, load_target
from edgerecover.errors import MissingError
from edgerecover.export.precision.graph import prepare, write
from edgerecover.export.precision.integers import quantize
from edgerecover.export.precision.ranges import scan
from edgerecover.report.npu import npu_lines
from edgerecover.runtime.session import npu as npu_process
from edgerecover.stages.npu import NpuFiles, compile_variants, require_npu, that_may_ship
from edgerecover.validation.scoring import Reference
from tests.export.precision.conftest import ImagesInMemory, random_images, residual, run
from tests.export.precision.conftest import save as save  # a fixture
from tests.pairs import measure_of_classes

PROFILE = load_profile("balanced")
TARGET = load_target("android-qnn")
TWO = TARGET.model_copy(update={"npu_generations": Fact(value=("69", "79"), source="choice: two")})


@pytest.fixture
def int8(save, tmp_path):
    float32 = save(residual(batch=1))
    graph = prepare(Path(float32.path))
    ranges = scan(graph, ImagesInMemory(random_images(16)), max_images=16, with_histograms=True)
    file = write(quantize(graph, ranges, SCHEMES["qnn"]), tmp_path / "int8.onnx", float32)
    return Variant(Precision.INT8, file, "int8", (), "")


def compiled(variants, target, tmp_path):
    folder = tmp_path / "engines"
    folder.mkdir(exist_ok=True)
    teacher = residual(batch=1)
    reference = Reference(lambda images: run(teacher, images), measure_of_classes(5))
    return compile_variants(
        variants, target, PROFILE, reference, ImagesInMemory(random_images(24, seed=2)),
        random_images(4, seed=3), folder,
    )  # fmt: skip


@pytest.fixture
def _qnn():
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed (Python 3.11 and later, x86-64)")


@pytest.mark.usefixtures("_qnn")
def test_each_generation_has_its_file_its_agreement_and_its_golden_check(int8, tmp_path):
    made = compiled([int8], TWO, tmp_path)
    assert sorted(made.files) == ["engines/int8.npu-v69.onnx", "engines/int8.npu-v79.onnx"]
    assert (made.unfit, made.notes) == ({}, ())
    for one in made.made:
        assert made.files[one.file].stat().st_size == one.size_bytes
        assert one.agreement.total == one.loss.num_images == 24
        assert one.agreement.value > 0.8
        assert one.golden.passed
        assert one.parity.mean_abs < 0.05 * one.parity.logit_scale
    assert [one.chip for one in made.made] == ["SM8450", "SM8750"]
    assert "golden check passed: 4 of 4 images decided alike" in npu_lines(made.made[0], measure_of_classes(5).words)


@pytest.mark.usefixtures("_qnn")
def test_a_file_that_the_npu_reads_otherwise_than_the_cpu_is_not_shipped(int8, tmp_path, monkeypatch):
    honest = npu_process.NpuProcess.score

    def misread(self, model, images, out):
        nodes = honest(self, model, images, out)
        np.save(out, np.roll(np.load(out), 1, axis=1))
        return nodes

    monkeypatch.setattr(npu_process.NpuProcess, "score", misread)
    made = compiled([int8], TWO, tmp_path)
    assert made.files == {}
    assert "the NPU reads the file otherwise than the CPU" in made.unfit[Precision.INT8]
    assert [note.partition(":")[0] for note in made.notes] == [
        "not shipped for NPU generation 69", "not shipped for NPU generation 79",
    ]  # fmt: skip
    assert npu_lines(made.made[0], measure_of_classes(5).words)[-1].startswith(
        "not shipped: the NPU reads the file otherwise"
    )


@pytest.mark.usefixtures("_qnn")
def test_an_unknown_generation_costs_its_own_file_alone(int8, tmp_path):
    target = TARGET.model_copy(update={"npu_generations": Fact(value=("75", "99"), source="choice: a test")})
    made = compiled([int8], target, tmp_path)
    assert list(made.files) == ["engines/int8.npu-v75.onnx"]
    assert made.unfit == {}
    assert "compiled for 68" in made.notes[0]


def test_without_int8_nothing_is_compiled_and_the_report_says_so(int8, tmp_path):
    made = compiled([replace(int8, precision=Precision.FP32)], TWO, tmp_path)
    assert "needs an int8 file" in made.notes[0]


def test_targets_without_an_npu_are_left_alone(int8, tmp_path):
    assert compiled([int8], load_target("x86-cpu"), tmp_path) == NpuFiles()
    require_npu(load_target("x86-cpu"))


def test_what_is_missing_is_said_before_hours_of_work(monkeypatch):
    monkeypatch.setattr(npu_process, "is_plugin", lambda provider: False)
    with pytest.raises(MissingError):
        require_npu(TARGET)


@pytest.mark.parametrize(("outcome", "ships"), [(Outcome.SLOWER, True), (Outcome.LOSES, False)])
def test_a_failing_int8_file_takes_what_was_compiled_from_it_along(outcome, ships):
    from edgerecover.artifacts.npu import NpuFile

    race = Race(on_target=False, runners=(Runner(Precision.INT8, "onnxruntime", outcome, ""),), twins=())
    npu = NpuFiles((NpuFile("75", "engines/a"),), {"engines/a": Path("a")})
    left = that_may_ship(npu, race)
    assert bool(left.files) is ships
    assert bool(left.made[0].file) is ships
    assert bool(left.notes) is not ships

"""What the benchmark makes of a runner's result; the emulation itself takes minutes."""

import dataclasses

import emulated_arm
import pytest

from edgerecover.artifacts import GoldenCheck, Precision, to_json
from edgerecover.artifacts.device import Tried
from edgerecover.runtime.machine.host import _cpu_info, _cpu_name, _isa


def test_decisions_are_shown_and_times_are_not():
    golden = GoldenCheck(16, 15, 1, 0.0991, 0.02, True, None)
    ran = Tried("variants/int8.onnx", Precision.INT8, "onnxruntime", golden=golden)
    failed = dataclasses.replace(ran, golden=None, error="MNN cannot open it")
    assert list(emulated_arm.rows({"tried": [to_json(ran), to_json(failed)]})) == [
        "variants/int8.onnx, onnxruntime | 15 of 16 (1 too close to call) | 9.9e-02 σ",
        "variants/int8.onnx, onnxruntime | MNN cannot open it | ",
    ]


@pytest.mark.parametrize(
    ("cpu", "name", "isa"),
    [("cortex-a72", "Cortex-A72", ("asimd",)), ("cortex-a76", "Cortex-A76", ("asimd", "asimdhp", "asimddp"))],
)
def test_the_processor_is_told_as_linux_tells_it(cpu, name, isa, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(emulated_arm.cpuinfo(cpu), encoding="utf-8")
    info = _cpu_info(tmp_path)
    assert (_cpu_name(info), _isa(info)) == (name, isa)

import dataclasses

import pytest

from edgerecover.artifacts import GateStatus, Host, Latency
from edgerecover.gate.drift import LEAST_RUNS, against_runs, student_quantile
from edgerecover.validation.limits import Limits
from edgerecover.validation.regressions import latency_gate

LIMITS = Limits("balanced", 0.6, 0.99, 0.01, 3.0, "pi", "CPUExecutionProvider")
LATENCY = Latency(
    "one call", "onnxruntime 1", "CPUExecutionProvider", {}, 1, 1, Host("x", "x", 1, "x"), False, (), (2.0,), 1.0, 0, 0
)  # fmt: skip


def run(level, memory=1_000_000):
    samples = tuple(level * (2.0 + 0.001 * (place % 7)) for place in range(300))
    return dataclasses.replace(LATENCY, samples_ms=samples, round_sizes=(10,) * 30, memory_peak_bytes=memory)


@pytest.mark.parametrize(("degrees", "quantile"), [(4, 3.747), (5, 3.365), (9, 2.821), (19, 2.539), (200, 2.345)])
def test_students_quantiles_are_those_of_the_tables(degrees, quantile):
    assert student_quantile(0.99, degrees) == pytest.approx(quantile, rel=0.005)


@pytest.mark.parametrize("slower", [1.0, 1.1, 2.0])
def test_one_stored_run_cannot_tell_a_tenth(slower):
    found = against_runs(run(slower), [run(1.0)])
    assert latency_gate(LIMITS, found).status is GateStatus.INCONCLUSIVE
    assert "1 of the 5 runs that tell" in found.how


def test_one_stored_run_tells_what_no_drift_makes():
    assert latency_gate(LIMITS, against_runs(run(12.0), [run(1.0)])).status is GateStatus.FAIL


@pytest.mark.parametrize(("slower", "status"), [(1.0, GateStatus.PASS), (1.15, GateStatus.FAIL)])
def test_enough_runs_of_a_steady_machine_tell(slower, status):
    runs = [run(level) for level in (0.995, 1.0, 1.01, 1.0, 1.005)]
    assert len(runs) == LEAST_RUNS
    found = against_runs(run(slower), runs)
    assert latency_gate(LIMITS, found).status is status
    assert "the spread of its 5 runs" in found.how


def test_enough_runs_of_a_restless_machine_do_not():
    runs = [run(level) for level in (0.8, 1.0, 1.2, 0.9, 1.1)]
    assert latency_gate(LIMITS, against_runs(run(1.1), runs)).status is GateStatus.INCONCLUSIVE


def test_memory_is_that_of_every_process():
    found = against_runs(run(1.0, 3_000_000), [run(1.0, memory) for memory in (1_000_000, 8_000_000, 2_000_000)])
    assert (found.memory_bytes, found.memory_before_bytes) == ((3_000_000,), (1_000_000, 8_000_000, 2_000_000))

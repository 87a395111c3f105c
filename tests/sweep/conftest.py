"""Sweep points with a quality, a size and a latency, and a sweep of them."""

import pytest

from edgerecover.artifacts import GateStatus, Host, Latency, PointFound, Precision, Proportion, Sweep, SweepPoint


def latency(median_ms, num_rounds=20):
    """Rounds that a busy machine slowed down alike, in whatever race."""
    rounds = [median_ms * (1 + 0.3 * (number % 3)) for number in range(num_rounds) for _ in range(3)]
    return Latency(
        scope="one call", runtime="onnxruntime 1", provider="CPUExecutionProvider", nodes_by_provider={}, num_threads=1,
        batch=1, host=Host("x86_64", "a CPU", 2, "Linux"), host_is_target=False, warmup_ms=(), samples_ms=tuple(rounds),
        load_ms=1.0, memory_before_bytes=0, memory_peak_bytes=0, round_sizes=(3,) * num_rounds,
    )  # fmt: skip


@pytest.fixture
def point():
    def point(name, hits, median_ms, size_bytes, pattern="unstructured", sparsity=0.5, profile="balanced"):
        return PointFound(
            SweepPoint(name, pattern, sparsity, profile),
            f"{name}.bundle",
            quality=Proportion(hits, 200),
            verdict=GateStatus.PASS,
            precision=Precision.FP32,
            size_bytes=size_bytes,
            latency=latency(median_ms) if median_ms else None,
        )

    return point


@pytest.fixture
def sweep_of():
    def sweep_of(*found):
        return Sweep("1", "2026-01-01T00:00:00+00:00", "net.pt", "toy", "agreement", "200 held-out dreams", "0", found)

    return sweep_of

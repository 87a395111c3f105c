from edgerecover.artifacts import DeviceResult, Gate, GateStatus, Host
from edgerecover.runner.text import as_text


def gate(status, message):
    return Gate("latency_p99", status, 9.0, 8.0, "at most", "ms", "target toy", message)


def result(*gates):
    return DeviceResult(
        "0.1.0", "2026-03-01T09:30:00+00:00", "net.bundle", "ab" * 32, "toy", Host("aarch64", "Orin", 6, "Linux"),
        True, "3.10.12", tried=(), fastest=None, gates=gates, stages=(), warnings=(),
    )  # fmt: skip


def test_the_messages_of_gates_are_aligned_and_fit_80_columns():
    text = as_text(result(gate(GateStatus.PASS, "fast " * 30), gate(GateStatus.INCONCLUSIVE, "unclear " * 30)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    (passed,) = (line for line in lines if line.startswith("  PASS"))
    (open_,) = (line for line in lines if line.startswith("  INCONCLUSIVE") and "unclear" in line)
    assert passed.index("fast") == open_.index("unclear")
    assert lines[-1].startswith("  INCONCLUSIVE 0 of 0 engines ready")

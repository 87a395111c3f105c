import pytest

from edgerecover.artifacts import GateStatus
from edgerecover.validation.limit import AT_LEAST, Limit

HIGHEST, LOWEST = Limit("latency_p99", 10.0, "ms", "target pi"), Limit("agreement", 85.0, "%", "profile x", AT_LEAST)


@pytest.mark.parametrize(
    ("limit", "interval", "status"),
    [
        (HIGHEST, (9.0, 10.0), GateStatus.PASS),
        (HIGHEST, (10.1, 12.0), GateStatus.FAIL),
        (HIGHEST, (9.0, 12.0), GateStatus.INCONCLUSIVE),
        (HIGHEST, (10.0,), GateStatus.PASS),
        (LOWEST, (85.0, 90.0), GateStatus.PASS),
        (LOWEST, (80.0, 84.9), GateStatus.FAIL),
        (LOWEST, (84.9, 85.0), GateStatus.INCONCLUSIVE),
        (LOWEST, (84.9,), GateStatus.FAIL),
    ],
)
def test_an_interval_is_settled_where_all_of_it_is_on_one_side(limit, interval, status):
    assert limit.status(*interval) is status


def test_a_gate_says_what_was_found_what_was_asked_and_what_to_do():
    gate = HIGHEST.judge(GateStatus.FAIL, 12.0, "latency p99 12 ms", more=", twice", fail="take less")
    assert gate.message == "latency p99 12 ms is above the 10 ms of target pi, twice: take less"
    assert (gate.name, gate.limit, gate.unit, gate.direction) == ("latency_p99", 10.0, "ms", "at most")
    gate = LOWEST.judge(GateStatus.PASS, 90.0, "agreement 90 %", fail="more steps")
    assert gate.message == "agreement 90 % meets the 85 % of profile x"

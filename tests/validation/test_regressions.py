import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.artifacts import (
    Accuracy,
    Comparison,
    Decisions,
    GateStatus,
    Host,
    Latency,
    Proportion,
    Ratio,
    Release,
    TaskKind,
    difference_interval,
)
from edgerecover.validation.limits import Limits
from edgerecover.validation.regressions import latency_gate, memory_gate, quality_gates

LIMITS = Limits("balanced", 0.6, 0.99, 0.01, 3.0, "pi", "CPUExecutionProvider")
RELEASE = Release(
    bundle="last.bundle",
    manifest_sha256="1" * 64,
    model_sha256="2" * 64,
    created_utc="2026-03-01T09:30:00+00:00",
    target="pi",
    profile="balanced",
    teacher_sha256="3" * 64,
    images="dreams",
    record_sha256=None,
    agreement=Proportion(900, 1000),
    decisions=Decisions("4" * 64, "1" * 900 + "0" * 100),
    accuracy=None,
    size_bytes=1_000_000,
)
LATENCY = Latency(
    "one call", "onnxruntime 1", "CPUExecutionProvider", {}, 1, 1, Host("x", "x", 1, "x"), False, (), (2.0,), 1.0, 0, 0
)  # fmt: skip


def release(**changes):
    return dataclasses.replace(RELEASE, **changes)


def agreeing(hits, images="4" * 64, shift=0):
    digits = "1" * hits + "0" * (1000 - hits)
    return release(
        agreement=Proportion(hits, 1000),
        decisions=Decisions(images, digits[-shift:] + digits[:-shift] if shift else digits),
    )


def gates(now, before=RELEASE, limits=LIMITS):
    return {gate.name: gate for gate in quality_gates(limits, now, before)}


def compared(low, value, high, memory=((10_000_000,) * 3,) * 2):
    return Comparison(LATENCY, LATENCY, Ratio(value, low, high), "in turns, 30 rounds", *memory)


@pytest.mark.parametrize(
    ("hits", "status"),
    [(900, GateStatus.PASS), (870, GateStatus.PASS), (850, GateStatus.INCONCLUSIVE), (800, GateStatus.FAIL)],
)
def test_agreement_on_the_same_images_is_compared_in_pairs(hits, status):
    gate = gates(agreeing(hits))["agreement_kept"]
    assert gate.status is status
    assert gate.measured == pytest.approx(100 * (900 - hits) / 1000)
    assert "the same 1,000 images" in gate.message


def test_images_that_count_in_part_are_compared_in_pairs_too():
    """The same network twice: without pairs, the interval would be that of two sets of images."""
    graded = release(agreement=Proportion(900, 1000), decisions=Decisions("4" * 64, "", (0.9,) * 1000))
    gate = gates(graded, before=graded)["agreement_kept"]
    assert gate.status is GateStatus.PASS
    assert "0.0 points (-0.3 to 0.3)" in gate.message


def test_a_gain_is_told_as_one():
    gate = gates(agreeing(930))["agreement_kept"]
    assert gate.status is GateStatus.PASS
    assert "agreement with the teacher 93.0 %, 3.0 points (" in gate.message
    assert ") above the baseline's 90.0 %" in gate.message


def test_on_other_images_of_the_same_kind_the_interval_is_wider():
    paired, other = (gates(agreeing(870, images))["agreement_kept"] for images in ("4" * 64, "5" * 64))
    assert paired.status is GateStatus.PASS
    assert other.status is GateStatus.INCONCLUSIVE
    assert "1,000 and 1,000 images" in other.message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"teacher_sha256": "9" * 64}, "teacher: 9999999999999999, was 3333333333333333"),
        ({"profile": "quality"}, "profile: quality, was balanced"),
        ({"images": "fractals"}, "images: fractals, was dreams"),
        ({"record_sha256": "7" * 64}, "record: 7777777777777777, was none"),
    ],
)
def test_agreement_on_images_of_another_kind_is_not_compared(change, named):
    gate = gates(release(**change))["agreement_kept"]
    assert (gate.status, gate.measured) == (GateStatus.SKIP, None)
    assert named in gate.message


def accuracy(hits, source="digits.npz", total=1000):
    digits = "1" * hits + "0" * (total - hits)
    kept = Proportion(hits, total)
    return Accuracy(source, total, Proportion(960, 1000), None, None, kept, 0, 0, decisions=Decisions(source, digits))


def test_accuracy_is_compared_where_both_saw_the_same_real_images():
    before = release(accuracy=accuracy(950))
    assert gates(release(accuracy=accuracy(945)), before)["accuracy_kept"].status is GateStatus.PASS
    worse = gates(release(accuracy=accuracy(900)), before)["accuracy_kept"]
    assert worse.status is GateStatus.FAIL
    assert "accuracy on digits.npz 90.0 %, 5.0 points" in worse.message
    others = gates(release(accuracy=accuracy(945, "letters.npz")), before)["accuracy_kept"]
    assert others.status is GateStatus.SKIP
    assert "1,000 of letters.npz, was 1,000 of digits.npz" in others.message


def test_accuracy_of_one_side_alone_is_not_compared():
    skipped = gates(release(accuracy=accuracy(950)))["accuracy_kept"]
    assert skipped.status is GateStatus.SKIP
    assert "the baseline was not judged on real images" in skipped.message
    assert "accuracy_kept" not in gates(RELEASE)


@pytest.mark.parametrize(("size", "status"), [(1_050_000, GateStatus.PASS), (1_050_001, GateStatus.FAIL)])
def test_size_is_compared_to_the_byte(size, status):
    assert gates(release(size_bytes=size))["size_regression"].status is status


def test_another_tasks_numbers_have_its_words():
    now = release(task=TaskKind.SEGMENTATION, accuracy=accuracy(900))
    said = " ".join(gate.message for gate in quality_gates(LIMITS, now, None))
    assert "mean IoU with the teacher is not compared" in said
    assert "mean IoU on real images is not compared" in said
    said = " ".join(gate.message for gate in quality_gates(LIMITS, now, now))
    assert "mean IoU with the teacher" in said
    assert "mean IoU on digits.npz 90.0 %" in said


def test_without_a_baseline_everything_is_skipped():
    found = quality_gates(LIMITS, RELEASE, None)
    assert {gate.status for gate in found} == {GateStatus.SKIP}
    assert [gate.name for gate in found] == ["agreement_kept", "size_regression"]


@pytest.mark.parametrize(
    ("interval", "status"),
    [
        ((0.98, 1.0, 1.03), GateStatus.PASS),
        ((0.98, 1.03, 1.051), GateStatus.INCONCLUSIVE),
        ((1.03, 1.06, 1.08), GateStatus.INCONCLUSIVE),
        ((1.051, 1.06, 1.08), GateStatus.FAIL),
    ],
)
def test_latency_is_judged_by_the_whole_interval(interval, status):
    assert latency_gate(LIMITS, compared(*interval)).status is status


def test_a_failed_gate_names_metric_measured_limit_direction_and_what_to_do():
    gate = latency_gate(LIMITS, compared(1.08, 1.1, 1.12))
    assert gate.measured == pytest.approx(10.0)
    assert (gate.limit, gate.direction, gate.unit, gate.source) == (5.0, "at most", "%", "profile balanced")
    assert gate.message.startswith(
        "latency p50 2 ms, 10.0 % (8.0 to 12.0) above the baseline's 2 ms (in turns, 30 rounds), is above the 5 % of "
        "profile balanced: `edgerecover bench"
    )


def test_a_limit_of_a_flag_names_the_flag():
    limits = LIMITS.changed({"max_latency_regression": 0.2}, "--max-latency-regression")
    gate = latency_gate(limits, compared(1.08, 1.1, 1.12))
    assert (gate.status, gate.limit, gate.source) == (GateStatus.PASS, 20.0, "--max-latency-regression")


@pytest.mark.parametrize(
    ("now", "before", "status"),
    [
        ([12_500_000] * 3, [10_000_000] * 3, GateStatus.PASS),
        ([12_600_000] * 3, [10_000_000] * 3, GateStatus.FAIL),
        ([12_600_000] * 3, [10_000_000, 10_000_000, 10_200_000], GateStatus.INCONCLUSIVE),
        ([10_000_000, 10_000_000, 90_000_000], [10_000_000] * 3, GateStatus.PASS),
        ([12_600_000], [10_000_000], GateStatus.INCONCLUSIVE),
        ([20_000_000], [10_000_000], GateStatus.FAIL),
        ([1_400_000], [0], GateStatus.PASS),
        ([2_000_000], [0], GateStatus.FAIL),
    ],
)
def test_memory_may_differ_by_what_processes_do(now, before, status):
    assert memory_gate(LIMITS, compared(1, 1, 1, (tuple(now), tuple(before)))).status is status


@given(
    st.tuples(st.integers(0, 300), st.integers(1, 300)).filter(lambda pair: pair[0] <= pair[1]),
    st.tuples(st.integers(0, 300), st.integers(1, 300)).filter(lambda pair: pair[0] <= pair[1]),
)
def test_an_unpaired_interval_holds_the_difference_and_turns_with_its_sides(first, second):
    a, b = Proportion(*first), Proportion(*second)
    low, high = difference_interval(a, b)
    assert -1 <= low <= a.value - b.value + 1e-9
    assert a.value - b.value - 1e-9 <= high <= 1
    assert difference_interval(b, a) == pytest.approx((-high, -low))


def test_the_unpaired_interval_is_that_of_the_paper():
    # Newcombe 1998, table II, method 10: 56/70 and 48/80.
    assert difference_interval(Proportion(56, 70), Proportion(48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.artifacts import (
    Accuracy,
    Exported,
    Fidelity,
    GateStatus,
    GoldenCheck,
    Host,
    KeptZeros,
    Latency,
    Parity,
    PrecisionLoss,
    Proportion,
    TaskKind,
    TwoFour,
    to_json,
)
from edgerecover.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from edgerecover.validation.gates import Measured, exit_code, golden_gate, judge
from edgerecover.validation.limits import Limits

CPU = "CPUExecutionProvider"
LIMITS = Limits("balanced", 0.85, 0.99, 0.01, 2.0, "pi", CPU, max_p99_ms=10.0, max_file_mb=2.0, max_memory_mb=50)
HOST = Host("aarch64", "Cortex-A76", 4, "Linux 6.6", "Raspberry Pi 5 Model B")
LATENCY = Latency(
    scope="one call",
    runtime="onnxruntime 1",
    provider=CPU,
    nodes_by_provider={CPU: 5},
    num_threads=4,
    batch=1,
    host=HOST,
    host_is_target=True,
    warmup_ms=(9.0,),
    samples_ms=(2.0,) * 990 + (3.0,) * 10,
    load_ms=1.0,
    memory_before_bytes=50_000_000,
    memory_peak_bytes=60_000_000,
)
ALL_KEPT = KeptZeros(num_regrown=0, in_file={}, missing=(), computed=())
MEASURED = Measured(
    fidelity=Fidelity(Proportion(300, 1000), Proportion(950, 1000), Proportion(950, 1000)),
    parity=Parity(1000, 1e-5, 1e-6, 2.0, 1.0),
    zeros=ALL_KEPT,
    exported=Exported("model.onnx", "0" * 64, 1_000_000, 18, "dynamo", 1, 250_000, 62_500),
    latency=LATENCY,
)


def gates(limits=LIMITS, **changes):
    return {gate.name: gate for gate in judge(limits, dataclasses.replace(MEASURED, **changes))}


def test_every_gate_of_another_task_speaks_of_what_it_measures():
    found = gates(
        task=TaskKind.SEGMENTATION,
        accuracy=accuracy(900, 890, 15.5, 5.5),
        precision_loss=PrecisionLoss(1000, 3.0, 1.5, 12.0),
    )
    assert (
        "recovered: mean IoU with the teacher 95.0 % on held-out images, at least"
        in found["not_worse_than_input"].message
    )
    assert "mean IoU with PyTorch 100.00 % on 1000 images" in found["parity_top1"].message
    assert "exported: mean IoU 89.0 % on real images (digits.npz)" in found["not_worse_on_real"].message
    assert found["accuracy_drop"].message.startswith("mean IoU on digits.npz 89.0 %")
    assert "of mean IoU with the teacher against float32" in found["precision_loss"].message
    assert "answers differ by 1.2 %" in found["precision_loss"].message
    said = " ".join(gate.message for gate in found.values())
    assert not any(word in said for word in ("accuracy", "decides", "decisions", "agreement", "agrees", "is right"))


def test_values_are_not_called_logits():
    assert gates(task=TaskKind.REGRESSION)["parity_logits"].message.startswith("largest value difference to PyTorch")


def test_golden_answers_of_another_task():
    golden = GoldenCheck(8, 8, 0, 1e-6, 1e-3, True, task=TaskKind.EMBEDDING)
    assert golden_gate(golden).message.startswith("answers as the bundle says on 8 of 8")
    assert golden_gate(dataclasses.replace(golden, task=TaskKind.BINARY)).message.startswith("decides as")


def accuracy(teacher, exported, teacher_only, exported_only, total=1000):
    rest = Proportion(exported, total)
    return Accuracy("digits.npz", total, Proportion(teacher, total), rest, rest, rest, teacher_only, exported_only)


def test_a_good_run_passes_every_gate_in_report_order():
    found = gates(accuracy=accuracy(950, 945, 6, 1))
    assert list(found) == [
        "agreement",
        "not_worse_than_input",
        "mask_kept",
        "parity_top1",
        "parity_logits",
        "not_worse_on_real",
        "accuracy_drop",
        "latency_p99",
        "memory",
        "file_size",
    ]
    assert {gate.status for gate in found.values()} == {GateStatus.PASS}
    json.dumps(to_json(list(found.values())), allow_nan=False)


@pytest.mark.parametrize(
    ("hits", "status"), [(900, GateStatus.PASS), (852, GateStatus.INCONCLUSIVE), (700, GateStatus.FAIL)]
)
def test_agreement_is_settled_by_its_interval(hits, status):
    fidelity = Fidelity(Proportion(300, 1000), Proportion(hits, 1000), Proportion(hits, 1000))
    assert gates(fidelity=fidelity)["agreement"].status is status


def test_a_failed_agreement_says_what_was_asked_found_and_what_to_do():
    fidelity = Fidelity(Proportion(300, 1000), Proportion(812, 1000), Proportion(812, 1000))
    gate = gates(fidelity=fidelity)["agreement"]
    assert gate.message == (
        "agreement with the teacher 81.2 % (78.7–83.5) is below the 85 % of profile balanced: "
        "try --profile quality, or a lower sparsity"
    )
    assert (gate.measured, gate.limit, gate.unit, gate.direction) == (81.2, 85.0, "%", "at least")
    best = dataclasses.replace(LIMITS, profile="quality")
    assert "--profile" not in gates(best, fidelity=fidelity)["agreement"].message


def test_a_student_of_another_architecture_is_not_called_pruned():
    fidelity = Fidelity(Proportion(300, 1000), Proportion(812, 1000), Proportion(812, 1000))
    found = gates(fidelity=fidelity, accuracy=accuracy(950, 700, 260, 10), same_architecture=False)
    assert "at least the 30.0 % of the student as it came" in found["not_worse_than_input"].message
    for name in ("agreement", "accuracy_drop"):
        assert "sparsity" not in found[name].message
        assert "recovery.num_steps" in found[name].message


@given(st.integers(0, 2000), st.floats(0, 1))
def test_a_proportion_never_passes_below_nor_fails_above_its_limit(hits, limit):
    share = Proportion(hits, 2000)
    fidelity = Fidelity(share, share, share)
    status = gates(dataclasses.replace(LIMITS, min_agreement=limit), fidelity=fidelity)["agreement"].status
    if status is GateStatus.PASS:
        assert share.value >= limit - 1e-12
    if status is GateStatus.FAIL:
        assert share.value < limit


@pytest.mark.parametrize(
    ("recovered", "status"), [(300, GateStatus.PASS), (295, GateStatus.INCONCLUSIVE), (200, GateStatus.FAIL)]
)
def test_recovery_must_not_be_worse_than_its_input(recovered, status):
    fidelity = Fidelity(Proportion(300, 1000), Proportion(recovered, 1000), Proportion(900, 1000))
    assert gates(fidelity=fidelity)["not_worse_than_input"].status is status


@pytest.mark.parametrize(
    ("exported", "status"), [(700, GateStatus.PASS), (690, GateStatus.INCONCLUSIVE), (600, GateStatus.FAIL)]
)
def test_dreams_cannot_hide_a_loss_on_real_images(exported, status):
    judged = dataclasses.replace(accuracy(950, exported, 300, 1), pruned=Proportion(700, 1000))
    gate = gates(accuracy=judged)["not_worse_on_real"]
    assert gate.status is status
    assert "real images (digits.npz)" in gate.message


def test_one_weight_back_from_zero_fails():
    gate = gates(zeros=dataclasses.replace(ALL_KEPT, num_regrown=1))["mask_kept"]
    assert gate.status is GateStatus.FAIL
    assert gate.message.startswith("1 pruned weights are no longer zero")


def test_weights_that_are_not_zero_in_the_file_fail_with_the_layers_and_the_cause():
    in_file = dataclasses.replace(ALL_KEPT, in_file={"conv.weight": 1000, "fc.weight": 2})
    gate = gates(zeros=in_file)["mask_kept"]
    assert (gate.status, gate.measured) == (GateStatus.FAIL, 1002)
    assert gate.message.startswith("1,002 pruned weights of conv.weight, fc.weight are not zero in the exported file")
    assert "a fault of edgerecover" in gate.message
    assert "recover it under its mask" in gates(zeros=in_file, is_from_elsewhere=True)["mask_kept"].message
    computed = dataclasses.replace(in_file, computed=("conv.weight", "fc.weight"))
    assert "weight standardisation" in gates(zeros=computed, is_from_elsewhere=True)["mask_kept"].message


def test_weights_that_are_not_in_the_file_settle_nothing():
    gate = gates(zeros=dataclasses.replace(ALL_KEPT, missing=("a", "b", "c", "d")))["mask_kept"]
    assert gate.status is GateStatus.INCONCLUSIVE
    assert gate.message.startswith("the weights of a, b, c and 1 more were not found in the exported file")


def test_parity_is_judged_on_decisions_and_on_logits():
    found = gates(parity=Parity(100, 0.5, 0.1, 2.0, 0.98))
    assert found["parity_top1"].status is GateStatus.FAIL
    assert found["parity_logits"].status is GateStatus.FAIL
    assert "opset" in found["parity_logits"].message


def test_parity_of_the_worst_output_is_not_called_a_weighted_mean():
    age, kind = Parity(100, 0.5, 0.1, 2.0, 0.98), Parity(100, 1e-5, 1e-6, 2.0, 1.0)
    both = dataclasses.replace(age, by_output={"kind": kind, "age": age})
    found = gates(task=TaskKind.SEVERAL, parity=both)["parity_top1"]
    assert found.message.startswith("output age of the exported file: agreement with PyTorch 98.00 % on 100 images")


def test_logits_without_scale_fail_with_a_number_json_holds():
    gate = gates(parity=Parity(100, 1.0, 1.0, 0.0, 1.0))["parity_logits"]
    assert gate.status is GateStatus.FAIL
    json.dumps(to_json(gate), allow_nan=False)


@pytest.mark.parametrize(
    ("lost", "won", "status"),
    [
        (20, 15, GateStatus.PASS),
        (60, 40, GateStatus.INCONCLUSIVE),
        (80, 10, GateStatus.FAIL),
        (0, 30, GateStatus.PASS),
    ],
)
def test_the_drop_is_judged_on_pairs(lost, won, status):
    gate = gates(accuracy=accuracy(900, 900 - lost + won, lost, won))["accuracy_drop"]
    assert gate.status is status
    assert gate.measured == pytest.approx((lost - won) / 10)
    assert gate.unit == "points"


@pytest.mark.parametrize(
    ("samples_ms", "status"),
    [
        ((12.0,) * 1000, GateStatus.FAIL),
        ((2.0,) * 990 + (30.0,) * 10, GateStatus.INCONCLUSIVE),
        ((9.9,) * 1000, GateStatus.PASS),
    ],
)
def test_latency_on_the_target_is_settled_by_the_interval_of_p99(samples_ms, status):
    latency = dataclasses.replace(LATENCY, samples_ms=samples_ms)
    assert gates(latency=latency)["latency_p99"].status is status


def test_another_machine_settles_no_limit_of_the_target_but_the_file_size():
    latency = dataclasses.replace(
        LATENCY, host_is_target=False, host=Host("x86_64", "Ryzen", 8, "Linux"), samples_ms=(99.0,) * 200
    )
    found = gates(latency=latency, exported=dataclasses.replace(MEASURED.exported, size_bytes=3_000_000))
    for name in ("latency_p99", "memory"):
        assert found[name].status is GateStatus.NEEDS_DEVICE
        assert found[name].message.startswith("host ")
        assert "measuring on pi" in found[name].message
    assert "host latency p99 99.00 ms" in found["latency_p99"].message
    assert found["file_size"].status is GateStatus.FAIL


def test_the_target_without_its_provider_settles_nothing():
    limits = dataclasses.replace(LIMITS, provider="TensorrtExecutionProvider")
    gate = gates(limits)["latency_p99"]
    assert gate.status is GateStatus.NEEDS_DEVICE
    assert "run by CPUExecutionProvider and not by the target's TensorrtExecutionProvider" in gate.message


def test_no_limit_no_gate():
    limits = dataclasses.replace(LIMITS, max_p99_ms=None, max_file_mb=None, max_memory_mb=None)
    assert list(gates(limits))[-1] == "parity_logits"


def test_exit_codes():
    assert exit_code(GateStatus.PASS) == EXIT_PASS
    assert exit_code(GateStatus.NEEDS_DEVICE) == EXIT_PASS
    assert exit_code(GateStatus.FAIL) == EXIT_GATE_FAILED
    assert exit_code(GateStatus.INCONCLUSIVE) == EXIT_INCONCLUSIVE


def test_two_four_in_the_file_is_judged_with_the_mask():
    kept = gates(two_four=TwoFour(num_layers=7, num_dense_groups=0))["mask_kept"]
    assert kept.status is GateStatus.PASS
    assert "all 7 layers" in kept.message
    broken = gates(
        zeros=dataclasses.replace(ALL_KEPT, num_regrown=2), two_four=TwoFour(num_layers=7, num_dense_groups=3)
    )["mask_kept"]
    assert broken.status is GateStatus.FAIL
    assert broken.measured == 5
    assert "3 groups of four" in broken.message


def test_a_file_from_elsewhere_is_judged_by_what_there_is_to_compare_with():
    alone = Fidelity(None, None, Proportion(950, 1000))
    found = gates(fidelity=alone, parity=None, zeros=None, is_from_elsewhere=True)
    assert list(found) == ["agreement", "latency_p99", "memory", "file_size"]
    worse = Fidelity(Proportion(990, 1000), None, Proportion(900, 1000))
    gate = gates(fidelity=worse, is_from_elsewhere=True)["not_worse_than_input"]
    assert gate.status is GateStatus.FAIL
    assert gate.message.startswith("the file agrees")


@pytest.mark.parametrize(
    ("lost", "won", "status"),
    [
        (10, 0, GateStatus.PASS),
        (11, 0, GateStatus.INCONCLUSIVE),
        (30, 0, GateStatus.FAIL),
        (30, 25, GateStatus.PASS),
        (70, 55, GateStatus.INCONCLUSIVE),
        (0, 5, GateStatus.PASS),
    ],
)
def test_lower_precision_may_cost_a_point_of_agreement(lost, won, status):
    gate = gates(precision_loss=PrecisionLoss(1000, lost, won, lost + won + 3))["precision_loss"]
    assert gate.status is status
    assert gate.measured == pytest.approx((lost - won) / 10)
    assert f"{lost + won + 3} of 1000 decisions changed" in gate.message


def test_float32_has_no_loss_of_precision_to_judge():
    assert "precision_loss" not in gates()


def test_a_runtime_beside_the_target_s_own_settles_its_limits():
    latency = dataclasses.replace(LATENCY, runtime="openvino 2026.4", provider="CPU")
    assert gates(latency=latency)["latency_p99"].status is GateStatus.NEEDS_DEVICE
    limits = dataclasses.replace(LIMITS, runtimes=("openvino",))
    found = {gate.name: gate for gate in judge(limits, dataclasses.replace(MEASURED, latency=latency))}
    assert found["latency_p99"].status is not GateStatus.NEEDS_DEVICE

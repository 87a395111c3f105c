import copy

import pytest
import torch

from edgerecover.artifacts import Descent
from edgerecover.config import Blockwise
from edgerecover.pruning import apply_masks
from edgerecover.recovery import ladder
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.judge import CalibrationJudge
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.logits import logits_on
from tests.pairs import pair_of


def agreement(network, teacher, images, cpu):
    return float(
        (logits_on(network, images, cpu).argmax(1) == logits_on(teacher, images, cpu).argmax(1)).float().mean()
    )


@pytest.fixture
def climb(student_and_masks, teacher, sets, recovery, cpu):
    def climb(student=None, watch=lambda _name, _student: None, **changes):
        given, masks = student_and_masks
        settings = recovery.model_copy(update=changes)
        return recover(pair_of(student or given, teacher, masks), sets, settings, Execution(cpu), seed=0, watch=watch)

    return climb


def names(recovered):
    return [rung.name for rung in recovered.rungs]


def chosen(recovered):
    (rung,) = [rung for rung in recovered.rungs if rung.chosen]
    return rung


def test_each_rung_is_measured_and_the_best_is_handed_back(climb, student_and_masks, teacher, sets, cpu):
    recovered = climb()
    assert names(recovered) == ["pruned", "statistics repair", "distillation"]
    best = chosen(recovered)
    assert best.agreement == max(rung.agreement for rung in recovered.rungs)
    assert best.agreement > recovered.rungs[0].agreement + 0.2
    assert best.agreement == pytest.approx(agreement(recovered.student, teacher, sets.calibration, cpu))
    assert [rung.seconds > 0 for rung in recovered.rungs] == [False, True, True]


def test_who_watches_gets_the_student_of_every_rung(climb, teacher, sets, cpu):
    watched = []
    recovered = climb(
        watch=lambda name, student: watched.append((name, agreement(student, teacher, sets.calibration, cpu)))
    )
    assert watched == [(rung.name, pytest.approx(rung.agreement)) for rung in recovered.rungs]


def test_least_squares_is_a_rung_of_its_own(climb):
    recovered = climb(layerwise=True, num_steps=0)
    assert names(recovered) == ["pruned", "statistics repair", "layer-wise least squares"]
    assert recovered.rungs[2].seconds > 0
    assert recovered.rungs[2].agreement > recovered.rungs[1].agreement


BLOCKWISE = Blockwise(num_steps=20, batch_size=16, lr=1e-2)


def test_block_wise_reconstruction_is_a_rung_of_its_own(climb):
    recovered = climb(layerwise=True, blockwise=BLOCKWISE, num_steps=0)
    assert names(recovered)[-1] == "block-wise reconstruction"
    assert recovered.rungs[3].seconds > 0
    assert recovered.rungs[3].kl < recovered.rungs[1].kl
    off = climb(layerwise=True, blockwise=BLOCKWISE.model_copy(update={"num_steps": 0}), num_steps=0)
    assert names(off)[-1] == "layer-wise least squares"


def test_it_starts_from_the_best_rung(climb, monkeypatch):
    started = []
    monkeypatch.setattr(ladder, "fit_layers", lambda pair, *_: pair.student[-1].weight.fill_(7.0))
    monkeypatch.setattr(
        ladder, "reconstruct_blocks", lambda pair, *_, **__: started.append(pair.student[-1].weight.clone())
    )
    recovered = climb(layerwise=True, blockwise=BLOCKWISE, num_steps=0)
    assert chosen(recovered).name == "statistics repair"
    assert torch.equal(started[0], recovered.student[-1].weight)


def test_recovery_helps_on_real_images_that_nothing_has_seen(climb, student_and_masks, real_images):
    images, labels = real_images
    before, after = (
        float((network(images).argmax(1) == labels).float().mean())
        for network in (student_and_masks[0], climb().student)
    )
    assert before < 0.5
    assert after > 0.85


def test_masks_are_kept_whichever_rung_wins(climb, student_and_masks):
    _, masks = student_and_masks
    for recovered in (climb(), climb(num_steps=0), climb(repair_statistics=False, num_steps=0), climb(layerwise=True)):
        weights = dict(recovered.student.named_parameters())
        assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())


def test_a_damaging_rate_is_not_handed_back(climb, student_and_masks, teacher, sets, cpu):
    recovered = climb(optimizer="adam", lr=1.0, schedule="constant", num_steps=8, bn="frozen", feature_weight=0.0)
    distilled, best = recovered.rungs[-1], chosen(recovered)
    assert distilled.agreement < recovered.rungs[1].agreement
    assert best.name == "statistics repair"
    assert agreement(recovered.student, teacher, sets.calibration, cpu) == pytest.approx(best.agreement)


def test_a_student_that_needs_nothing_comes_back_as_it_was(climb, teacher):
    """The dense network is its own best student: nothing beats it, and equal is not better."""
    student = copy.deepcopy(teacher)
    recovered = climb(student, lr=0.3, num_steps=3, repair_statistics=False)
    assert chosen(recovered).name == "pruned"
    assert chosen(recovered).agreement == 1.0
    assert chosen(recovered).kl == pytest.approx(0, abs=1e-6)


def test_a_rung_that_cannot_be_told_from_the_one_before_is_not_taken_and_named(teacher, sets, cpu):
    """One image won by chance is no reason to change a student."""
    ladder = CalibrationJudge(pair_of(teacher, teacher), sets.calibration, Execution(cpu), is_guided=True)
    for name, num_wrong in {"came": 10, "one won": 9, "many won": 2, "one won again": 1}.items():
        ladder.consider(name, _WrongOn(teacher, num_wrong), 0.0)
    assert [rung.chosen for rung in ladder.rungs()] == [False, False, True, False]
    assert ladder.doubts() == (
        "many won is kept: 64 calibration images cannot tell it from one won again; more images could "
        "(synthesis.num_calibration)",
    )


def test_no_rung_below_an_earlier_one_is_taken(teacher, sets, cpu):
    """However much better than the student as it came: each is compared with the best so far."""
    ladder = CalibrationJudge(pair_of(teacher, teacher), sets.calibration, Execution(cpu), is_guided=True)
    for name, num_wrong in {"came": 60, "repaired": 5, "ruined": 30}.items():
        ladder.consider(name, _WrongOn(teacher, num_wrong), 0.0)
    assert [rung.chosen for rung in ladder.rungs()] == [False, True, False]
    assert ladder.doubts() == ()


class _WrongOn(torch.nn.Module):
    """Decides as a network does, but on the first so many images of a set."""

    def __init__(self, network, num_wrong):
        super().__init__()
        self.network, self.num_wrong = network, num_wrong

    def forward(self, images):
        logits = self.network(images).clone()
        logits[: self.num_wrong] = logits[: self.num_wrong].roll(1, dims=1)
        return logits


@pytest.mark.parametrize("has_norms", [True, False])
def test_dreams_learnt_by_heart_do_not_count_where_no_statistics_guide_them(
    has_norms, teacher, teacher_without_bn, sets, cpu
):
    judge = teacher if has_norms else teacher_without_bn
    ladder = CalibrationJudge(pair_of(judge, judge), sets.calibration, Execution(cpu), is_guided=has_norms)
    ladder.consider("came", _WrongOn(judge, 16), 0.0)
    ladder.consider("by heart", _RightOnlyOn(judge, len(sets.calibration)), 0.0)
    assert ladder.rungs()[1].agreement == 1.0
    assert [rung.chosen for rung in ladder.rungs()] == [not has_norms, has_norms]


class _RightOnlyOn(torch.nn.Module):
    """Decides as a network does on batches of one size, and gives another class on all others."""

    def __init__(self, network, batch_size):
        super().__init__()
        self.network, self.batch_size = network, batch_size

    def forward(self, images):
        logits = self.network(images)
        return logits if len(images) == self.batch_size else logits.roll(1, dims=1)


def test_outputs_that_are_not_numbers_win_nothing(climb, student_and_masks, teacher, sets, cpu):
    """An argmax over NaN is class 0, which can agree by chance more often than a student stuck on another class."""
    student, _ = student_and_masks
    student[11].weight.zero_()
    student[11].bias.fill_(float("nan"))
    recovered = climb(student, repair_statistics=False, num_steps=0)
    assert recovered.rungs[0].agreement == 0.0
    assert recovered.rungs[0].kl == 1e9


def test_steps_that_the_settings_leave_out_are_not_rungs(climb):
    assert names(climb(repair_statistics=False, num_steps=0)) == ["pruned"]
    assert names(climb(num_steps=0)) == ["pruned", "statistics repair"]
    assert names(climb(repair_statistics=False, num_steps=1)) == ["pruned", "distillation"]


def test_student_and_teacher_are_not_changed(climb, student_and_masks, teacher):
    student, _ = student_and_masks
    before = [copy.deepcopy(network.state_dict()) for network in (student, teacher)]
    recovered = climb(num_steps=3)
    for network, state in zip((student, teacher), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert recovered.student is not student
    assert not recovered.student.training
    assert not any(parameter.requires_grad for parameter in recovered.student.parameters())


def test_a_student_without_batch_norm_is_recovered(
    student_and_masks_without_bn, teacher_without_bn, sets, recovery, cpu
):
    student, masks = student_and_masks_without_bn
    recovered = recover(pair_of(student, teacher_without_bn, masks), sets, recovery, Execution(cpu), seed=0)
    assert names(recovered) == ["pruned", "distillation"]
    assert chosen(recovered).name == "distillation"
    assert chosen(recovered).agreement > recovered.rungs[0].agreement


def test_divergence_costs_a_rung_and_not_the_run(climb):
    recovered = climb(optimizer="sgd", lr=1e12)
    assert names(recovered)[-1] == "distillation (diverged)"
    assert chosen(recovered).name == "statistics repair"
    assert all(bool(value.isfinite().all()) for value in recovered.student.state_dict().values())
    assert "and stopped there" in recovered.warnings[-1]


def test_logits_on_a_set_are_those_of_one_batch(teacher, sets, cpu):
    expected = teacher(torch.from_numpy(sets.train.images_of(range(len(sets.train)))))
    torch.testing.assert_close(logits_on(teacher, sets.train, cpu), expected)


def test_a_student_that_others_trained_comes_back_as_it_came(climb, fine_tuned):
    recovered = climb(fine_tuned)
    assert recovered.lineage.descent is Descent.TRAINED
    assert names(recovered) == ["as it came (fine-tuned)"]
    assert chosen(recovered) == recovered.rungs[0]
    expected = fine_tuned.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in recovered.student.state_dict().items())
    assert recovered.student is not fine_tuned


def test_who_knows_better_has_it_recovered(climb, fine_tuned):
    recovered = climb(fine_tuned, fine_tuned="recover")
    assert recovered.lineage.descent is Descent.TRAINED
    assert names(recovered) == ["pruned", "statistics repair", "distillation"]


def test_a_copy_of_the_teacher_is_recovered_and_said_to_be_one(climb):
    assert climb(num_steps=0).lineage.descent is Descent.COPIED


def test_random_weights_are_trained(climb, teacher, student_and_masks):
    """There is nothing to lose: its weights are its own, and it knows no class."""
    torch.manual_seed(0)
    student, masks = student_and_masks
    for module in student.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    apply_masks(student, masks)
    recovered = climb(student)
    assert recovered.lineage.descent is Descent.TRAINED
    assert chosen(recovered).name == "distillation"


def test_logits_that_come_surely_nearer_are_a_gain_where_no_decision_is_left_to_win(teacher, sets, cpu):
    far = torch.nn.Sequential(teacher, torch.nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        far[1].weight.copy_(0.2 * torch.eye(4))
    ladder = CalibrationJudge(pair_of(teacher, teacher), sets.calibration, Execution(cpu), is_guided=True)
    ladder.consider("came", far, 0.0)
    ladder.consider("nearer", teacher, 0.0)
    assert [rung.agreement for rung in ladder.rungs()] == [1.0, 1.0]
    assert [rung.chosen for rung in ladder.rungs()] == [False, True]

"""What holds for the objective of every task."""

import pytest
import torch

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective import objective_of


@pytest.mark.parametrize("task", [task for task in TaskKind if task is not TaskKind.SEVERAL])
def test_every_task_has_an_objective(task):
    output = OutputSpec(task, {TaskKind.SEGMENTATION: (1, 2, 2), TaskKind.DETECTION: (5, 6)}.get(task, (2,)))
    assert objective_of(output).output is output


@pytest.mark.parametrize("temperature", [1, 4])
def test_the_teachers_own_outputs_cost_nothing_and_others_the_more(objective, outputs, temperature):
    teacher, erring = outputs
    costs = [objective.costs(teacher + factor * (erring - teacher), teacher, temperature) for factor in (0, 0.3, 1)]
    assert costs[0].shape == (8,)
    torch.testing.assert_close(costs[0], torch.zeros(8), atol=1e-6, rtol=0)
    assert costs[0].mean() < costs[1].mean() < costs[2].mean()
    assert (costs[2] > 0).all()


def test_steps_down_the_gradient_bring_a_student_to_its_teacher(objective, outputs):
    teacher, student = outputs[0], outputs[1].requires_grad_()
    before = objective.costs(student, teacher, 2).mean()
    (gradient,) = torch.autograd.grad(before, student)
    assert gradient.isfinite().all()
    assert objective.costs(student - 0.1 * gradient, teacher, 2).mean() < before


def test_disagreement_is_bounded(objective, outputs):
    teacher, student = outputs
    assert objective.disagreement(teacher, teacher) < 1e-5
    assert 0 < objective.disagreement(teacher, student) < objective.disagreement(teacher, -9 * teacher) < 1


@pytest.mark.parametrize("has_targets", [True, False])
def test_outputs_can_follow_the_guide(objective, outputs, has_targets):
    student = outputs[0].requires_grad_()
    has_targets = has_targets and objective.num_targets > 0
    targets_N = torch.arange(8) % objective.num_targets if has_targets else None
    before = objective.guide(student, targets_N, 2.0)
    (gradient,) = torch.autograd.grad(before, student)
    after = objective.guide(student - 0.1 * gradient, targets_N, 2.0)
    assert after < before or (not objective.num_targets and before == after == 0)
    assert gradient.any() == (objective.num_targets > 0)


def test_sure_outputs_have_no_entropy(objective, outputs):
    assert objective.guide(1e5 * outputs[0], None, 1.0) < 1e-3
    if objective.num_targets:
        assert objective.guide(outputs[0], None, 1.0) > 0.05


def test_targets_are_numbers_below_their_count(objective, outputs):
    targets_N = objective.targets_of(outputs[0])
    if targets_N is None:
        return
    assert targets_N.shape == (8,)
    assert targets_N.dtype == torch.int64
    assert targets_N.min() >= 0
    assert targets_N.max() < objective.num_targets
    # No other target is nearer.
    nearest = objective.guide(outputs[0], targets_N, 1.0)
    for step in range(1, objective.num_targets):
        assert objective.guide(outputs[0], (targets_N + step) % objective.num_targets, 1.0) > nearest


def test_margins_of_alike_networks_correlate_and_of_others_do_not(objective):
    generator = torch.Generator().manual_seed(1)
    reference, other = (2 * torch.randn(200, objective.output.num_values, generator=generator) for _ in range(2))
    plain = objective.margins(reference, reference)

    def correlation(outputs):
        margins = objective.margins(outputs, reference)
        assert margins.shape == plain.shape
        return float((plain * margins).sum() / (plain.norm() * margins.norm()))

    assert correlation(reference) == pytest.approx(1, abs=1e-5)
    assert correlation(reference + 0.1 * other) > 0.95
    assert abs(correlation(other)) < 0.2


def test_mirroring_twice_changes_nothing(objective, outputs):
    once = objective.mirrored(outputs[0])
    torch.testing.assert_close(objective.mirrored(once), outputs[0])
    assert torch.equal(once, outputs[0]) == (not objective.is_positional)

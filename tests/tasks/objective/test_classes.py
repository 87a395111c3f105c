import pytest
import torch
import torch.nn.functional as F

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective import objective_of

ONE_LABEL = objective_of(OutputSpec(TaskKind.ONE_LABEL, (3,)))
BINARY = objective_of(OutputSpec(TaskKind.BINARY, (1,)))


def test_targets_are_classes():
    assert (ONE_LABEL.num_targets, BINARY.num_targets) == (3, 2)
    assert ONE_LABEL.targets_of(torch.tensor([[0.0, 2, 1]])).tolist() == [1]
    assert BINARY.targets_of(torch.tensor([[-1.0], [1.0]])).tolist() == [0, 1]


def test_a_softened_guide_goes_on_after_the_class_is_decided():
    logits = torch.tensor([[0.0, 9, 0]])
    assert ONE_LABEL.guide(logits, torch.tensor([1]), 4.0) > 100 * ONE_LABEL.guide(logits, torch.tensor([1]), 1.0)


def test_one_logit_costs_what_binary_cross_entropy_does():
    logit = torch.tensor([[0.7]])
    for target in (0, 1):
        expected = F.binary_cross_entropy_with_logits(logit, torch.tensor([[float(target)]]))
        assert BINARY.guide(logit, torch.tensor([target]), 1.0) == pytest.approx(float(expected))


def test_costs_are_divergences():
    certain, uniform = torch.tensor([[40.0, 0, 0]]), torch.zeros(1, 3)
    assert ONE_LABEL.costs(uniform, certain, 1.0).tolist() == pytest.approx([1.0986123])
    assert BINARY.costs(torch.zeros(1, 1), torch.tensor([[40.0]]), 1.0).tolist() == pytest.approx([0.6931472])

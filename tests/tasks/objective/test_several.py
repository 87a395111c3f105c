"""Several outputs teach by the weighted mean of their costs; targets are combinations."""

import pytest
import torch

from edgerecover.artifacts import OutputPart, OutputSpec, TaskKind
from edgerecover.tasks.objective import objective_of

DIGIT = OutputSpec(TaskKind.ONE_LABEL, (5,))
SICK = OutputSpec(TaskKind.BINARY, (1,))
AGE = OutputSpec(TaskKind.REGRESSION, (1,))
CARD = OutputSpec.several((OutputPart("sick", SICK), OutputPart("digit", DIGIT, 2.0), OutputPart("age", AGE)))
OBJECTIVE = objective_of(CARD)


def draw(seed, num_images=6, output=CARD):
    return torch.randn(num_images, output.num_values, generator=torch.Generator().manual_seed(seed))


def test_costs_are_weighted_means():
    student_ND, teacher_ND = draw(0), draw(1)
    own = [
        objective_of(part.output).costs(student_ND[:, columns], teacher_ND[:, columns], 4.0)
        for part, columns in CARD.columns
    ]
    assert torch.allclose(OBJECTIVE.costs(student_ND, teacher_ND, 4.0), (own[0] + 2 * own[1] + own[2]) / 4)


def test_one_output_of_several_costs_what_it_does_alone():
    alone = OutputSpec.several((OutputPart("digit", DIGIT, 3.0),))
    student_ND, teacher_ND = draw(0, output=DIGIT), draw(1, output=DIGIT)
    assert torch.equal(
        objective_of(alone).costs(student_ND, teacher_ND, 4.0), objective_of(DIGIT).costs(student_ND, teacher_ND, 4.0)
    )


def test_targets_are_all_combinations_and_any_few_in_a_row_are_balanced():
    assert OBJECTIVE.num_targets == 10
    chosen = OBJECTIVE.split_targets(torch.arange(10))
    assert set(chosen) == {0, 1}
    assert len(set(zip(chosen[0].tolist(), chosen[1].tolist(), strict=True))) == 10
    for start in range(6):
        assert sorted(chosen[1][start : start + 5].tolist()) == [0, 1, 2, 3, 4]


def test_what_outputs_are_nearest_to_is_their_own_target():
    targets_N = torch.arange(OBJECTIVE.num_targets)
    chosen = OBJECTIVE.split_targets(targets_N)
    outputs_ND = torch.zeros(len(targets_N), 7)
    outputs_ND[:, 0] = 2.0 * chosen[0] - 1
    outputs_ND[torch.arange(len(targets_N)), 1 + chosen[1]] = 3
    without_age = objective_of(OutputSpec.several(CARD.parts[:2]))
    assert torch.equal(without_age.targets_of(outputs_ND[:, :6]), targets_N)
    assert torch.equal(OBJECTIVE.targets_of(outputs_ND), targets_N)  # ages have none
    assert float(OBJECTIVE.guide(outputs_ND, targets_N, 1.0)) < float(
        OBJECTIVE.guide(outputs_ND, targets_N.roll(1), 1.0)
    )


def test_outputs_without_targets_have_none():
    ages = objective_of(OutputSpec.several((OutputPart("age", AGE), OutputPart("height", AGE))))
    assert ages.num_targets == 0
    assert ages.targets_of(draw(0, output=ages.output)) is None
    outputs_ND = draw(0, output=ages.output).requires_grad_()
    ages.guide(outputs_ND, None, 1.0).backward()
    assert not outputs_ND.grad.any()


def test_more_combinations_than_dreams_could_ask_for_follow_each_other():
    labels, maps = OutputSpec(TaskKind.MULTI_LABEL, (80,)), OutputSpec(TaskKind.SEGMENTATION, (3, 4, 4))
    both = objective_of(OutputSpec.several((OutputPart("labels", labels), OutputPart("maps", maps))))
    assert both.num_targets == 4096
    assert both.is_positional
    assert not both.can_read_targets
    chosen = both.split_targets(torch.tensor([0, 3239, 3240, 4095]))
    assert chosen[1].tolist() == [0, 3239, 3240, 4095]
    assert chosen[0].tolist() == [0, 3239, 0, 855]
    assert both.targets_of(draw(0, 2, both.output)) is None


def test_only_maps_are_mirrored():
    maps = OutputSpec(TaskKind.SEGMENTATION, (1, 1, 2))
    both = objective_of(OutputSpec.several((OutputPart("digit", DIGIT), OutputPart("maps", maps))))
    outputs_ND = draw(0, 2, both.output)
    mirrored_ND = both.mirrored(outputs_ND)
    assert torch.equal(mirrored_ND[:, :5], outputs_ND[:, :5])
    assert torch.equal(mirrored_ND[:, 5:], outputs_ND[:, [6, 5]])
    assert both.margins(outputs_ND, outputs_ND).shape[1] == 7


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_targets_and_none_guide_all(temperature):
    outputs_ND = draw(3).requires_grad_()
    OBJECTIVE.guide(outputs_ND, torch.arange(6), temperature).backward()
    assert outputs_ND.grad[:, :6].any(0).all()
    assert not outputs_ND.grad[:, 6].any()

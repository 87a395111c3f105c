import pytest
import torch

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective import objective_of


def objective(num_labels):
    return objective_of(OutputSpec(TaskKind.MULTI_LABEL, (num_labels,)))


@pytest.mark.parametrize("num_labels", [1, 2, 3, 4, 5, 8])
def test_targets_are_all_single_labels_and_all_pairs(num_labels):
    labels = objective(num_labels)
    sets = [tuple(row.nonzero().flatten().tolist()) for row in labels.labels_of(torch.arange(labels.num_targets))]
    assert len(set(sets)) == len(sets) == num_labels * (num_labels + 1) // 2
    assert sets[:num_labels] == [(label,) for label in range(num_labels)]
    assert all(len(chosen) == 2 for chosen in sets[num_labels:])


@pytest.mark.parametrize("num_labels", [1, 2, 3, 6, 7])
def test_outputs_that_meet_a_target_are_nearest_to_it(num_labels):
    labels = objective(num_labels)
    targets = torch.arange(labels.num_targets)
    outputs = 10 * labels.labels_of(targets).float() - 5
    assert labels.targets_of(outputs).tolist() == targets.tolist()


def test_where_no_label_holds_the_likeliest_is_nearest():
    assert objective(3).targets_of(torch.tensor([[-2.0, -3, -1]])).tolist() == [2]


def test_any_labels_in_a_row_are_balanced():
    labels = objective(7)
    assert labels.labels_of(torch.arange(7, 21)).sum(0).tolist() == [4] * 7


def test_costs_add_up_over_labels():
    costs = objective(2).costs(torch.zeros(1, 2), torch.tensor([[40.0, -40]]), 1.0)
    assert costs.tolist() == pytest.approx([2 * 0.6931472])


def test_the_guide_is_binary_cross_entropy():
    assert float(objective(3).guide(torch.zeros(1, 3), torch.tensor([0]), 1.0)) == pytest.approx(3 * 0.6931472)
    met = objective(3).guide(torch.tensor([[30.0, -30, -30]]), torch.tensor([0]), 1.0)
    assert float(met) == pytest.approx(0, abs=1e-6)

import pytest
import torch

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective import objective_of

EMBEDDING = objective_of(OutputSpec(TaskKind.EMBEDDING, (2,)))
NUMBERS = objective_of(OutputSpec(TaskKind.REGRESSION, (2,)))


@pytest.mark.parametrize("objective", [EMBEDDING, NUMBERS])
def test_there_are_no_targets(objective):
    assert objective.num_targets == 0
    assert objective.targets_of(torch.ones(3, 2)) is None
    with pytest.raises(ValueError, match="no targets"):
        objective.guide(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64), 1.0)


def test_directions_are_compared_by_their_cosine():
    teacher, student = torch.tensor([[1.0, 0], [0, 2], [3, 0]]), torch.tensor([[5.0, 0], [7, 0], [-1, 0]])
    assert EMBEDDING.costs(student, teacher, 4.0).tolist() == pytest.approx([0, 1, 2])


def test_errors_are_compared_with_the_variance_of_the_batch():
    teacher = torch.tensor([[0.0, 0], [2, 20]])  # variances 1 and 100
    assert NUMBERS.costs(teacher + torch.tensor([0.5, 0]), teacher, 4.0).tolist() == pytest.approx([0.125] * 2)
    assert NUMBERS.costs(teacher + torch.tensor([0, 5]), teacher, 4.0).tolist() == pytest.approx([0.125] * 2)


def test_values_that_do_not_vary_are_compared_with_their_size():
    teacher = torch.tensor([[10.0, 0]]).repeat(3, 1)
    assert NUMBERS.costs(teacher + torch.tensor([1, 0.1]), teacher, 1.0).tolist() == pytest.approx([0.01] * 3)


MAPS = objective_of(OutputSpec(TaskKind.REGRESSION, (2, 1, 3)))


def test_a_map_is_told_in_the_deviation_of_all_its_pixels():
    teacher = torch.tensor([[0.0, 0, 2, 0, 0, 20], [2, 2, 0, 20, 20, 0]])  # variances 1 and 100
    one_pixel = torch.tensor([0, 0, 0, 0, 5.0, 0])
    assert MAPS.costs(teacher + one_pixel, teacher, 4.0).tolist() == pytest.approx([0.25 / 6] * 2)
    assert MAPS.margins(teacher, teacher)[0].tolist() == pytest.approx([-1, -1, 1, -1, -1, 1])


def test_maps_are_mirrored_and_values_are_not():
    outputs = torch.arange(6.0)[None]
    assert MAPS.mirrored(outputs).tolist() == [[2, 1, 0, 5, 4, 3]]
    assert NUMBERS.mirrored(torch.tensor([[1.0, 2]])).tolist() == [[1, 2]]

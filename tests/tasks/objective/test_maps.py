import numpy as np
import pytest
import torch

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective import objective_of
from edgerecover.tasks.objective.maps import map_of_shapes


def objective(*shape):
    return objective_of(OutputSpec(TaskKind.SEGMENTATION, shape))


def test_the_same_target_is_the_same_map():
    maps = objective(4, 16, 20)
    first = maps.maps_of(torch.tensor([7, 8, 7]))
    assert first.shape == (3, 320)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    map_of_shapes.cache_clear()
    assert torch.equal(maps.maps_of(torch.tensor([7, 8, 7])), first)


@pytest.mark.parametrize(("num_classes", "side"), [(2, 1), (2, 3), (5, 16), (21, 40)])
def test_maps_show_their_class_on_a_background(num_classes, side):
    backgrounds = []
    for target in range(200):
        drawn = map_of_shapes(target, num_classes, side, side)
        assert 1 + target % (num_classes - 1) in drawn
        assert drawn.min() >= 0
        assert drawn.max() < num_classes
        backgrounds.append((drawn == 0).mean())
    if side > 1:
        assert 0.3 < np.mean(backgrounds) < 0.9


def test_a_map_cannot_be_changed_by_whoever_was_given_it():
    with pytest.raises(ValueError, match="read-only"):
        map_of_shapes(1, 3, 4, 4)[0, 0] = 1


@pytest.mark.parametrize("num_classes", [1, 3])
def test_outputs_that_meet_a_target_cost_nothing(num_classes):
    maps = objective(num_classes, 6, 5)
    targets = torch.arange(4)
    wanted_NP = maps.maps_of(targets)
    logits = torch.nn.functional.one_hot(wanted_NP, max(2, num_classes)).movedim(2, 1).float() * 60 - 30
    outputs = logits[:, -num_classes:].flatten(1)
    assert float(maps.guide(outputs, targets, 1.0)) < 1e-6
    assert float(maps.guide(outputs.roll(1, 0), targets, 1.0)) > 1


def test_costs_are_means_over_pixels():
    certain, half = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    certain[:, 1], half[:, 1, :2] = 40, 40
    assert objective(2, 2, 2).costs(half.flatten(1), certain.flatten(1), 1.0).tolist() == pytest.approx([0.6931472 / 2])


def test_margins_are_those_of_the_class_that_the_reference_chooses():
    outputs = torch.tensor([[5.0, 0, 1, 0, 3, 7]])  # 3 classes, 2 pixels: (5, 1, 3) and (0, 0, 7)
    assert objective(3, 1, 2).margins(outputs, outputs).tolist() == [[3, 7]]
    assert objective(3, 1, 2).margins(-outputs, outputs).tolist() == [[-3, -7]]
    assert objective(1, 1, 2).margins(torch.tensor([[2.0, -3]]), torch.tensor([[1.0, -1]])).tolist() == [[2, 3]]


def test_maps_are_mirrored_left_to_right():
    outputs = torch.arange(12.0).reshape(1, 12)
    assert objective(2, 2, 3).mirrored(outputs).tolist() == [[2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]]

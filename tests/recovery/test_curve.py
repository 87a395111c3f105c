import pytest
import torch
from torch import nn

from edgerecover.recovery.curve import Curve


def watched(num_steps, agreement=lambda student: 0.5):
    curve = Curve(nn.Linear(2, 2), agreement, num_steps)
    for step in range(1, num_steps + 1):
        curve.note(step, float(step))
    return curve.points


@pytest.mark.parametrize("num_steps", [1, 7, 150, 600, 2401])
def test_it_ends_with_the_last_step_and_stays_short(num_steps):
    points = watched(num_steps)
    assert points[-1].step == num_steps
    assert points[-1].agreement == 0.5
    assert [point.step for point in points] == sorted({point.step for point in points})
    assert len(points) <= 2 * 96 + 16
    looked = [point for point in points if point.agreement is not None]
    assert min(num_steps, 16) <= len(looked) <= 33


def test_a_loss_is_the_mean_since_the_point_before():
    points = watched(960)
    steps = [0, *(point.step for point in points)]
    for before, point in zip(steps, points, strict=False):
        assert point.loss == pytest.approx((before + 1 + point.step) / 2)


def test_looking_leaves_the_student_as_it_was():
    """Batch norm that follows the batches must neither see the images that are looked at nor stop following."""
    student = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout())
    student.eval()
    student[1].train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    modes = []

    def agreement(network):
        modes.append(network[1].training)
        network(torch.ones(4, 2))
        return 0.25

    random = torch.get_rng_state()
    Curve(student, agreement, 1).note(1, 0.0)
    assert modes == [False]
    assert student[1].training
    assert not student[2].training
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name])

import numpy as np
import pytest
import torch

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of
from edgerecover.tasks.objective import objective_of
from edgerecover.tasks.objective.boxes import sample_boxes

OUTPUT = OutputSpec(TaskKind.DETECTION, (7, 36), input_sides=(48, 64))
BOXES = objective_of(OUTPUT)


def candidates(batch=1, logit=-9.0):
    """Outputs (N, 7, 36): boxes of 8 × 8 on a grid of 6 × 6, none of which is anything."""
    values = torch.full((batch, 7, 36), logit)
    row, column = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    values[:, 0], values[:, 1] = 64 / 6 * (column.flatten() + 0.5), 8 * (row.flatten() + 0.5)
    values[:, 2:4] = 8
    return values


def meeting(targets_N):
    """Outputs (N, 7, 36) whose first candidates are the targets' boxes, for sure."""
    boxes_NB5, is_box_NB = BOXES.boxes_of(targets_N)
    values = candidates(len(targets_N), -40.0)
    for image, (boxes_B5, is_box_B) in enumerate(zip(boxes_NB5, is_box_NB, strict=True)):
        for number, (label, *box) in enumerate(boxes_B5[is_box_B].tolist()):
            values[image, :4, number], values[image, 4 + int(label), number] = torch.tensor(box), 40
    return values


def test_the_same_target_is_the_same_boxes():
    first = BOXES.boxes_of(torch.tensor([7, 8, 7]))
    assert torch.equal(first[0][0], first[0][2])
    assert not torch.equal(first[0][0], first[0][1])
    sample_boxes.cache_clear()
    assert torch.equal(BOXES.boxes_of(torch.tensor([7, 8, 7]))[0], first[0])


@pytest.mark.parametrize(("num_classes", "height", "width"), [(1, 32, 32), (3, 48, 64), (80, 20, 100)])
def test_boxes_lie_in_the_image_and_every_class_has_its_turn(num_classes, height, width):
    counts = []
    for target in range(100):
        label, x, y, across, down = sample_boxes(target, num_classes, height, width).T
        assert label[0] == target % num_classes
        assert label.max() < num_classes
        assert min((x - across / 2).min(), (y - down / 2).min()) > -1e-4
        assert (x + across / 2).max() < width + 1e-4
        assert (y + down / 2).max() < height + 1e-4
        counts.append(len(label))
    assert set(counts) == {1, 2, 3}


def test_boxes_cannot_be_changed_by_whoever_was_given_them():
    with pytest.raises(ValueError, match="read-only"):
        sample_boxes(1, 3, 32, 32)[0, 0] = 1


def test_outputs_that_meet_a_target_cost_nothing():
    targets = torch.arange(8)
    met = meeting(targets)
    assert float(BOXES.guide(met.flatten(1), targets, 1.0)) < 1e-3
    assert float(BOXES.guide(met.roll(1, 0).flatten(1), targets, 1.0)) > 1
    with_more = met.clone()
    with_more[:, :2, -1], with_more[:, 4, -1] = torch.tensor([1.0, 1.0]), 5  # in a corner, where no target is
    assert float(BOXES.guide(with_more.flatten(1), targets, 1.0)) > 1


def test_a_dream_can_be_led_to_its_target():
    targets = torch.arange(4)
    values = candidates(4).flatten(1).requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.5)
    for _ in range(150):
        (values.grad,) = torch.autograd.grad(BOXES.guide(values, targets, 2.0), values)
        optimizer.step()
    measure = measure_of(OUTPUT)
    boxes_NB5, is_box_NB = BOXES.boxes_of(targets)
    truth = boxes_NB5.numpy().copy()
    half = truth[..., 3:] / 2
    truth[..., 1:] = np.concatenate([truth[..., 1:3] - half, truth[..., 1:3] + half], 2)
    truth[~is_box_NB.numpy()] = -1
    shares = measure.share_of_truth(measure.read(values.detach().numpy()), truth)
    assert shares.mean() > 0.9


def test_costs_are_of_the_candidates_that_either_network_is_sure_of():
    teacher, student = candidates(2), candidates(2)
    teacher[:, 4, 0] = student[0, 4, 0] = 9
    teacher, student = teacher.flatten(1), student.flatten(1)
    missed = BOXES.costs(student, teacher, 1.0)
    assert float(missed[0]) == pytest.approx(0, abs=1e-6)
    assert float(missed[1]) > 5
    assert float(BOXES.costs(teacher, student, 1.0)[1]) > 5  # sees what is not there
    no_object = teacher.reshape(2, 7, 36).clone()
    no_object[:, 0, 20] += 30  # the box of a candidate of nothing
    assert float(BOXES.costs(no_object.flatten(1), teacher, 1.0).max()) < 0.02


def test_distance_is_what_costs_at_temperature_1():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 5, 7 * 36, generator=generator)
    teacher, student = (candidates(5, -1.0).flatten(1) + part for part in noise)
    distance = measure_of(OUTPUT).distance(teacher.numpy(), student.numpy())
    np.testing.assert_allclose(distance, BOXES.costs(student, teacher, 1.0), rtol=1e-4)


def test_candidates_may_come_first():
    turned = objective_of(OutputSpec(TaskKind.DETECTION, (36, 7), input_sides=(48, 64)))
    values, targets = candidates(2, -1.0), torch.arange(2)
    rows = values.transpose(1, 2).flatten(1)
    assert float(turned.guide(rows, targets, 1.0)) == pytest.approx(float(BOXES.guide(values.flatten(1), targets, 1.0)))
    mirrored = turned.mirrored(rows).reshape(2, 36, 7).transpose(1, 2).flatten(1)
    torch.testing.assert_close(mirrored, BOXES.mirrored(values.flatten(1)))


def test_margins_of_a_network_that_sees_mirrored_images_alike():
    generator = torch.Generator().manual_seed(0)
    plain = candidates(20)
    plain[:, 4:] += 3 * torch.randn(20, 3, 36, generator=generator)
    # The same scores at the mirrored cells, in the order of a network that goes through the mirrored image.
    of_mirrored = plain.reshape(20, 7, 6, 6).flip(3).reshape(20, 7, 36).clone()
    of_mirrored[:, 0] = 64 - of_mirrored[:, 0]
    plain, of_mirrored = plain.flatten(1), of_mirrored.flatten(1)
    margins = BOXES.margins(plain, plain)
    torch.testing.assert_close(BOXES.margins(BOXES.mirrored(of_mirrored), plain), margins)
    assert not torch.allclose(BOXES.margins(of_mirrored, plain), margins)


def test_without_sides_there_are_no_targets():
    with pytest.raises(ValueError, match="sides of the network's input"):
        objective_of(OutputSpec(TaskKind.DETECTION, (7, 36))).boxes_of(torch.tensor([0]))

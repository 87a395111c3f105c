import copy

import pytest
import torch

from edgerecover.artifacts import Descent
from edgerecover.models.pair.channels import UNRELATED, match_channels
from edgerecover.pruning import global_magnitude_masks
from edgerecover.recovery.lineage import is_protected, knows_its_classes, lineage_of
from tests.pairs import pair_of


@pytest.fixture
def lineage(student_and_masks, teacher):
    def lineage(change=lambda network: None):
        student, masks = copy.deepcopy(student_and_masks[0]), student_and_masks[1]
        with torch.no_grad():
            change(student)
        return lineage_of(pair_of(student, teacher, masks))

    return lineage


def weights(network):
    return [parameter for parameter in network.parameters() if parameter.dim() > 1]


def on_grid(num_steps, by_row):
    def change(network):
        for weight in weights(network):
            dims = tuple(range(1 if by_row else 0, weight.dim()))
            step = weight.abs().amax(dims, keepdim=True).clamp_min(1e-12) / num_steps
            weight.copy_((weight / step).round() * step)

    return change


def one_step(network):
    """A single small step on random images, as the gentlest fine-tuning would take it."""
    network.requires_grad_(True)
    with torch.enable_grad():
        images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        network(images).logsumexp(1).mean().backward()
    network.requires_grad_(False)
    for parameter in network.parameters():
        parameter -= 1e-3 * parameter.grad * (parameter != 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda network: None,
        lambda network: network.half().float(),
        lambda network: network.bfloat16().float(),
        lambda network: [weight.mul_(0.9) for weight in weights(network)],
        lambda network: [
            weight.mul_(factor) for factor, weight in zip((0.5, 1.1, 3, 1), weights(network), strict=True)
        ],
        on_grid(127, by_row=False),
        on_grid(127, by_row=True),
        on_grid(7, by_row=False),
    ],
    ids=["as pruned", "float16", "bfloat16", "scaled", "scaled by tensor", "int8", "int8 by row", "int4"],
)
def test_what_pruning_and_rounding_leave_is_a_copy(lineage, change):
    found = lineage(change)
    assert found.descent is Descent.COPIED
    assert found.own == ()


def test_deviation_is_the_size_of_the_difference(lineage):
    assert lineage().deviation == 0
    assert lineage(lambda network: [p.mul_(0.9) for p in network.parameters()]).deviation == pytest.approx(
        0.1, abs=1e-5
    )


def test_one_small_step_of_training_is_told_from_a_copy(lineage):
    found = lineage(one_step)
    assert found.descent is Descent.TRAINED
    assert found.deviation < 0.02


@pytest.mark.parametrize("then", [on_grid(127, by_row=False), lambda network: network.half().float()])
def test_training_is_seen_through_rounding(lineage, then):
    def change(network):
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter += 0.05 * parameter.abs() * noise
        then(network)

    assert lineage(change).descent is Descent.TRAINED


def test_one_trained_tensor_is_enough_and_is_named(lineage):
    def change(network):
        network[-1].bias += torch.tensor([0.1, 0.0, -0.1, 0.2])

    found = lineage(change)
    assert found.descent is Descent.TRAINED
    assert found.own == ("11.bias",)


def test_statistics_of_its_own_are_told_from_trained_weights(lineage):
    found = lineage(lambda network: network[1].running_mean.add_(0.01))
    assert found.descent is Descent.RECALIBRATED
    assert found.own == ("1.running_mean",)


def test_parameters_of_whole_numbers_say_nothing(teacher):
    student = copy.deepcopy(teacher)
    for number, network in enumerate((teacher, student)):
        network.index = torch.nn.Parameter(torch.tensor([number]), requires_grad=False)
    assert lineage_of(pair_of(student, teacher)).descent is Descent.COPIED


def test_another_networks_weights_are_trained(teacher, student_and_masks):
    torch.manual_seed(3)
    student = copy.deepcopy(teacher)
    for module in student.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    masks = global_magnitude_masks(student, 0.5)
    found = lineage_of(pair_of(student, teacher, masks))
    assert found.descent is Descent.TRAINED
    assert found.deviation > 0.5


def test_another_architecture_is_unrelated(teacher, teacher_without_bn):
    assert lineage_of(pair_of(teacher_without_bn, teacher)).descent is Descent.UNRELATED
    assert lineage_of(pair_of(teacher, teacher, channels=UNRELATED)).descent is Descent.UNRELATED


def test_a_narrower_student_is_a_copy_of_the_channels_it_kept(teacher, narrower, input_spec):
    channels = match_channels(teacher, narrower, input_spec.shape)
    assert lineage_of(pair_of(narrower, teacher, channels=channels)).descent is Descent.COPIED


def test_a_narrower_student_that_was_trained_is_not(teacher, narrower, input_spec):
    channels = match_channels(teacher, narrower, input_spec.shape)
    with torch.no_grad():
        one_step(narrower)
    found = lineage_of(pair_of(narrower, teacher, channels=channels))
    assert found.descent is Descent.TRAINED
    assert found.deviation < 0.1


# --- whether a student knows anything ---------------------------------------------------------------------------


def logits(seed, num_images=200, num_classes=10):
    return torch.randn(num_images, num_classes, generator=torch.Generator().manual_seed(seed))


def test_a_faint_resemblance_is_knowledge_though_decisions_are_no_better_than_chance():
    teacher = logits(0)
    student = 0.25 * teacher + logits(1)
    student[:, 3] += 1.5  # a prejudice hides it from every count of decisions
    agreement = float((student.argmax(1) == teacher.argmax(1)).float().mean())
    assert agreement < 0.2
    assert knows_its_classes(student, teacher)


def test_random_logits_know_nothing_except_by_the_chance_that_the_test_allows():
    teacher = logits(0)
    mistaken = [knows_its_classes(logits(seed), teacher) for seed in range(1, 101)]
    assert sum(mistaken) <= 12


def test_classes_in_another_order_are_not_known():
    teacher = logits(0)
    assert not knows_its_classes(teacher.roll(1, dims=1), teacher)


def test_two_classes_are_enough_to_know():
    teacher = logits(0, num_classes=2)
    assert knows_its_classes(teacher + 0.1, teacher)
    assert not knows_its_classes(-teacher, teacher)


def test_a_student_of_one_class_has_collapsed_however_its_logits_move():
    teacher = logits(0)
    assert not knows_its_classes(teacher + 100 * torch.eye(10)[2], teacher)


def test_one_class_is_no_collapse_where_the_teacher_sees_one_too():
    teacher = logits(0) + 100 * torch.eye(10)[2]
    assert knows_its_classes(teacher + 0.1 * logits(1), teacher)


def test_logits_that_are_not_numbers_know_nothing():
    teacher = logits(0)
    assert not knows_its_classes(torch.full_like(teacher, torch.nan), teacher)
    assert not knows_its_classes(torch.zeros_like(teacher), teacher)


@pytest.fixture
def protected(teacher, sets, cpu):
    def protected(student):
        masks = {name: p != 0 for name, p in student.named_parameters() if p.dim() > 1}
        lineage = lineage_of(pair_of(student, teacher, masks))
        return is_protected(lineage, pair_of(student, teacher), sets, cpu)

    return protected


def test_a_copy_is_free_and_a_trained_student_is_protected(protected, student_and_masks, fine_tuned):
    assert not protected(student_and_masks[0])
    assert protected(fine_tuned)


def test_random_weights_are_free(protected, teacher):
    torch.manual_seed(0)
    for module in teacher.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    student = copy.deepcopy(teacher)
    assert not protected(student)


def test_zeros_that_no_mask_knows_are_pruning_and_no_training(student_and_masks, teacher):
    """Channels of batch norm as network slimming leaves them, and a filter with its bias."""
    student = copy.deepcopy(student_and_masks[0])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter[0] = 0
    assert lineage_of(pair_of(student, teacher)).descent is Descent.COPIED
    with torch.no_grad():
        next(weight for weight in weights(student))[1] *= 1.01
    assert lineage_of(pair_of(student, teacher)).descent is Descent.TRAINED

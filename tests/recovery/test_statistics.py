import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from edgerecover.models.network.norms import batch_norms_of
from edgerecover.models.pair.channels import UNRELATED, ChannelMap, match_channels
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.statistics import repair_statistics
from tests.pairs import pair_of


def statistics_of(network):
    return {
        name: (layer.running_mean.clone(), layer.running_var.clone()) for name, layer in batch_norms_of(network).items()
    }


def assert_same_statistics(network, expected, rtol=1e-3, atol=1e-4):
    for name, (mean, var) in statistics_of(network).items():
        torch.testing.assert_close(mean, expected[name][0], rtol=rtol, atol=atol)
        torch.testing.assert_close(var, expected[name][1], rtol=rtol, atol=atol)


def test_a_teacher_repaired_against_itself_does_not_change(teacher, sets, cpu):
    # A channel almost without variance, where BN's eps is most of the divisor.
    with torch.no_grad():
        teacher[3].weight[0] *= 1e-3
    teacher[4].running_mean[0] *= 1e-3
    teacher[4].running_var[0] *= 1e-6
    student = copy.deepcopy(teacher)
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    assert_same_statistics(student, statistics_of(teacher))
    divisor, expected = (network[4].running_var[0] + network[4].eps for network in (student, teacher))
    assert float(divisor / expected) == pytest.approx(1, abs=1e-3)


def test_the_documented_formula_over_all_images(teacher, sets, cpu):
    """At the first layer, whose input no other layer touches, over batches that differ from each other."""
    student = copy.deepcopy(teacher)
    student[0].weight.copy_(torch.randn(student[0].weight.shape, generator=torch.Generator().manual_seed(0)))
    repair_statistics(pair_of(student, teacher), sets.train, 8, Execution(cpu))
    images = torch.from_numpy(sets.train.images_of(range(len(sets.train))))
    x_s, x_t = student[0](images), teacher[0](images)
    (mean_s, var_s), (mean_t, var_t) = ((x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)) for x in (x_s, x_t))
    stored, eps = teacher[1], teacher[1].eps
    ratio = (stored.running_var + eps) / (var_t + eps)
    assert ratio.max() < 4
    assert ratio.min() > 1 / 4
    scale = ((var_s + eps) / (var_t + eps)).sqrt()
    torch.testing.assert_close(student[1].running_var + eps, (var_s + eps) * ratio, rtol=1e-3, atol=1e-5)
    expected_mean = mean_s + (stored.running_mean - mean_t) * scale
    torch.testing.assert_close(student[1].running_mean, expected_mean, rtol=1e-3, atol=1e-4)


def test_a_channel_that_dreams_hardly_reach_is_corrected_at_most_fourfold(teacher, sets, cpu):
    teacher[1].running_var[0] *= 100.0
    teacher[1].running_var[1] /= 100.0
    student = copy.deepcopy(teacher)
    plain = statistics_of(teacher)["1"][1]
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    assert student[1].running_var[0] < 0.2 * plain[0]
    assert student[1].running_var[1] > 5 * plain[1]


def test_scaled_weights_are_compensated(teacher, sets, cpu, real_images):
    """Statistics that scale with the weights give the teacher's outputs back, on real images too."""
    images, labels = real_images
    student = copy.deepcopy(teacher)
    for layer in student:
        if isinstance(layer, nn.Conv2d):
            with torch.no_grad():
                layer.weight *= 0.1
    damaged = (student(images).argmax(1) == labels).float().mean()
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    expected = teacher(images)
    assert damaged < 0.7
    assert (student(images).argmax(1) == expected.argmax(1)).float().mean() > 0.99
    assert (student(images) - expected).abs().mean() < 0.05 * expected.std()


def test_a_pruned_student_decides_better_with_its_own_statistics(student_and_masks, teacher, sets, cpu, real_images):
    student, _ = student_and_masks
    images, labels = real_images
    before = (student(images).argmax(1) == labels).float().mean()
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    after = (student(images).argmax(1) == labels).float().mean()
    assert before < 0.6
    assert after > before + 0.1


def test_the_gap_between_dreams_and_real_images_is_taken_over(teacher, sets, cpu):
    """Whatever dreams get wrong shows in the teacher: here its stored statistics are not those of the dreams at all."""
    teacher[1].running_mean += 0.5
    teacher[1].running_var *= 2.0
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[0].weight *= 0.5
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    torch.testing.assert_close(student[1].running_mean, 0.5 * teacher[1].running_mean, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(student[1].running_var, 0.25 * teacher[1].running_var, rtol=1e-2, atol=1e-3)


def test_channels_that_pruning_killed_do_not_explode(teacher, sets, cpu, real_images):
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[0].weight[::2] = 0
        student[3].weight[1::2] = 0
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    for mean, var in statistics_of(student).values():
        assert mean.isfinite().all()
        assert (var >= 0).all()
    logits, expected = student(real_images[0]), teacher(real_images[0])
    assert logits.abs().max() < 3 * expected.abs().max()


def test_only_running_statistics_change(student_and_masks, teacher, sets, cpu):
    student, _ = student_and_masks
    before = {name: value.clone() for name, value in student.state_dict().items()}
    teacher_before = {name: value.clone() for name, value in teacher.state_dict().items()}
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{layer}.{name}" for layer in (1, 4, 7) for name in ("running_mean", "running_var")}
    assert all(torch.equal(value, teacher_before[name]) for name, value in teacher.state_dict().items())


def test_layers_keep_their_momentum_mode_and_counter(student_and_masks, teacher, sets, cpu):
    student, _ = student_and_masks
    student[1].momentum, student[4].momentum = 0.37, None
    student[4].train()
    counted = {name: int(layer.num_batches_tracked) for name, layer in batch_norms_of(student).items()}
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    assert (student[1].momentum, student[4].momentum, student[7].momentum) == (0.37, None, 0.1)
    assert [layer.training for layer in batch_norms_of(student).values()] == [False, True, False]
    assert {name: int(layer.num_batches_tracked) for name, layer in batch_norms_of(student).items()} == counted
    assert list(student.state_dict()) == list(teacher.state_dict())
    assert not any(module._forward_pre_hooks for module in (*student.modules(), *teacher.modules()))


def test_layers_are_restored_after_an_error(teacher, sets, cpu):
    student = copy.deepcopy(teacher)
    student[3] = nn.Conv2d(5, 16, 1)
    with pytest.raises(RuntimeError):
        repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    first = student[1]
    assert (first.momentum, first.training, int(first.num_batches_tracked)) == (0.1, False, 80)
    assert not first._forward_pre_hooks


def test_a_batch_larger_than_the_set_is_cut(student_and_masks, teacher, sets, cpu):
    student, _ = student_and_masks
    other = copy.deepcopy(student)
    repair_statistics(pair_of(student, teacher), sets.train, 10_000, Execution(cpu))
    repair_statistics(pair_of(other, teacher), sets.train, len(sets.train), Execution(cpu))
    assert_same_statistics(student, statistics_of(other), rtol=0, atol=0)


def test_a_layer_that_inference_does_not_reach_keeps_what_it_has(teacher, sets, cpu):
    class WithSpare(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.spare = network, nn.BatchNorm2d(3)

        def forward(self, images):
            return self.network(images)

    spare = WithSpare(teacher).eval()
    student = copy.deepcopy(spare)
    repair_statistics(pair_of(student, spare), sets.train, 32, Execution(cpu))
    assert torch.equal(student.spare.running_var, torch.ones(3))


def test_layers_without_running_statistics_are_not_repaired(teacher):
    teacher[1] = nn.BatchNorm2d(16, track_running_stats=False)
    assert list(batch_norms_of(teacher)) == ["4", "7"]


def test_a_narrower_students_channels_are_corrected_by_the_teachers_own(teacher, sets, cpu, input_spec):
    """At the first layer, where a kept channel sees exactly what it saw in the teacher."""
    kept, narrower = torch.arange(1, 16, 2), copy.deepcopy(teacher)
    narrower[0].weight = nn.Parameter(teacher[0].weight[kept])
    narrower[1] = nn.BatchNorm2d(len(kept)).eval()
    narrower[1].load_state_dict(
        {name: value[kept] if value.dim() else value for name, value in teacher[1].state_dict().items()}
    )
    narrower[3].weight = nn.Parameter(teacher[3].weight[:, kept])
    channels = match_channels(teacher, narrower, input_spec.shape)
    repair_statistics(pair_of(narrower, teacher, channels=channels), sets.train, 32, Execution(cpu))
    assert torch.equal(channels.kept["1"], kept)
    torch.testing.assert_close(narrower[1].running_mean, teacher[1].running_mean[kept], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(narrower[1].running_var, teacher[1].running_var[kept], rtol=1e-3, atol=1e-4)


def test_channels_that_are_not_known_get_the_measured_statistics(narrower, teacher, sets, cpu):
    repair_statistics(
        pair_of(narrower, teacher, channels=ChannelMap({"1": None, "4": None, "7": None})),
        sets.train,
        8,
        Execution(cpu),
    )
    inputs = narrower[0](torch.from_numpy(sets.train.images_of(range(len(sets.train)))))
    torch.testing.assert_close(narrower[1].running_mean, inputs.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_a_student_of_another_architecture_gets_what_it_sees(teacher, sets, cpu):
    """At the first layer, whose input no other layer touches; the teacher has a layer of that name and shape."""
    student = copy.deepcopy(teacher)[:3]
    repair_statistics(pair_of(student, teacher, channels=UNRELATED), sets.train, 32, Execution(cpu))
    inputs = torch.cat([student[0](torch.as_tensor(batch)) for batch in sets.train.batches(32)])
    torch.testing.assert_close(student[1].running_mean, inputs.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(student[1].running_var, inputs.var((0, 2, 3)), rtol=1e-2, atol=1e-4)
    assert not torch.allclose(student[1].running_var, teacher[1].running_var, rtol=1e-2)
    renamed = nn.Sequential(nn.Sequential(student))
    repair_statistics(pair_of(renamed, teacher, channels=UNRELATED), sets.train, 32, Execution(cpu))


# --- batch norm as people have it ---------------------------------------------------------------------------


class Shared(nn.Module):
    """One normalisation layer for several convolutions."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)])
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images):
        x = self.norm(input=self.convs[0](images))
        return self.norm(input=self.convs[1](x.relu())).mean((2, 3))


@torch.no_grad()
def test_a_layer_that_is_called_twice_gets_the_moments_of_all_calls(sets, cpu):
    torch.manual_seed(0)
    network = Shared().eval().requires_grad_(False)
    repair_statistics(pair_of(network, network, channels=UNRELATED), sets.train, 8, Execution(cpu))
    seen = []
    in_training = copy.deepcopy(network)
    in_training.norm.train().register_forward_pre_hook(
        lambda _, __, named: seen.append(named["input"]), with_kwargs=True
    )
    for batch in sets.train.batches(8):
        in_training(torch.as_tensor(batch))
    values_CV = torch.cat([x.movedim(1, 0).flatten(1) for x in seen], 1)
    torch.testing.assert_close(network.norm.running_mean, values_CV.mean(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network.norm.running_var, values_CV.var(1), rtol=1e-2, atol=1e-4)


def as_frozen(layer):
    twin = FrozenBatchNorm2d(layer.num_features, layer.eps)
    twin.load_state_dict(layer.state_dict())
    return twin


def as_synchronised(layer):
    return nn.SyncBatchNorm.convert_sync_batchnorm(layer)


def as_instance_norm(layer):
    twin = nn.InstanceNorm2d(layer.num_features, layer.eps, affine=True, track_running_stats=True)
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("twin_of", [as_frozen, as_synchronised, as_instance_norm])
def test_other_kinds_of_layer_are_repaired_too(twin_of, student_and_masks, teacher, sets, cpu, real_images):
    """Students that decide by chance until they are repaired."""
    twins = copy.deepcopy(student_and_masks[0]), copy.deepcopy(teacher)
    for twin in twins:
        for place, layer in enumerate(list(twin)):
            if isinstance(layer, nn.BatchNorm2d):
                twin[place] = twin_of(layer)
    student, taught = (twin.eval().requires_grad_(False) for twin in twins)
    images, labels = real_images
    before = (student(images).argmax(1) == labels).float().mean()
    repair_statistics(pair_of(student, taught), sets.train, 32, Execution(cpu))
    assert (student(images).argmax(1) == labels).float().mean() > before + 0.1
    if twin_of is not as_instance_norm:
        expected = copy.deepcopy(student_and_masks[0])
        repair_statistics(pair_of(expected, teacher), sets.train, 32, Execution(cpu))
        assert_same_statistics(student, statistics_of(expected), rtol=1e-3, atol=1e-4)


def test_layers_whose_mode_is_their_own_are_left_in_it(teacher, sets, cpu):
    class AlwaysEval(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    student = copy.deepcopy(teacher)
    student[1] = AlwaysEval(16)
    student[1].load_state_dict(teacher[1].state_dict())
    student.eval().requires_grad_(False)
    repair_statistics(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    assert_same_statistics(student, statistics_of(teacher), rtol=1e-3, atol=1e-3)
    assert not student[1].training

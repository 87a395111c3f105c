import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.models.network.sparsity import prunable_weights
from edgerecover.models.pair.channels import match_channels
from edgerecover.progress import Silent
from edgerecover.recovery import layerwise, patches
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.layerwise import fit_layers
from edgerecover.recovery.statistics import repair_statistics
from tests.conftest import NUM_CLASSES, vit
from tests.pairs import pair_of


def kept_of(network):
    return {name: value != 0 for name, value in network.named_parameters() if is_matrix(value)}


def is_matrix(parameter):
    """Not the lengths of a normalised weight's rows, (O, 1, 1, 1)."""
    return parameter.dim() > 1 and parameter[0].numel() > 1


def randomised_under(masks, network):
    """The network with other weights where the masks keep any."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, mask in masks.items():
            weight = network.get_parameter(name)
            weight.copy_(mask * torch.randn(weight.shape, generator=random) * weight.std())
    return network


def sparse(network, share_kept=0.5):
    """The network with random weights set to zero."""
    random = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for value in network.parameters():
            if is_matrix(value):
                value.mul_(torch.rand(value.shape, generator=random) < share_kept)
    return network.eval().requires_grad_(False)


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message, **numbers):
        self.said.append(message)


def agreement(network, other, images):
    return float((network(images).argmax(1) == other(images).argmax(1)).float().mean())


class Varied(nn.Module):
    """Depthwise, grouped, strided, dilated, 1x1 and "same"-padded convolutions, biases and linear layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ReLU(),
            nn.Conv2d(8, 12, (3, 1), stride=(2, 1), padding=(1, 0), groups=4, bias=False),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=2, dilation=2, padding_mode="circular"),
            nn.ReLU(),
            nn.Conv2d(12, 6, 1),
            nn.Flatten(2),
            nn.Linear(32, 10),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(60, NUM_CLASSES),
        )

    def forward(self, images):
        return self.layers(images)


@pytest.fixture
def varied():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return Varied().eval().requires_grad_(False)


def test_a_student_whose_mask_allows_it_becomes_the_teacher(varied, sets, cpu, real_images):
    teacher = sparse(varied)
    masks = kept_of(teacher)
    student = randomised_under(masks, copy.deepcopy(teacher))
    before = (student(real_images[0]) - teacher(real_images[0])).square().mean()
    for _ in range(3):  # the ridge leaves a part of the start's error, each time less
        fit_layers(pair_of(student, teacher, masks), sets.train, 32, Execution(cpu))
    after = (student(real_images[0]) - teacher(real_images[0])).square().mean()
    assert after < 0.02 * before
    assert after < 0.02 * teacher(real_images[0]).var()


@pytest.mark.parametrize("share_kept", [0.5, 0.1])
def test_weights_outside_the_mask_stay_exactly_zero(varied, sets, cpu, share_kept):
    student = sparse(copy.deepcopy(varied), share_kept)
    masks = kept_of(student)
    before = copy.deepcopy(student)
    fit_layers(pair_of(student, varied, masks), sets.train, 32, Execution(cpu))
    for name, mask in masks.items():
        assert (student.get_parameter(name)[~mask] == 0).all()
    # A tenth of the head's 60 inputs is too little for these images to say what to do with it.
    changed = {name for name in masks if not torch.equal(student.get_parameter(name), before.get_parameter(name))}
    assert changed >= masks.keys() - {"layers.13.weight"}


def test_a_layer_solves_the_stated_problem(teacher, sets, cpu, monkeypatch):
    """The first layer, over all positions of all images, against a direct solution row by row."""
    monkeypatch.setattr(patches, "POSITIONS_PER_IMAGE", 64)
    student = sparse(copy.deepcopy(teacher))
    masks = kept_of(student)
    start = student[0].weight.clone()
    fit_layers(pair_of(student, teacher, masks), sets.train, 32, Execution(cpu))
    images = torch.from_numpy(sets.train.images_of(range(len(sets.train))))
    x = nn.functional.unfold(images, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    covariance, ridge = x.T.cov(correction=0), 0.01 * x.square().mean()
    wanted = (teacher[0].weight - start).flatten(1).double() @ covariance
    for row, kept in enumerate(masks["0.weight"].flatten(1)):
        normal = covariance[kept][:, kept] + ridge * torch.eye(int(kept.sum()))
        expected = start[row].flatten()[kept] + torch.linalg.solve(normal, wanted[row, kept])
        torch.testing.assert_close(student[0].weight[row].flatten()[kept], expected.float(), rtol=0.02, atol=1e-3)


def test_a_pruned_student_decides_better_on_real_images(student_and_masks, teacher, sets, cpu, real_images):
    student, masks = student_and_masks
    before = agreement(student, teacher, real_images[0])
    fit_layers(pair_of(student, teacher, masks), sets.train, 32, Execution(cpu))
    assert agreement(student, teacher, real_images[0]) > before + 0.3


def test_a_network_without_batch_norm(student_and_masks_without_bn, teacher_without_bn, sets, cpu, real_images):
    student, masks = student_and_masks_without_bn
    before = agreement(student, teacher_without_bn, real_images[0])
    fit_layers(pair_of(student, teacher_without_bn, masks), sets.train, 32, Execution(cpu))
    assert agreement(student, teacher_without_bn, real_images[0]) > before + 0.1


def test_a_transformers_attention_is_fitted_too(sets, cpu, real_images):
    """Its projections are parameters of the attention module, or layers that nobody calls."""
    teacher = sparse(vit(size=8))
    masks = {name: value for name, value in kept_of(teacher).items() if name in prunable_weights(teacher)}
    student = randomised_under(masks, copy.deepcopy(teacher))
    before = (student(real_images[0]) - teacher(real_images[0])).square().mean()
    for _ in range(3):
        fit_layers(pair_of(student, teacher, masks), sets.train, 32, Execution(cpu))
    for name, mask in masks.items():
        assert (student.get_parameter(name)[~mask] == 0).all()
    after = (student(real_images[0]) - teacher(real_images[0])).square().mean()
    assert after < 0.05 * before


class Peculiar(nn.Module):
    """Layers of one's own: a bare kernel, padding in the forward, keywords, a transposed and a normalised kernel."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(0.3 * torch.randn(8, 3, 3, 3))
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, groups=2)
        self.normalised = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 10, 3, stride=2))
        self.masked = nn.Parameter(0.3 * torch.randn(8, 10))
        self.register_buffer("mask", (torch.arange(80).view(8, 10) % 3 > 0).float())
        self.head = nn.Linear(in_features=8, out_features=NUM_CLASSES)

    def forward(self, images):
        x = F.conv2d(F.pad(images, (0, 1, 0, 1)), weight=self.kernel, stride=2).relu()
        x = self.normalised(self.up(input=x).relu()).relu().mean((2, 3))
        return self.head(input=F.linear(x, self.masked * self.mask).relu())


def test_layers_of_ones_own_are_fitted(sets, cpu, real_images):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        teacher = sparse(Peculiar())
    masks = kept_of(teacher)
    student = randomised_under(masks, copy.deepcopy(teacher))
    before = (student(real_images[0]) - teacher(real_images[0])).square().mean()
    notes = Notes()
    for _ in range(3):
        fit_layers(pair_of(student, teacher, masks), sets.train, 32, Execution(cpu, notes))
    after = (student(real_images[0]) - teacher(real_images[0])).square().mean()
    assert after < 0.05 * before
    assert notes.said == []
    for name, mask in masks.items():
        assert (student.get_parameter(name)[~mask] == 0).all()


def test_what_is_left_out_is_said(varied, sets, cpu):
    student, notes = sparse(copy.deepcopy(varied)), Notes()
    nn.utils.parametrizations.spectral_norm(student.layers[2])
    student.layers[13].weight.zero_()
    teacher = copy.deepcopy(student)
    fit_layers(pair_of(student, teacher), sets.train, 32, Execution(cpu, notes))
    assert notes.said == [
        "least squares skips 2 layers: layers.2 (its weight is computed in the forward pass); "
        "layers.13 (no weight is left)"
    ]


def test_a_layer_with_no_weight_left_stays_empty_and_the_others_stay_numbers(teacher, sets, cpu, real_images):
    student = sparse(copy.deepcopy(teacher))
    student[3].weight.zero_()
    fit_layers(pair_of(student, teacher, kept_of(student)), sets.train, 32, Execution(cpu))
    assert not student[3].weight.any()
    assert student(real_images[0]).isfinite().all()


def test_inputs_that_do_not_determine_the_weights(teacher, sets, cpu, real_images):
    """Half of the channels are copies of others, some never speak: the Gram matrix is singular."""
    for values in (
        teacher[0].weight,
        teacher[1].weight,
        teacher[1].bias,
        teacher[1].running_mean,
        teacher[1].running_var,
    ):
        values[8:] = values[:8]
    teacher[1].weight[3], teacher[1].bias[3] = 0.0, -1.0
    student = sparse(copy.deepcopy(teacher))
    fit_layers(pair_of(student, teacher, kept_of(student)), sets.train, 32, Execution(cpu))
    assert all(value.isfinite().all() for value in student.state_dict().values())
    largest = max(float(weight.abs().max()) for weight in student.parameters())
    assert largest < 10 * max(float(weight.abs().max()) for weight in teacher.parameters())


def test_activations_that_are_not_numbers_leave_the_weights_alone(teacher, sets, cpu):
    student = sparse(copy.deepcopy(teacher))
    student[1].bias[0] = torch.nan
    before = copy.deepcopy(student)
    fit_layers(pair_of(student, teacher, kept_of(student)), sets.train, 32, Execution(cpu))
    assert all(torch.equal(student[i].weight, before[i].weight) for i in (3, 6, 11))


def test_a_narrower_layer_is_left_alone_and_the_next_makes_up_for_it(teacher_without_bn, sets, cpu, real_images):
    """A channel-pruned student: the first convolution lost a quarter of its channels, the second those inputs."""
    teacher, kept = teacher_without_bn, torch.tensor([i for i in range(16) if i % 4])
    student = copy.deepcopy(teacher)
    student[0] = nn.Conv2d(3, 12, 3, padding=1)
    student[2] = nn.Conv2d(12, 16, 3, stride=2, padding=1)
    student.eval().requires_grad_(False)
    student[0].weight.copy_(teacher[0].weight[kept])
    student[0].bias.copy_(teacher[0].bias[kept])
    student[2].weight.copy_(teacher[2].weight[:, kept])
    before = copy.deepcopy(student)
    fit_layers(pair_of(student, teacher), sets.train, 32, Execution(cpu))
    assert torch.equal(student[0].weight, before[0].weight)
    errors = [(n(real_images[0]) - teacher(real_images[0])).square().mean() for n in (before, student)]
    assert errors[1] < 0.5 * errors[0]


def test_a_narrower_students_layers_learn_from_the_channels_it_kept(narrower, teacher, sets, cpu, input_spec):
    channels = match_channels(teacher, narrower, input_spec.shape)
    images = torch.from_numpy(sets.held_back.images_of(range(32)))
    repaired, fitted = copy.deepcopy(narrower), narrower
    repair_statistics(pair_of(repaired, teacher, channels=channels), sets.train, 32, Execution(cpu))
    fit_layers(pair_of(fitted, teacher, channels=channels), sets.train, 32, Execution(cpu))
    assert not torch.equal(fitted[6].weight, repaired[6].weight)  # the first that lost inputs
    errors = [(network(images) - teacher(images)).square().mean() for network in (repaired, fitted)]
    assert errors[1] < errors[0]


def test_the_teacher_and_the_students_state_keys_do_not_change(student_and_masks, teacher, sets, cpu):
    student, masks = student_and_masks
    before = copy.deepcopy(teacher.state_dict())
    fit_layers(pair_of(student, teacher, masks), sets.train, 32, Execution(cpu))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert list(student.state_dict()) == list(before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*student.modules(), *teacher.modules()))
    assert not any(m.training for m in student.modules())


@pytest.mark.parametrize("depth", [4, 8])
def test_the_time_is_linear_in_the_depth(depth, sets, cpu):
    """However many layers follow, a layer is computed as often, and but once on all images."""
    sizes = []

    class Counted(nn.Conv2d):
        def forward(self, images):
            sizes.append(len(images))
            return super().forward(images)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Sequential(Counted(3, 3, 3, padding=1), nn.Tanh()) for _ in range(depth)]
    teacher = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 2)).eval().requires_grad_(False)
    student = sparse(copy.deepcopy(teacher))
    before = copy.deepcopy(student)
    fit_layers(pair_of(student, teacher, kept_of(student)), sets.train, 32, Execution(cpu))
    assert sizes.count(len(sets.train)) == 2 * depth
    assert len(sizes) == 6 * depth  # twice as many times a few images to find the maps, and to measure memory
    assert not any(torch.equal(student[i][0].weight, before[i][0].weight) for i in range(depth))


def test_memory_bounds_the_images(teacher, sets, cpu, monkeypatch):
    monkeypatch.setattr(layerwise, "_MAX_BYTES", 300_000)
    student, notes, sizes = sparse(copy.deepcopy(teacher)), Notes(), []
    student[3].register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    fit_layers(pair_of(student, teacher, kept_of(student)), sets.train, 2, Execution(cpu, notes))
    assert 2 < max(sizes) < len(sets.train)
    assert (
        f"least squares use {max(sizes)} of {len(sets.train)} images: "
        "activations of more would need over 0.000279397 GiB of memory"
    ) in notes.said


def test_a_map_that_the_images_do_not_determine_is_named_and_left_alone(teacher, sets, cpu, monkeypatch):
    solve = layerwise.fit
    monkeypatch.setattr(layerwise, "fit", lambda x, *others: None if x.shape[3] == 16 else solve(x, *others))
    student, notes = sparse(copy.deepcopy(teacher)), Notes()
    before = copy.deepcopy(student)
    fit_layers(pair_of(student, teacher), sets.train, 32, Execution(cpu, notes))
    assert notes.said == [f"least squares skips 1 layer: 11 ({len(sets.train)} images are too few to determine it)"]
    assert torch.equal(student[11].weight, before[11].weight)
    assert torch.equal(student[11].bias, before[11].bias)
    assert not torch.equal(student[6].weight, before[6].weight)


class Cautious(nn.Module):
    """Takes another way when its convolution fails."""

    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 2)

    def forward(self, images):
        try:
            x = self.convolution(images)
        except Exception:
            x = images.repeat(1, 2, 1, 1)[:, :4]
        return self.head(x.flatten(1))


def test_an_error_while_fitting_is_not_caught_by_the_network(sets, cpu, monkeypatch):
    def fail(*_args):
        raise OSError("no space left on device")

    monkeypatch.setattr(layerwise, "_fit", fail)
    network = sparse(Cautious())
    with pytest.raises(OSError, match="no space left"):
        fit_layers(pair_of(copy.deepcopy(network), network), sets.train, 32, Execution(cpu))

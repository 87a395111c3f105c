"""The channels that a narrower student kept are found from its weights."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from edgerecover.models.build.widths import narrow_to
from edgerecover.models.pair.channels import SAME_CHANNELS, UNRELATED, descent, match_channels


class Net(nn.Module):
    """Adds, concatenates, normalises, filters each channel apart, and flattens."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.branch = nn.Conv2d(8, 8, 1)
        self.join = nn.Sequential(nn.Conv2d(16, 6, 1), nn.ReLU())
        self.fc = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.depthwise(x)
        return self.fc(self.join(torch.cat([x, self.branch(x)], 1)).flatten(1))


STEM, BRANCH, JOIN = [1, 2, 5, 7], [0, 3, 6], [1, 4]


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def student(teacher):
    """The teacher without the other channels, cut by hand."""
    state = copy.deepcopy(teacher.state_dict())
    for key in ("stem.weight", "depthwise.weight", "depthwise.bias", *(k for k in state if k.startswith("bn."))):
        state[key] = state[key][STEM] if state[key].dim() else state[key]
    state["branch.weight"] = state["branch.weight"][BRANCH][:, STEM]
    state["branch.bias"] = state["branch.bias"][BRANCH]
    state["join.0.weight"] = state["join.0.weight"][JOIN][:, STEM + [8 + c for c in BRANCH]]
    state["join.0.bias"] = state["join.0.bias"][JOIN]
    state["fc.weight"] = state["fc.weight"].view(5, 6, 16)[:, JOIN].reshape(5, -1)
    network = copy.deepcopy(teacher)
    narrow_to(network, state)
    network.load_state_dict(state)
    return network


def test_frozen_norms_become_narrower_too():
    wide, narrow = (
        nn.Sequential(nn.Conv2d(3, width, 3), FrozenBatchNorm2d(width), nn.Flatten(), nn.Linear(4 * width, 5))
        for width in (8, 6)
    )
    assert narrow_to(wide, narrow.state_dict()) == ("0", "1", "3")
    wide.load_state_dict(narrow.state_dict())
    images = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(wide(images), narrow(images))


def kept(channels):
    return {name: None if kept is None else kept.tolist() for name, kept in channels.kept.items()}


WEIGHTS = {"stem.weight": STEM, "depthwise.weight": STEM, "branch.weight": BRANCH, "join.0.weight": JOIN}
MODULES = {"stem": STEM, "bn": STEM, "depthwise": STEM, "branch": BRANCH, "join.0": JOIN, "join.1": JOIN, "join": JOIN}
EXPECTED = WEIGHTS | MODULES


def test_every_kind_of_layer_and_the_blocks_around_them(teacher, student):
    assert kept(match_channels(teacher, student, (3, 4, 4))) == EXPECTED


def test_surgery_sets_what_the_layers_say_of_themselves(student):
    assert (student.depthwise.groups, student.depthwise.in_channels, student.bn.num_features) == (4, 4, 4)
    assert (student.join[0].in_channels, student.fc.in_features, student.fc.out_features) == (7, 32, 5)
    assert student(torch.zeros(2, 3, 4, 4)).shape == (2, 5)


def test_fine_tuned_weights_still_match(teacher, student):
    random = torch.Generator().manual_seed(1)
    for parameter in student.parameters():
        parameter.data += 0.2 * parameter.data.std() * torch.randn(parameter.shape, generator=random)
    assert kept(match_channels(teacher, student, (3, 4, 4))) == EXPECTED


def test_what_cannot_be_matched_is_none_and_equal_widths_go_on(teacher, student):
    nn.init.normal_(student.branch.weight)
    found = kept(match_channels(teacher, student, (3, 4, 4)))
    assert found["branch"] is found["branch.weight"] is None
    assert found["join"] == JOIN


def test_the_teachers_values_for_the_students_channels(teacher, student):
    channels = match_channels(teacher, student, (3, 4, 4))
    values = torch.arange(8.0).view(1, 8)
    assert channels.of_teacher("bn", values, dim=1).tolist() == [STEM]
    assert channels.of_teacher("fc", values, dim=1) is values
    assert SAME_CHANNELS.of_teacher("bn", values, dim=1) is values


def test_networks_of_one_width_have_nothing_to_match(teacher):
    assert match_channels(teacher, copy.deepcopy(teacher), (3, 4, 4)).kept == {}


def test_nothing_is_narrowed_for_another_classifier_or_a_larger_layer(teacher):
    state = teacher.state_dict()
    assert narrow_to(teacher, state | {"fc.weight": torch.zeros(4, 96), "fc.bias": torch.zeros(4)}) == ()
    assert narrow_to(teacher, state | {"branch.weight": torch.zeros(9, 8, 1, 1)}) == ()
    assert narrow_to(teacher, state | {"branch.weight": torch.zeros(8, 8, 3, 3)}) == ()


# --- definitions of their own ---------------------------------------------------------------------------


def by_widths(first, second, seed=0):
    """A network whose factory takes its widths, as those of pruned VGGs do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * second, 32), nn.ReLU(), nn.Linear(32, 4),
        ).eval()  # fmt: skip


def slimmed(dense, kept, seed=1):
    """`dense` with these channels of its first convolution."""
    student, rows = by_widths(len(kept), 12, seed), torch.tensor(kept)
    state = dict(dense.state_dict())
    for key in state:
        if key.startswith(("0.", "1.")) and state[key].dim():
            state[key] = state[key][rows]
    state["3.weight"] = state["3.weight"][:, rows]
    student.load_state_dict(state)
    return student


def test_a_narrower_definition_with_the_teachers_filters_descends_from_it():
    dense = by_widths(8, 12)
    channels = descent(dense, slimmed(dense, [6, 1, 3]), (3, 8, 8))
    assert channels.related
    assert channels.kept["0"].tolist() == [6, 1, 3]
    assert set(channels.kept) == {"0.weight", "0", "1", "2"}


@pytest.mark.parametrize(
    "student",
    [
        by_widths(3, 12, seed=7),
        by_widths(9, 12),
        by_widths(8, 12),
        nn.Sequential(by_widths(3, 12)),
        by_widths(3, 12)[:-1],
        nn.Sequential(nn.Conv2d(3, 4, 3)),
    ],
)
def test_a_network_with_filters_of_its_own_is_unrelated(student):
    """One with more channels, as many, other names and other layers is, too."""
    assert descent(by_widths(8, 12), student, (3, 8, 8)) is UNRELATED


def test_layers_that_are_as_wide_but_hold_other_weights_are_no_descent():
    dense = by_widths(8, 12)
    student = slimmed(dense, [6, 1, 3])
    torch.manual_seed(5)
    with torch.no_grad():
        student[8].weight.normal_()
    assert descent(dense, student, (3, 8, 8)) is UNRELATED


def test_definitions_that_run_their_modules_differently_are_unrelated():
    dense = by_widths(8, 12)
    student = slimmed(dense, [6, 1, 3])
    student[3].stride = (2, 2)
    student[6].output_size = (1, 4)
    student[0].stride = (0, 1)
    assert descent(dense, student, (3, 8, 8)) is UNRELATED


def test_layers_that_no_class_of_torch_stands_for():
    """A convolution of one's own, called by keyword, and a linear layer over the last of three axes."""

    class Own(nn.Module):
        def __init__(self, width, hidden):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(width, 3, 3, 3, generator=RANDOM))
            self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, 5)

        def forward(self, x):
            x = nn.functional.conv2d(input=x, weight=self.kernel, padding=1).relu()
            return self.down(self.up(x.flatten(2).transpose(1, 2)).relu()).mean(1)

    RANDOM = torch.Generator().manual_seed(0)
    teacher, student = Own(8, 6).eval(), Own(4, 3).eval()
    first, second = [1, 2, 5, 7], [0, 3, 4]
    with torch.no_grad():
        student.kernel.copy_(teacher.kernel[first])
        student.up.weight.copy_(teacher.up.weight[second][:, first])
        student.down.weight.copy_(teacher.down.weight[:, second])
    assert kept(match_channels(teacher, student, (3, 4, 4))) == {"kernel": first, "up.weight": second}


def test_norms_that_are_written_with_plain_operators(teacher, student):
    from torchvision.ops import FrozenBatchNorm2d

    shifts = torch.randn(8, generator=torch.Generator().manual_seed(2))
    for network, shifts_C in ((teacher, shifts), (student, shifts[STEM])):
        network.bn = FrozenBatchNorm2d(len(shifts_C))
        network.bn.running_mean += shifts_C
    assert kept(match_channels(teacher, student, (3, 4, 4))) == EXPECTED

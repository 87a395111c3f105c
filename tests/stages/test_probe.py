import copy
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from edgerecover.artifacts import Activation, InputSpec, OutputSpec, TaskKind
from edgerecover.compute import PLAIN
from edgerecover.errors import BadInputError
from edgerecover.models.network.outputs import read_as_logits
from edgerecover.models.network.sparsity import measure
from edgerecover.stages.probe import STUDENT, TEACHER, check_connected, probe_networks

INPUT = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3)


class Notes:
    def __init__(self):
        self.lines = []

    def note(self, message, **_numbers):
        self.lines.append(message)


class Net(nn.Module):
    """Convolution, normalisation, classifier; `last` has the last word."""

    def __init__(self, norm=nn.Identity, last=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc, self.last = nn.Conv2d(3, 6, 3), norm(), nn.Linear(6, 5), last

    def forward(self, x):
        return self.last(self.fc(F.relu(self.norm(self.conv(x))).mean((2, 3))))


def probe(network, name=TEACHER):
    notes = Notes()
    return probe_networks({name: network.eval()}, INPUT, PLAIN, notes), notes.lines


def refused(network, name=TEACHER):
    with pytest.raises(BadInputError) as caught:
        probe(network, name)
    return caught.value


def test_of_a_common_network_there_is_nothing_to_say():
    probed, notes = probe(Net(lambda: nn.BatchNorm2d(6)))
    assert (probed.compute, probed.by_batch, probed.warnings, notes) == (PLAIN, "", (), [])


class Bypassed(Net):
    def forward(self, x):
        features = self.conv(x)
        return self.fc((features + self.norm(features)).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "empty", "is_connected"),
    [
        (Net(), "fc.weight", False),
        (Net(), "conv.weight", False),
        (Bypassed(lambda: nn.Conv2d(6, 6, 1)), "norm.weight", True),
        (Bypassed(lambda: nn.Conv2d(6, 6, 1)), "conv.weight", False),
    ],
)
def test_a_layer_without_weights_matters_where_nothing_bypasses_it(network, empty, is_connected):
    network.eval().get_parameter(empty).data.zero_()
    before = copy.deepcopy(network.state_dict())
    context = nullcontext() if is_connected else pytest.raises(BadInputError, match=f"'{empty}' has no weight left")
    with context:
        check_connected(network, {}, measure(network), INPUT)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_what_a_dead_unit_hides_may_come_back():
    network = Net().eval()
    network.conv.bias.data.fill_(-100)
    network.fc.weight.data[:, 1:] = 0
    check_connected(network, {}, measure(network), INPUT)


def test_networks_that_scale_each_image_by_itself_are_fine():
    class Standardising(Net):
        def forward(self, x):
            return super().forward((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True))

    assert not probe(Standardising())[0].warnings


def test_random_results_in_eval_mode_are_refused_and_placed():
    class Dropping(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5)

    error = refused(Net(Dropping))
    assert "the teacher: is random in eval mode, first in norm (Dropping)" in error.message
    assert "training=self.training" in error.hint
    error = refused(Net(last=lambda logits: logits + torch.randn_like(logits)))
    assert "first in the forward of Net itself" in error.message


def test_stochastic_depth_at_a_low_rate_is_seen():
    class DroppingPaths(Net):
        def forward(self, x):
            x = self.conv(x)
            return self.fc((x + F.relu(x) * (torch.rand(len(x), 1, 1, 1) < 0.9)).mean((2, 3)))

    for seed in range(8):
        torch.manual_seed(seed)
        assert "is random in eval mode, first in the forward of" in str(refused(DroppingPaths()))


def test_layers_that_are_not_registered_are_refused():
    class Listed(Net):
        def __init__(self):
            super().__init__()
            self.extra = [nn.Conv2d(6, 6, 1)]

        def forward(self, x):
            return self.fc(self.extra[0](self.conv(x)).mean((2, 3)))

    error = refused(Listed(), STUDENT)
    assert "2 tensors in its computation are not among its parameters" in str(error)
    assert "nn.ModuleList" in error.hint


def test_a_hook_that_holds_another_copy_of_the_network_is_refused():
    class Hooked(Net):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(6, 1, 1))
            self.conv.register_forward_hook(lambda conv, args, output: output * self.gain)

    assert "a forward hook that refers to `self`" in refused(copy.deepcopy(Hooked()), STUDENT).hint


def test_random_numbers_that_change_nothing_are_fine():
    assert not probe(Net(last=lambda logits: logits + 0 * torch.rand(1)))[0].warnings


def test_batch_norm_without_running_statistics_decides_by_the_batch():
    probed, _ = probe(Net(lambda: nn.BatchNorm2d(6, track_running_stats=False)))
    assert probed.by_batch == "the teacher lets the images of a batch affect each other, first in norm (BatchNorm2d)"
    assert any("one image at a time" in warning for warning in probed.warnings)


def test_attention_across_the_batch_decides_by_the_batch():
    probed, _ = probe(Net(last=lambda logits: (logits @ logits.T).softmax(1) @ logits))
    assert "first in the forward of Net itself" in probed.by_batch


def test_a_lost_axis_of_a_single_image_is_refused():
    error = refused(Net(last=lambda logits: logits.squeeze()))
    assert "its logits of a single image have shape [5] instead of [1, 5]" in error.message
    assert ".flatten(1)" in error.hint


def test_a_network_that_fails_on_a_single_image_is_refused():
    class Pooled(Net):
        def forward(self, x):
            return self.fc(self.norm(self.conv(x).mean((2, 3))))

    error = refused(Pooled(lambda: nn.BatchNorm1d(6, track_running_stats=False)))
    assert "works on two images, but fails on one with ValueError" in error.message


@pytest.mark.parametrize("name", [TEACHER, STUDENT])
@pytest.mark.parametrize("cut", ["no_grad", "detach", "features"])
def test_what_lets_no_gradient_reach_the_image_is_refused(name, cut):
    class Cut(Net):
        def forward(self, x):
            if cut == "no_grad":
                with torch.set_grad_enabled(self.training):
                    return super().forward(x)
            if cut == "detach":
                return super().forward(x).detach()
            with torch.no_grad():
                features = self.conv(x).mean((2, 3))
            return self.fc(features)

    error = refused(Cut(), name)
    assert f"{name}: no gradient flows from its logits back to the image" in error.message
    assert "torch.no_grad" in error.hint


def test_rounding_has_no_gradient_to_dream_along():
    class Rounding(Net):
        def forward(self, x):
            return super().forward((4 * x).round())

    assert "gradient of its logits is zero in every pixel" in refused(Rounding()).message
    probe(Rounding(), STUDENT)  # it learns from images that its teacher dreams


def test_a_teacher_that_tells_no_images_apart_is_refused():
    network = Net()
    nn.init.zeros_(network.fc.weight)
    assert "the same for two different images" in refused(network).message


def test_softmax_is_noted_and_sigmoids_are_warned_of():
    network = Net(last=lambda logits: logits.softmax(1))
    read_as_logits(network, OutputSpec(TaskKind.ONE_LABEL, (4,), Activation.SOFTMAX))
    probed, notes = probe(network)
    assert probed.warnings == ()
    assert notes == ["the teacher ends in softmax: recovery works on the logits before it; the file keeps it"]
    network = Net(last=torch.sigmoid)
    read_as_logits(network, OutputSpec(TaskKind.ONE_LABEL, (4,), Activation.SIGMOID))
    assert "a sigmoid for each class" in probe(network)[0].warnings[0]


def test_networks_are_left_as_they_were():
    network = Net(lambda: nn.BatchNorm2d(6, track_running_stats=False))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    probe(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network.modules())


class Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


@pytest.mark.parametrize(
    ("last", "hint"),
    [
        (lambda x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=True), "use_reentrant=False"),
        (Cut.apply, "functions without a backward"),
    ],
)
def test_what_has_no_backward_is_refused(last, hint):
    error = refused(Net(last=last))
    assert "its backward fails with" in str(error)
    assert hint in error.hint


class Cached(Net):
    def forward(self, x):
        with torch.inference_mode():
            scale = torch.full((1, 5), 2.0)
        return super().forward(x) * scale


def test_tensors_made_in_inference_mode_are_refused():
    error = refused(Cached())
    assert "fails with gradients" in str(error)
    assert "torch.no_grad instead of torch.inference_mode" in error.hint


@pytest.mark.parametrize("draw", [np.random.rand, random.random])
def test_random_numbers_of_other_generators_are_seen(draw):
    error = refused(Net(last=lambda x: x * (2 if draw() < 0.3 else 1)))
    assert "is random in eval mode" in str(error)


class Counting(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


def test_a_buffer_that_each_call_changes_is_named():
    error = refused(Counting())
    assert "writes into its buffer 'calls' in eval mode" in str(error)
    assert "if self.training" in error.hint

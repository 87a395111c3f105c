import copy
import pickle

import pytest
import torch
from torch import nn

from edgerecover.artifacts import Activation, InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.network.examples import example_images
from edgerecover.models.network.outputs import (
    activation_of,
    as_it_is,
    declared_output,
    own_network,
    read_as_logits,
)
from edgerecover.models.network.several_outputs import return_task_outputs

IMAGES_NCHW = example_images(InputSpec((3, 4, 4), (0.5,) * 3, (0.25,) * 3), 4)


def of_classes(activation):
    return OutputSpec(TaskKind.ONE_LABEL, (5,), activation)


class Net(nn.Module):
    def __init__(self, last=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.last = nn.Linear(48, 5), last

    def forward(self, x):
        return self.last(self.fc(x.flatten(1)))


def test_a_forward_that_fails_with_gradients_tells_no_last_step():
    class Cached(Net):
        def forward(self, x):
            with torch.inference_mode():
                scale = torch.full((1, 5), 2.0)
            return torch.sigmoid(super().forward(x) * scale)

    assert activation_of(Cached(), IMAGES_NCHW) is Activation.NONE


@pytest.mark.parametrize(
    ("last", "activation"),
    [
        (lambda z: z, Activation.NONE),
        (lambda z: z.log_softmax(1), Activation.NONE),
        (lambda z: z.relu().clamp(0, 0.9), Activation.NONE),
        (lambda z: z.softmax(1), Activation.SOFTMAX),
        (torch.sigmoid, Activation.SIGMOID),
        (lambda z: torch.sigmoid(z)[:, None].squeeze(1)[:, :5], Activation.SIGMOID),
    ],
)
def test_softmax_and_sigmoid_are_undone_and_the_network_itself_is_still_there(last, activation):
    network = Net(last)
    itself_NK = network(IMAGES_NCHW)
    assert activation_of(network, IMAGES_NCHW) is activation
    read_as_logits(network, of_classes(activation))
    for read in (network, copy.deepcopy(network)):
        assert declared_output(read) == (None if activation is Activation.NONE else of_classes(activation))
        found_NK = read(IMAGES_NCHW)
        if activation is not Activation.NONE:
            expected_NK = network.fc(IMAGES_NCHW.flatten(1))
            assert torch.allclose(found_NK.diff(dim=1), expected_NK.diff(dim=1), atol=1e-5)
        assert torch.equal(as_it_is(read)(IMAGES_NCHW), itself_NK)
        assert as_it_is(read).fc is read.fc
        assert [type(read).__name__, *read.state_dict()] == ["Net", "fc.weight", "fc.bias"]


@pytest.mark.parametrize(("last", "activation"), [(lambda z: z.softmax(1), "SOFTMAX"), (torch.sigmoid, "SIGMOID")])
def test_outputs_that_are_rounded_to_0_and_1_still_give_finite_logits_and_gradients(last, activation):
    network = Net(lambda z: last(1e4 * z))
    read_as_logits(network, of_classes(Activation[activation]))
    inputs_NCHW = IMAGES_NCHW.clone().requires_grad_()
    logits_NK = network(inputs_NCHW)
    logits_NK.sum().backward()
    assert bool(logits_NK.isfinite().all())
    assert bool(inputs_NCHW.grad.isfinite().all())


def test_a_network_that_is_copied_in_its_own_way_is_refused_only_where_it_must_be_read_otherwise():
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Softmax(1)))
    read_as_logits(traced, of_classes(Activation.NONE))
    with pytest.raises(BadInputError, match="outputs probabilities") as caught:
        read_as_logits(traced, of_classes(activation_of(traced, IMAGES_NCHW)))
    assert "leave out the last softmax or sigmoid" in caught.value.hint
    patched = Net()
    patched.forward = lambda x: patched.fc(x.flatten(1)).softmax(1)
    with pytest.raises(BadInputError, match="outputs probabilities"):
        read_as_logits(patched, of_classes(activation_of(patched, IMAGES_NCHW)))


class Pair(Net):
    """Returns its images, too."""

    def forward(self, x):
        return {"logits": super().forward(x), "images": x}


def test_a_copy_of_the_makers_class_has_their_outputs():
    for own, last in ((Net, softmax), (Pair, softmax)):
        network = own(last)
        before = network(IMAGES_NCHW)
        return_task_outputs(network, IMAGES_NCHW)
        read_as_logits(network, of_classes(activation_of(network, IMAGES_NCHW)))
        network.requires_grad_(False)
        itself = own_network(network)
        assert type(itself) is own
        after = itself(IMAGES_NCHW)
        torch.testing.assert_close(after, before)
        assert not itself.training
        assert all(parameter.requires_grad for parameter in itself.parameters())
        assert type(network) is not own
        assert itself.fc.weight is not network.fc.weight
        pickle.loads(pickle.dumps(itself))


def softmax(logits):
    return logits.softmax(1)

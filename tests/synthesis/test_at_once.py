import pytest
import torch
from torch import nn

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.errors import MissingError
from edgerecover.progress import Silent
from edgerecover.synthesis import at_once as module
from edgerecover.synthesis.at_once import bytes_per_image, images_at_once
from edgerecover.synthesis.source import Source

SIDE = 32
SPEC = InputSpec((3, SIDE, SIDE), (0.4,) * 3, (0.25,) * 3)
FLOAT_BYTES = 4


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, message):
        self.lines.append(message)


@pytest.fixture
def network():
    """Kept of each image: the input, the convolution's output, and sigmoid's; the rest is a few numbers."""
    layers = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)).eval().requires_grad_(False)


def test_counted_is_what_autograd_keeps_and_no_weight(network, synthesis, cpu):
    pixels = SIDE * SIDE * FLOAT_BYTES
    counted = bytes_per_image(Source(network, SPEC, OutputSpec.one_label(4), cpu), synthesis)
    assert (8 + 8) * pixels <= counted <= 1.2 * (3 + 8 + 8) * pixels
    larger = InputSpec((3, 2 * SIDE, 2 * SIDE), SPEC.mean, SPEC.std)
    assert bytes_per_image(Source(network, larger, OutputSpec.one_label(4), cpu), synthesis) == pytest.approx(
        4 * counted, rel=0.05
    )


def test_as_many_as_half_of_the_free_memory_holds(network, synthesis, cpu, monkeypatch):
    each = bytes_per_image(Source(network, SPEC, OutputSpec.one_label(4), cpu), synthesis)
    notes = Notes()
    monkeypatch.setattr(module, "free_bytes", lambda: 2 * 1.5 * 5.5 * each)
    assert images_at_once(Source(network, SPEC, OutputSpec.one_label(4), cpu), synthesis, notes) == 5
    assert len(notes.lines) == 1
    assert "5 of a batch of 32" in notes.lines[0]


def test_where_memory_is_plenty_it_is_the_batch(network, synthesis, cpu):
    notes = Notes()
    assert images_at_once(Source(network, SPEC, OutputSpec.one_label(4), cpu), synthesis, notes) == synthesis.batch_size
    assert not notes.lines


def test_too_little_for_one_image_is_said(network, synthesis, cpu, monkeypatch):
    each = bytes_per_image(Source(network, SPEC, OutputSpec.one_label(4), cpu), synthesis)
    monkeypatch.setattr(module, "free_bytes", lambda: int(1.4 * each))
    with pytest.raises(MissingError, match="3 × 32 × 32 image"):
        images_at_once(Source(network, SPEC, OutputSpec.one_label(4), cpu), synthesis)


def test_the_network_is_left_as_it_was(network, synthesis, cpu):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    bytes_per_image(Source(network, SPEC, OutputSpec.one_label(4), cpu), synthesis)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())

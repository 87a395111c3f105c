import copy

import pytest
import torch
from torch import nn

from edgerecover.config import Blockwise
from edgerecover.models.pair.channels import match_channels
from edgerecover.progress import Silent
from edgerecover.recovery import blockwise
from edgerecover.recovery.blockwise import reconstruct_blocks
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.statistics import repair_statistics
from tests.conftest import INPUT, vit
from tests.pairs import pair_of

SETTINGS = Blockwise(num_steps=30, batch_size=12, lr=1e-2)


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message, **numbers):
        self.said.append(message)


def distance(network, other, images):
    return float((network(images) - other(images)).square().mean() / other(images).var())


@pytest.fixture
def reconstruct(sets, cpu):
    def reconstruct(student, teacher, masks=None, images=sets.train, **named):
        pair, notes = pair_of(student, teacher, masks or {}, **named), Notes()
        reconstruct_blocks(pair, images, SETTINGS, 32, Execution(cpu, notes), seed=0)
        return notes.said

    return reconstruct


def test_it_brings_the_student_nearer_on_real_images(reconstruct, student_and_masks, teacher, sets, cpu, real_images):
    student, masks = student_and_masks
    repaired = copy.deepcopy(student)
    repair_statistics(pair_of(repaired, teacher), sets.train, 32, Execution(cpu))
    given = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    said = reconstruct(student, teacher, masks)
    assert distance(student, teacher, real_images[0]) < 0.8 * distance(repaired, teacher, real_images[0])
    assert said == ["block by block: 3 trained"]
    for name, mask in masks.items():
        assert not student.get_parameter(name)[~mask].any()
    assert all(torch.equal(tensor, given[name]) for name, tensor in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in student.parameters())
    assert not any(module.training for module in student.modules())


def test_the_last_layer_is_left_to_distillation(reconstruct, student_and_masks, teacher):
    student, masks = student_and_masks
    last = student[-1].weight.clone()
    reconstruct(student, teacher, masks)
    assert torch.equal(student[-1].weight, last)


def test_a_student_that_is_its_teacher_does_not_change(reconstruct, teacher):
    student = copy.deepcopy(teacher)
    assert reconstruct(student, teacher) == ["block by block: 3 near enough"]
    assert all(torch.equal(own, its) for own, its in zip(student.parameters(), teacher.parameters(), strict=True))


def test_a_block_that_comes_no_nearer_stays_as_it_was(reconstruct, student_and_masks, teacher, monkeypatch):
    student, masks = student_and_masks
    before = [parameter.clone() for parameter in student.parameters()]
    monkeypatch.setattr(blockwise, "_order", lambda *_: iter(()))
    assert reconstruct(student, teacher, masks) == ["block by block: 3 that came no nearer"]
    assert all(torch.equal(own, was) for own, was in zip(student.parameters(), before, strict=True))


def test_weights_that_stop_being_numbers_are_taken_back(sets, cpu, student_and_masks, teacher):
    student, masks = student_and_masks
    wild = SETTINGS.model_copy(update={"lr": 1e30})
    reconstruct_blocks(pair_of(student, teacher, masks), sets.train, wild, 32, Execution(cpu), seed=0)
    assert all(tensor.isfinite().all() for tensor in student.parameters())


def test_the_same_seed_gives_the_same_student(reconstruct, student_and_masks, teacher):
    student, masks = student_and_masks
    one, other = copy.deepcopy(student), copy.deepcopy(student)
    reconstruct(one, teacher, masks)
    reconstruct(other, teacher, masks)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_narrower_student_learns_the_channels_it_kept(reconstruct, narrower, teacher, real_images):
    before = distance(narrower, teacher, real_images[0])
    (said,) = reconstruct(narrower, teacher, channels=match_channels(teacher, narrower, INPUT.shape))
    assert "trained" in said
    assert "unknown" not in said
    assert distance(narrower, teacher, real_images[0]) < before


def test_blocks_without_batch_norm_are_reconstructed_too(sets, cpu, real_images):
    teacher = vit(8)
    student = copy.deepcopy(teacher)
    masks = {}
    with torch.no_grad():
        for name, weight in student.encoder.layers.named_parameters():
            if weight.dim() == 2:
                mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
                weight.mul_(mask)
                masks[f"encoder.layers.{name}"] = mask
    before = distance(student, teacher, real_images[0])
    reconstruct_blocks(pair_of(student, teacher, masks), sets.train, SETTINGS, 32, Execution(cpu), seed=0)
    assert distance(student, teacher, real_images[0]) < 0.7 * before
    assert all(not student.get_parameter(name)[~mask].any() for name, mask in masks.items())


def test_fewer_images_are_used_where_they_would_not_fit(reconstruct, student_and_masks, teacher, monkeypatch):
    monkeypatch.setattr(blockwise, "_MAX_BYTES", 2**17)
    said = reconstruct(student_and_masks[0], teacher, student_and_masks[1])
    assert said[0].startswith("block-wise reconstruction uses 32 of 96 images")


def test_without_a_block_it_says_so(reconstruct):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval().requires_grad_(False)
    assert reconstruct(copy.deepcopy(network), network) == [
        "block-wise reconstruction is skipped: no block can be run alone"
    ]

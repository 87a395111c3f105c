import copy

import numpy as np
import pytest
import torch

from edgerecover.config import Refresh
from edgerecover.recovery.batches import Chosen
from edgerecover.recovery.distill import distill
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.refresh import FreshDreams
from edgerecover.recovery.statistics import repair_statistics
from tests.pairs import pair_of

REFRESH = Refresh(every_steps=4, num_images=48, num_steps=8, lr=0.1, weight=10.0)


def unchanged(batch_NCHW):
    return batch_NCHW


@pytest.fixture
def student(student_and_masks, teacher, sets, cpu):
    network = copy.deepcopy(student_and_masks[0])
    repair_statistics(pair_of(network, teacher), sets.train, 32, Execution(cpu))
    return network


@pytest.fixture
def fresh(synthesis, sets, cpu):
    with FreshDreams(REFRESH, synthesis, None, sets.train, cpu, seed=0) as found:
        yield found


def test_the_rival_makes_images_on_which_it_disagrees(student, teacher, synthesis, sets, cpu):
    found = {}
    for weight in (0.0, 10.0):
        settings = REFRESH.model_copy(update={"weight": weight})
        with FreshDreams(settings, synthesis, None, sets.train, cpu, seed=0) as fresh:
            fresh.refresh(pair_of(student, teacher), unchanged)
            new = torch.from_numpy(fresh.images.images_of(fresh.draw(48)))
            found[weight] = float(pair_of(student, teacher).objective.disagreement(teacher(new), student(new)))
    assert found[10.0] > 1.05 * found[0.0]


def test_half_of_a_batch_is_fresh_once_there_are_any(fresh, student, teacher, sets):
    batch = torch.from_numpy(sets.train.images_of(range(10)))
    everywhere = torch.arange(10)
    assert torch.equal(Chosen(sets.train, np.arange(10), None).images_at(everywhere), batch)
    assert torch.equal(Chosen(sets.train, np.arange(10), fresh).images_at(everywhere), batch)
    fresh.refresh(pair_of(student, teacher), unchanged)
    chosen = Chosen(sets.train, np.arange(10), fresh)
    mixed = chosen.images_at(everywhere)
    assert chosen.shape_NCHW == tuple(mixed.shape)
    assert torch.equal(mixed[5:], batch[5:])
    assert not any(torch.equal(image, other) for image in mixed[:5] for other in batch)
    for places in ([0], [9], [2, 4, 5, 8], [7, 8], [0, 1]):
        assert torch.equal(chosen.images_at(torch.tensor(places)), mixed[places])
    assert torch.equal(Chosen(sets.train, np.arange(1), fresh).images_at(everywhere[:1]), batch[:1])


def test_networks_come_back_as_they_were(fresh, student, teacher, sets):
    student[1].train()
    states = [copy.deepcopy(network.state_dict()) for network in (student, teacher)]
    fresh.refresh(pair_of(student, teacher), unchanged)
    assert [module.training for module in student.children()].count(True) == 1
    assert student[1].training
    for network, state in zip((student, teacher), states, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_refreshes_spare_the_first_and_the_last_eighth(fresh):
    due = [step for step in range(64) if fresh.is_due(step, 64)]
    assert due == list(range(8, 57, 4))


def test_nothing_is_left_on_disk(synthesis, sets, cpu, student, teacher):
    before = sorted(sets.train.folder.rglob("*"))
    with FreshDreams(REFRESH, synthesis, None, sets.train, cpu, seed=0) as fresh:
        fresh.refresh(pair_of(student, teacher), unchanged)
        assert sorted(sets.train.folder.rglob("*")) != before
    assert sorted(sets.train.folder.rglob("*")) == before


def test_distillation_with_refreshes_is_decided_by_its_seed_and_keeps_the_mask(
    student_and_masks, teacher, sets, recovery, synthesis, cpu
):
    student, masks = student_and_masks
    settings = recovery.model_copy(update={"num_steps": 12, "refresh": REFRESH})
    weights = []
    for made_by in (synthesis, synthesis, None):
        candidate = copy.deepcopy(student)
        distill(pair_of(candidate, teacher, masks), sets.train, settings, Execution(cpu), seed=0, synthesis=made_by)
        weights.append(dict(candidate.named_parameters()))
    first, again, without = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], without[name]) for name in first)
    assert all((first[name][~mask] == 0).all() for name, mask in masks.items())

"""Interrupted wherever a checkpoint is written, a recovery goes on and ends as if it had never stopped."""

import dataclasses

import pytest
import torch

from edgerecover.config import Blockwise, Refresh
from edgerecover.export.precision import SCHEMES
from edgerecover.recovery import checkpoints as module
from edgerecover.recovery.checkpoints import Checkpoints
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.quantized import distil_for_int8
from tests.pairs import pair_of

REFRESH = Refresh(every_steps=6, num_images=40, num_steps=3, lr=0.1, weight=10.0)
SETTINGS = {
    "adam, refreshes": {
        "layerwise": True, "blockwise": Blockwise(num_steps=4, batch_size=16, lr=1e-2), "num_steps": 24,
        "flip": True, "crop_fraction": 0.2, "crop_border": "auto",
        "zoom_fraction": 0.5, "cutmix_share": 0.5, "colour_jitter": 0.5, "refresh": REFRESH, "weight_decay": 1e-4,
    },
    "sgd": {"num_steps": 10, "optimizer": "sgd", "lr": 0.02, "repair_statistics": False, "bn": "frozen"},
}  # fmt: skip


class Killed(BaseException):
    """Not to be caught, as a process that is killed catches nothing."""


@pytest.fixture
def killed_at(monkeypatch):
    """Ends the loop right after the n-th checkpoint is on disk."""

    def killed_at(number):
        written = []

        def replace_file(path, content):
            path.write_bytes(content)
            written.append(path)
            if len(written) == number:
                raise Killed

        monkeypatch.setattr(module, "replace_file", replace_file)
        monkeypatch.setattr(module, "_LARGEST_SHARE", float("inf"))
        return written

    return killed_at


@pytest.fixture
def climb(student_and_masks, teacher, sets, recovery, synthesis, cpu, tmp_path):
    def climb(changes, folder=None):
        student, masks = student_and_masks
        kept = Checkpoints(tmp_path / folder, every_s=0.0) if folder else Checkpoints()
        return recover(
            pair_of(student, teacher, masks), sets, recovery.model_copy(update=changes),
            Execution(cpu, checkpoints=kept), seed=3, synthesis=synthesis,
        )  # fmt: skip

    return climb


def assert_same(one, other):
    expected = other.student.state_dict()
    for name, value in one.student.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert [dataclasses.replace(r, seconds=0.0) for r in one.rungs] == [
        dataclasses.replace(r, seconds=0.0) for r in other.rungs
    ]
    assert one.warnings == other.warnings


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_it_ends_as_an_uninterrupted_one(climb, changes, killed_at):
    uninterrupted = climb(changes)
    num_written = len(killed_at(-1)) or len(_written_by(climb, changes, killed_at))
    assert num_written > 10
    for number in sorted({1, 2, num_written // 3, num_written // 2, num_written - 1, num_written}):
        folder = f"killed-{number}"
        killed_at(number)
        with pytest.raises(Killed):
            climb(changes, folder)
        resumed = killed_at(-1)
        assert_same(climb(changes, folder), uninterrupted)
        assert len(resumed) <= num_written - number + 2, "it went on from there, and not from the start"


def _written_by(climb, changes, killed_at):
    written = killed_at(-1)
    climb(changes, "whole")
    return list(written)


def test_killed_again_and_again_it_still_ends_the_same(climb, killed_at):
    changes = SETTINGS["adam, refreshes"]
    uninterrupted = climb(changes)
    for _ in range(4):
        killed_at(7)
        with pytest.raises(Killed):
            climb(changes, "often")
    killed_at(-1)
    assert_same(climb(changes, "often"), uninterrupted)


def test_damage_to_what_was_kept_costs_time_alone(climb, killed_at, tmp_path):
    changes = SETTINGS["adam, refreshes"]
    uninterrupted = climb(changes)
    num_written = len(_written_by(climb, changes, killed_at))
    killed_at(num_written - 2)
    with pytest.raises(Killed):
        climb(changes, "damaged")
    kept = tmp_path / "damaged"
    shard = sorted((kept / "fresh").glob("*.npy"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    rungs = sorted(kept.glob("statistics-repair.*"))
    rungs[0].write_bytes(b"")
    killed_at(-1)
    assert_same(climb(changes, "damaged"), uninterrupted)


def test_distillation_in_fake_int8_goes_on_too(teacher, sets, recovery, cpu, tmp_path, killed_at):
    settings = recovery.model_copy(update={"num_steps": 6})

    def distilled(folder):
        kept = Checkpoints(tmp_path / folder, every_s=0.0) if folder else Checkpoints()
        pair, execution = pair_of(teacher, teacher), Execution(cpu, checkpoints=kept)
        return distil_for_int8(pair, sets.train, settings, SCHEMES["u8s8"], execution, seed=0)

    uninterrupted = distilled(None).student.state_dict()
    for number in (4, 7, 8):  # of seven states of the loop, and of what it ends with
        killed_at(number)
        with pytest.raises(Killed):
            distilled(f"killed-{number}")
        killed_at(-1)
        for name, value in distilled(f"killed-{number}").student.state_dict().items():
            assert torch.equal(value, uninterrupted[name]), name

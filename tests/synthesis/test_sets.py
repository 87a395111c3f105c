import dataclasses
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from edgerecover.artifacts import OutputSpec
from edgerecover.errors import StageError
from edgerecover.progress import Silent
from edgerecover.synthesis.sets import synthesis_key, synthesize
from edgerecover.synthesis.source import Source

SPLITS = ("train", "calibration", "held_back")


@pytest.fixture
def quick(synthesis):
    """Two train shards, one of them short, and one of each other set."""
    return synthesis.model_copy(
        update={"num_train": 13, "num_calibration": 8, "num_held_back": 6, "batch_size": 8, "num_steps": 3}
    )


@pytest.fixture
def make(teacher, input_spec, quick, cpu, tmp_path):
    def make(folder="dreams", settings=quick, seed=3, progress=None):
        return synthesize(
            Source(teacher, input_spec, OutputSpec.one_label(4), cpu), settings,
            seed=seed, folder=tmp_path / folder, progress=progress or Silent(),
        )  # fmt: skip

    return make


def pixels_of(sets):
    return {split: getattr(sets, split).bytes_of(range(len(getattr(sets, split)))) for split in SPLITS}


def assert_same(one, other):
    for split in SPLITS:
        np.testing.assert_array_equal(one[split], other[split])


class InterruptedAt(Silent):
    """Ctrl-C at the n-th step."""

    def __init__(self, step):
        self.step = step

    def advance(self, steps=1, **numbers):
        self.step -= 1
        if self.step == 0:
            raise KeyboardInterrupt

    def task(self, title, total, unit):
        @contextmanager
        def opened():
            yield self

        return opened()


class Counted(Silent):
    def __init__(self):
        self.tasks, self.done = [], 0

    def advance(self, steps=1, **numbers):
        self.done += steps
        assert np.isfinite(numbers["loss"])

    def task(self, title, total, unit):
        self.tasks.append((title, total, unit))

        @contextmanager
        def opened():
            yield self

        return opened()


def test_three_sets_of_the_sizes_asked_for(make, quick):
    progress = Counted()
    sets, facts = make(progress=progress)
    assert [len(getattr(sets, split)) for split in SPLITS] == [13, 8, 6]
    assert (facts.num_train, facts.num_calibration, facts.num_held_back) == (13, 8, 6)
    assert sets.train.bytes_of([0]).shape == (1, 3, 8, 8)
    assert not facts.reused
    assert facts.images_per_s > 0
    assert progress.tasks == [("synthesize", 27, "dreams")]
    assert progress.done == pytest.approx(27)


def test_targets_are_balanced_and_shuffled(make, teacher):
    sets, facts = make()
    targets = sets.train.targets()
    assert sorted(targets) == sorted(i % 4 for i in range(13))
    assert list(targets) != [i % 4 for i in range(13)]
    seen = teacher(torch.from_numpy(sets.train.images_of(range(13)))).argmax(1)
    assert facts.teacher_agrees_with_target == pytest.approx(float((seen == torch.tensor(targets)).float().mean()))


def test_with_fewer_images_than_classes_every_class_has_its_turn(make, quick):
    """Each split shows other classes; the first ones alone would leave the rest out of every set."""
    settings = quick.model_copy(update={"num_train": 2, "num_calibration": 2, "num_held_back": 2, "num_steps": 1})
    shown = []
    for seed in range(6):
        sets, _ = make(folder=f"seed-{seed}", settings=settings, seed=seed)
        targets = [getattr(sets, split).targets() for split in SPLITS]
        assert all(len(set(of_split)) == 2 for of_split in targets)
        shown += targets
    assert {target for of_split in shown for target in of_split} == {0, 1, 2, 3}
    assert len(set(shown)) > 3


def test_without_class_targets_there_are_none_to_agree_with(make, quick):
    sets, facts = make(settings=quick.model_copy(update={"class_term": "entropy"}))
    assert sets.train.targets() == ()
    assert facts.teacher_agrees_with_target is None


@pytest.mark.parametrize("class_term", ["target", "entropy"])
def test_no_two_images_are_alike_within_or_between_sets(make, quick, class_term):
    """Without class targets nothing but the shard's own seed tells two shards apart."""
    sets, _ = make(settings=quick.model_copy(update={"class_term": class_term, "num_train": 16}))
    digests = [d for split in SPLITS for shard in getattr(sets, split).shards for d in shard.image_sha256]
    assert len(set(digests)) == len(digests) == 30


def test_the_same_seed_gives_the_same_images_and_another_seed_others(make):
    one, same, other = (pixels_of(make(folder, seed=seed)[0]) for folder, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert_same(one, same)
    assert (one["train"] != other["train"]).mean() > 0.5


def test_finished_shards_are_reused(make, tmp_path):
    first, _ = make()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "dreams").iterdir()}
    progress = Counted()
    second, facts = make(progress=progress)
    assert facts.reused
    assert progress.tasks == []
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "dreams").iterdir()} == written


def test_a_damaged_shard_is_made_again_alone(make, tmp_path, quick):
    before = pixels_of(make()[0])
    damaged = tmp_path / "dreams" / "train-00001.npy"
    damaged.write_bytes(damaged.read_bytes()[:200])
    progress = Counted()
    after, facts = make(progress=progress)
    assert progress.done == pytest.approx(5)  # the short second train shard
    assert not facts.reused
    assert_same(pixels_of(after), before)


@pytest.mark.parametrize("step", [1, 5, 11])
def test_an_interrupted_run_is_continued_and_ends_with_the_same_images(make, tmp_path, step):
    uninterrupted = pixels_of(make("whole")[0])
    with pytest.raises(KeyboardInterrupt):
        make("stopped", progress=InterruptedAt(step))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "stopped").glob("*.npy")}
    assert len(kept) == (step - 1) // 3  # three steps make a shard
    continued, _ = make("stopped")
    assert_same(pixels_of(continued), uninterrupted)
    assert kept.items() <= {path.name: path.read_bytes() for path in (tmp_path / "stopped").glob("*.npy")}.items()


def test_hooks_are_off_the_teacher_after_an_interruption(make, teacher):
    with pytest.raises(KeyboardInterrupt):
        make(progress=InterruptedAt(2))
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_images_that_are_not_numbers_are_an_error_and_leave_no_shard(make, teacher, tmp_path):
    teacher[1].running_mean.fill_(float("nan"))
    with pytest.raises(StageError, match="diverged"):
        make()
    assert list((tmp_path / "dreams").iterdir()) == []


def test_a_teacher_whose_images_all_come_out_alike_is_found_out(input_spec, quick, cpu, tmp_path):
    """Its one class is "black": every start ends at the dark edge of the pixel range."""
    linear = nn.Linear(3 * 8 * 8, 2)
    nn.init.constant_(linear.weight[0], -1.0)
    nn.init.constant_(linear.weight[1], 1.0)
    settings = quick.model_copy(update={"lr": 100.0})
    network = nn.Sequential(nn.Flatten(), linear)
    with pytest.raises(StageError, match="share an image"):
        synthesize(Source(network, input_spec, OutputSpec.one_label(1), cpu), settings, seed=0, folder=tmp_path)


def test_the_key_follows_everything_the_images_depend_on(teacher, input_spec, quick, cpu):
    def key(network=teacher, spec=input_spec, num_classes=4, settings=quick, seed=0, device="cpu"):
        compute = dataclasses.replace(cpu, device=torch.device(device))
        return synthesis_key(Source(network, spec, OutputSpec.one_label(num_classes), compute), settings, seed)

    other_stride = nn.Sequential(*teacher)
    other_stride[3] = nn.Conv2d(16, 16, 3, 1, padding=1, bias=False)
    other_stride.load_state_dict(teacher.state_dict())
    first = key()
    others = {
        key(network=other_stride),
        key(spec=dataclasses.replace(input_spec, range=(0.0, 255.0))),
        key(num_classes=3),
        key(settings=quick.model_copy(update={"lr": 0.25})),
        key(seed=1),
        key(device="cuda"),
    }
    assert len(others | {first}) == 7
    assert key() == first
    teacher[1].running_var[0] += 1e-3
    assert key() != first

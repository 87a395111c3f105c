"""Several processes make the images, statistics and student that one makes."""

import copy

import numpy as np
import pytest
import torch

from edgerecover.artifacts import OutputSpec
from edgerecover.compute import Compute
from edgerecover.config import Blockwise, Refresh
from edgerecover.distributed import ALONE, Ranks
from edgerecover.errors import BadInputError
from edgerecover.pruning import apply_masks, global_magnitude_masks
from edgerecover.recovery.distill import distill
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.statistics import repair_statistics
from edgerecover.synthesis.sets import synthesize
from edgerecover.synthesis.source import Source
from tests.conftest import INPUT, NUM_CLASSES
from tests.pairs import pair_of
from tests.processes import in_processes

FLOAT32 = Compute(torch.device("cpu"), None, torch.channels_last)
AGREEMENT = 0.02
"""Of 64 images: one may fall on the other side."""


def pruned(teacher):
    student = copy.deepcopy(teacher)
    masks = global_magnitude_masks(student, 0.8)
    apply_masks(student, masks)
    return student, masks


def whole_way(ranks, teacher, synthesis, recovery, folder):
    """Images, repaired statistics, layers, distillation with fresh images and every kind of view."""
    torch.use_deterministic_algorithms(True)
    student, masks = pruned(teacher)
    sets, _ = synthesize(
        Source(copy.deepcopy(teacher), INPUT, OutputSpec.one_label(NUM_CLASSES), FLOAT32),
        synthesis,
        seed=0,
        folder=folder,
        ranks=ranks,
    )
    repaired = copy.deepcopy(student)
    repair_statistics(pair_of(repaired, teacher), sets.train, 32, Execution(FLOAT32, ranks=ranks))
    found = recover(
        pair_of(student, teacher, masks), sets, recovery, Execution(FLOAT32, ranks=ranks), seed=0, synthesis=synthesis
    )
    rungs = [(rung.name, rung.agreement) for rung in found.rungs]
    return sets.sha256, repaired.state_dict(), found.student.state_dict(), rungs


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_end_with_one_processs_student(size, teacher, synthesis, recovery, tmp_path):
    pytest.importorskip("accelerate")
    recovery = recovery.model_copy(
        update={
            "layerwise": True,
            "blockwise": Blockwise(num_steps=4, batch_size=16, lr=1e-2),
            "batch_size": 30,  # which four processes share unevenly
            "flip": True,
            "crop_fraction": 0.125,
            "zoom_fraction": 0.5,
            "cutmix_share": 0.5,
            "colour_jitter": 0.5,
            "refresh": Refresh(every_steps=10, num_images=32, num_steps=5, lr=0.1, weight=1.0),
        }
    )
    synthesis = synthesis.model_copy(update={"batch_size": 16})
    one = whole_way(ALONE, teacher, synthesis, recovery, tmp_path / "one")
    found = in_processes(size, __file__, "whole_way", tmp_path, teacher, synthesis, recovery, tmp_path / "several")
    sha256, repaired, student, rungs = one
    assert len(rungs) == 5
    for rank, (its_sha256, its_repaired, its_student, its_rungs) in enumerate(found):
        assert its_sha256 == sha256, "the very same images"
        for name, value in repaired.items():
            torch.testing.assert_close(its_repaired[name], value, rtol=1e-5, atol=1e-6, msg=name)
        if rank:
            assert its_rungs == []
            continue
        assert [name for name, _ in its_rungs] == [name for name, _ in rungs]
        np.testing.assert_allclose([v for _, v in its_rungs], [v for _, v in rungs], atol=AGREEMENT)
        for name, value in student.items():
            if value.is_floating_point():
                difference = (its_student[name] - value).norm() / value.norm().clamp_min(1e-6)
                assert difference < 0.01, name
                assert torch.equal(its_student[name] == 0, value == 0) or "weight" not in name, name


def test_more_processes_than_images_in_a_batch_are_refused(teacher, recovery, sets):
    student, masks = pruned(teacher)
    with pytest.raises(BadInputError, match="40 processes cannot share batches of 32"):
        distill(pair_of(student, teacher, masks), sets.train, recovery, Execution(FLOAT32, ranks=Ranks(0, 40)), seed=0)


def test_shares_are_all_of_it_once():
    for size in (1, 2, 3, 8):
        ranks = [Ranks(rank, size) for rank in range(size)]
        assert sorted(item for one in ranks for item in one.share(range(13))) == list(range(13))
        rows = [one.rows(13) for one in ranks]
        assert [row for part in rows for row in part] == list(range(13))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1

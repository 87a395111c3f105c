"""Answers to all images are kept, and of maps no more scores than fit in memory."""

import numpy as np
import pytest

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.measure import at_once, collect, measure_of
from edgerecover.tasks.measure.outputs import MAX_MAP_BYTES, num_kept

MAPS = OutputSpec(TaskKind.SEGMENTATION, (21, 224, 224))
ROWS = OutputSpec.one_label(1000)


def test_all_rows_of_scores_are_kept_and_as_many_maps_as_fit():
    assert num_kept(50_000, ROWS) == 50_000
    assert num_kept(512, MAPS) * 4 * MAPS.num_values <= MAX_MAP_BYTES
    assert num_kept(20, MAPS) == 20
    assert num_kept(512, OutputSpec(TaskKind.SEGMENTATION, (21, 2048, 2048))) == 8


def test_batches_of_large_maps_are_small():
    assert at_once(ROWS, 128) == 128
    assert at_once(MAPS, 128) == 15
    assert at_once(OutputSpec(TaskKind.SEGMENTATION, (21, 2048, 2048)), 128) == 1


def test_answers_are_of_all_images_and_scores_of_the_first(monkeypatch):
    monkeypatch.setattr("edgerecover.tasks.measure.outputs.MAX_MAP_BYTES", 1)
    measure = measure_of(OutputSpec(TaskKind.SEGMENTATION, (2, 2, 2)))
    outputs_ND = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    outputs_ND[18, 3] = np.inf
    found = collect(iter(np.split(outputs_ND, [5, 10, 15])), 20, measure)
    assert len(found) == 20
    np.testing.assert_array_equal(found.answers, measure.read(outputs_ND))
    np.testing.assert_array_equal(found.scores, outputs_ND[:8])
    assert found.is_finite.sum() == 19


def test_missing_outputs_are_told():
    with pytest.raises(ValueError, match="outputs of 4 images were expected, found 3"):
        collect([np.zeros((3, 5))], 4, measure_of(OutputSpec.one_label(5)))

"""What a bundle holds."""

import io

import numpy as np
import pytest

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.stages.bundle import golden_files


@pytest.mark.parametrize(
    ("shape", "expected"), [((10,), 16), ((21, 65, 65), 16), ((21, 224, 224), 3), ((21, 1024, 1024), 2)]
)
def test_of_large_maps_fewer_golden_images_are_kept(shape, expected):
    def score(images_NCHW):
        return np.zeros((len(images_NCHW), 1), np.float32)  # as many as it was asked for

    images_NCHW = np.arange(16, dtype=np.float32).reshape(16, 1, 1, 1)
    files = golden_files(score, score, images_NCHW, OutputSpec(TaskKind.SEGMENTATION, shape))
    arrays = [np.load(io.BytesIO(content)) for content in files.values()]
    assert [len(array) for array in arrays] == [expected] * 3
    assert arrays[0].ravel().tolist() == list(range(expected))

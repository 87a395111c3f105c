import numpy as np
import pytest
import torch
from torch import nn

from edgerecover.recovery.border import border_of
from edgerecover.recovery.views import augment
from edgerecover.synthesis.image_set import ImageSet, PixelScale, write_shard


@pytest.mark.parametrize("trained_with", ["edge", "zero"])
def test_the_border_that_the_teacher_was_trained_with_is_found(trained_with, recovery, cpu, tmp_path):
    """On bytes, where a zero is black."""
    pixels = np.random.default_rng(0).integers(100, 256, (64, 3, 8, 8)).astype(np.uint8)
    shard = write_shard(tmp_path, "train-00000", pixels, (), 0, 0.0)
    images = ImageSet(tmp_path, PixelScale((0.0,) * 3, (255.0,) * 3), (shard,))
    settings, rng = recovery.model_copy(update={"crop_fraction": 0.25}), np.random.default_rng(0)
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None)).requires_grad_(False)
    for _ in range(20):
        seen = settings.model_copy(update={"crop_border": trained_with})
        teacher(augment(torch.from_numpy(pixels).float(), seen, images.scale, torch.Generator().manual_seed(0), rng))
    assert border_of(teacher.eval(), images, settings, cpu) == trained_with
    assert border_of(teacher[:1], images, settings, cpu) == "edge"

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgerecover.recovery.views import augment, draw_views
from edgerecover.synthesis.image_set import PixelScale

SCALE = PixelScale((0.0,) * 3, (5000.0,) * 3)


def augmented(batch, recovery, **changes):
    settings = recovery.model_copy(update=changes)
    return augment(batch, settings, SCALE, torch.Generator().manual_seed(0), np.random.default_rng(0))


@pytest.fixture
def numbered():
    """32 images, every pixel its own number, none of them zero."""
    return torch.arange(1, 32 * 3 * 6 * 8 + 1, dtype=torch.float32).view(32, 3, 6, 8)


def test_without_augmentation_a_batch_is_as_it_was(numbered, recovery):
    assert torch.equal(augmented(numbered, recovery), numbered)


def test_flips_mirror_about_half_of_the_images_across(numbered, recovery):
    flipped = augmented(numbered, recovery, flip=True)
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(flipped, numbered, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(flipped, numbered, strict=True)]
    assert sum(mirrored) + sum(kept) == 32
    assert 8 < sum(mirrored) < 24


@pytest.mark.parametrize(("border", "mode"), [("zero", "constant"), ("edge", "replicate")])
def test_crops_shift_by_at_most_the_fraction_and_fill_what_they_uncover(numbered, recovery, border, mode):
    pad = 2
    shifted = augmented(numbered, recovery, crop_fraction=pad / 6, crop_border=border)
    assert shifted.shape == numbered.shape
    padded = F.pad(numbered, (pad,) * 4, mode=mode)
    windows = {(top, left): padded[:, :, top : top + 6, left : left + 8] for top in range(5) for left in range(5)}
    found = [[at for at, window in windows.items() if torch.equal(shifted[i], window[i])] for i in range(32)]
    assert all(len(where) == 1 for where in found)
    assert len({where[0] for where in found}) > 10


def test_zooms_show_a_part_of_each_image(numbered, recovery):
    zoomed = augmented(numbered, recovery, zoom_fraction=0.3)
    assert zoomed.shape == numbered.shape
    for old, new in zip(numbered, zoomed, strict=True):
        assert old.min() - 1e-4 <= new.min() <= new.max() <= old.max() + 1e-4
        assert new.std() < old.std()


def test_cutmix_takes_one_rectangle_from_another_image(numbered, recovery):
    mixed = augmented(numbered, recovery, cutmix_share=1.0)
    changed_NHW = (mixed != numbered).any(1)
    touched = changed_NHW.any(0)
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    assert 0 < touched.sum() < touched.numel()
    assert touched[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert set(mixed.flatten().tolist()) <= set(numbered.flatten().tolist())
    torch.testing.assert_close(mixed.mean(), numbered.mean())  # a permutation loses no pixel


def test_colours_change_image_by_image_within_the_range_of_pixels(numbered, recovery):
    changed = augmented(numbered, recovery, colour_jitter=0.5)
    assert changed.shape == numbered.shape
    assert changed.min() >= 0
    assert changed.max() <= 5000
    shifts_N = (changed - numbered).mean((1, 2, 3)) / 5000
    assert shifts_N.abs().max() <= 0.25 + 1e-6
    assert shifts_N.std() > 0.05
    in_range_N = (changed > 0).all(1).all(1).all(1) & (changed < 5000).all(1).all(1).all(1)
    contrasts_N = changed.mean(1).std((1, 2)) / numbered.mean(1).std((1, 2))
    assert in_range_N.sum() > 8
    assert contrasts_N[in_range_N].min() >= 0.5 - 1e-3
    assert contrasts_N[in_range_N].max() <= 1.5 + 1e-3
    spread = [images_NCHW.mean((2, 3)).std(1) / images_NCHW.mean(1).std((1, 2)) for images_NCHW in (changed, numbered)]
    saturations_N = (spread[0] / spread[1])[in_range_N]
    assert 0.5 - 1e-3 <= saturations_N.min() < saturations_N.max() <= 1.5 + 1e-3


def test_colours_that_are_not_decided_are_an_error(numbered, recovery):
    with pytest.raises(ValueError, match="settle the profile first"):
        augmented(numbered, recovery, colour_jitter="auto")


def test_colours_of_one_channel_change_too(recovery):
    grey = torch.rand((8, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    settings = recovery.model_copy(update={"colour_jitter": 0.5})
    changed = augment(
        grey, settings, PixelScale((0.0,), (1.0,)), torch.Generator().manual_seed(0), np.random.default_rng(0)
    )
    assert all((new - old).abs().max() > 0.01 for new, old in zip(changed, grey, strict=True))


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_rows_of_views_are_those_of_the_whole_batch(recovery, cutmix):
    settings = recovery.model_copy(
        update={
            "flip": True,
            "crop_fraction": 0.125,
            "zoom_fraction": 0.5,
            "cutmix_share": cutmix,
            "colour_jitter": 0.5,
        }
    )
    batch = torch.randn((7, 3, 8, 8), generator=torch.Generator().manual_seed(0))

    def made_of(rows):
        generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(1)
        views = draw_views(batch.shape, settings, SCALE, generator, rng)
        made = views.of(batch[views.needed(rows)], rows)
        return made, torch.rand(1, generator=generator), rng.random()

    whole, after, after_numpy = made_of(range(7))
    for rows in (range(0, 3), range(3, 7), range(0, 7), range(6, 7)):
        part, *state = made_of(rows)
        assert torch.equal(part, whole[rows.start : rows.stop])
        assert state == [after, after_numpy]

import pytest
import torch
from torch import nn

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.config import WithoutNorms, load_profile
from edgerecover.progress import Silent
from edgerecover.synthesis import settle as module
from edgerecover.synthesis.procedural import procedural_images
from edgerecover.synthesis.settle import has_norms, has_pixel_statistics, settle
from edgerecover.synthesis.source import Source


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, message):
        self.lines.append(message)


@pytest.fixture
def profile(synthesis, recovery):
    """Its recipe without statistics differs in one number of each table."""
    synthesis = synthesis.model_copy(update={"images_at_once": 16})
    plain = load_profile("balanced").model_copy(update={"synthesis": synthesis, "recovery": recovery})
    other = WithoutNorms(
        synthesis=synthesis.model_copy(update={"num_steps": 7, "pixel_weight": 2.0}),
        recovery=recovery.model_copy(update={"num_steps": 11}),
    )
    return plain.model_copy(update={"without_norms": other})


def settled(profile, teacher, input, cpu, progress=None):
    return settle(profile, Source(teacher, input, OutputSpec.one_label(4), cpu), progress or Silent())


def test_a_teacher_with_batch_norm_keeps_the_recipe(profile, teacher, input_spec, cpu):
    found = settled(profile, teacher, input_spec, cpu)
    assert found.profile == profile.model_copy(update={"without_norms": None})
    assert found.mirror_correlation is None


def test_a_teacher_without_gets_the_other_one(profile, teacher_without_bn, input_spec, cpu):
    found = settled(profile, teacher_without_bn, input_spec, cpu).profile
    assert (found.synthesis, found.recovery) == (
        profile.without_norms.synthesis,
        profile.without_norms.recovery,
    )
    assert found.without_norms is None


def test_dreams_that_nothing_guides_start_from_shapes(profile, teacher, teacher_without_bn, input_spec, cpu):
    open_start = profile.model_copy(
        update={"synthesis": profile.synthesis.model_copy(update={"start": "auto"}), "without_norms": None}
    )
    assert settled(open_start, teacher, input_spec, cpu).profile.synthesis.start == "fractal"
    assert settled(open_start, teacher_without_bn, input_spec, cpu).profile.synthesis.start == "shapes"
    with_record = settle(open_start, Source(teacher_without_bn, input_spec, OutputSpec.one_label(4), cpu, object()))
    assert with_record.profile.synthesis.start == "fractal"


@pytest.mark.parametrize(("pixels", "start"), [("shapes", "shapes"), ("fractal", "fractal")])
def test_dreams_start_from_shapes_where_batch_norm_has_seen_nothing_like_fractals(pixels, start, profile, cpu):
    # As of digits: most pixels are black.
    input = InputSpec((1, 16, 16), (0.13,), (0.31,), (0.0, 1.0))
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    images_NCHW = procedural_images(pixels, 64, input.shape, input.bounds(), seed=1)
    teacher[1].momentum = 1.0
    teacher.train()(torch.from_numpy(images_NCHW))
    open_start = profile.model_copy(
        update={"synthesis": profile.synthesis.model_copy(update={"start": "auto"}), "without_norms": None}
    )
    assert settled(open_start, teacher, input, cpu).profile.synthesis.start == start


def test_a_record_is_added_to_the_recipe_without_norms(profile, teacher_without_bn, input_spec, cpu):
    found = settle(profile, Source(teacher_without_bn, input_spec, OutputSpec.one_label(4), cpu, object()))
    assert found.profile == settled(profile, teacher_without_bn, input_spec, cpu).profile


@pytest.mark.parametrize(
    ("layer", "normalises"),
    [
        (nn.BatchNorm2d(3), True),
        (nn.BatchNorm2d(3, track_running_stats=False), True),
        (nn.LayerNorm(3), True),
        (nn.GroupNorm(1, 3), True),
        (nn.InstanceNorm2d(3), True),
        (nn.Conv2d(3, 3, 1), False),
        (nn.Dropout(), False),
    ],
)
def test_any_kind_of_norm_counts(layer, normalises):
    assert has_norms(nn.Sequential(nn.ReLU(), nn.Sequential(layer))) is normalises


def test_a_profile_may_make_no_difference(profile, teacher_without_bn, input_spec, cpu):
    profile = profile.model_copy(update={"without_norms": None})
    assert settled(profile, teacher_without_bn, input_spec, cpu).profile == profile


def test_conventions_are_not_matched_as_statistics(profile, teacher_without_bn, cpu):
    conventional = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    assert settled(profile, teacher_without_bn, conventional, cpu).profile.synthesis.pixel_weight == 0


@pytest.mark.parametrize(
    ("mean", "std", "range", "known"),
    [
        ((0.1307,), (0.3081,), (0.0, 1.0), True),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (0.0, 1.0), True),
        ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7), (0.0, 255.0), True),
        ((0.5,), (0.5,), (0.0, 1.0), False),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (0.0, 1.0), False),
        ((0.0,), (1.0,), (0.0, 1.0), False),
        ((0.0,), (255.0,), (0.0, 255.0), False),
        ((127.5,), (127.5,), (0.0, 255.0), False),
        ((0.0,), (1.0,), (0.0, 255.0), False),
        ((103.9, 116.8, 123.7), (1.0, 1.0, 1.0), (0.0, 255.0), False),
        ((0.485, 0.456, 0.5), (0.229, 0.224, 0.5), (0.0, 1.0), False),
    ],
)
def test_which_means_and_stds_can_be_those_of_images(mean, std, range, known):
    assert has_pixel_statistics(InputSpec((len(mean), 8, 8), mean, std, range)) is known


@pytest.mark.parametrize(("correlation", "mirrored"), [(1.0, True), (0.81, True), (0.79, False), (-1.0, False)])
def test_mirroring_is_decided_once_for_both_tables(
    profile, teacher, input_spec, cpu, monkeypatch, correlation, mirrored
):
    asked = []
    monkeypatch.setattr(module, "mirror_correlation", lambda *_: asked.append(1) or correlation)
    profile = profile.model_copy(
        update={
            "synthesis": profile.synthesis.model_copy(update={"flip": "auto"}),
            "recovery": profile.recovery.model_copy(update={"flip": "auto"}),
        }
    )
    notes = Notes()
    found = settled(profile, teacher, input_spec, cpu, notes)
    assert (found.profile.synthesis.flip, found.profile.recovery.flip) == (mirrored, mirrored)
    assert found.mirror_correlation == correlation
    assert len(asked) == len(notes.lines) == 1
    assert ("not mirrored" in notes.lines[0]) is not mirrored


def test_a_plain_word_about_mirroring_stands(profile, teacher, input_spec, cpu, monkeypatch):
    monkeypatch.setattr(module, "mirror_correlation", lambda *_: 0.0)
    profile = profile.model_copy(
        update={
            "synthesis": profile.synthesis.model_copy(update={"flip": True}),
            "recovery": profile.recovery.model_copy(update={"flip": "auto"}),
        }
    )
    found = settled(profile, teacher, input_spec, cpu).profile
    assert found.synthesis.flip is True
    assert found.recovery.flip is False


@pytest.mark.parametrize(
    ("start", "output", "jitter"),
    [
        ("fractal", OutputSpec.one_label(4), 0.5),
        ("shapes", OutputSpec.one_label(4), 0.0),
        ("fractal", OutputSpec(TaskKind.REGRESSION, (4,)), 0.0),
    ],
)
def test_classifiers_of_photographs_are_shown_other_colours(profile, teacher, input_spec, cpu, start, output, jitter):
    open_profile = profile.model_copy(
        update={
            "synthesis": profile.synthesis.model_copy(update={"start": start}),
            "recovery": profile.recovery.model_copy(update={"colour_jitter": "auto"}),
        }
    )
    found = settle(open_profile, Source(teacher, input_spec, output, cpu), Silent())
    assert found.profile.recovery.colour_jitter == jitter


class OfOneSize(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(3), nn.Linear(3 * side * side, 4)

    def forward(self, images_NCHW):
        return self.last(self.norm(images_NCHW).flatten(1))


def test_steps_are_coarse_where_images_are_large_and_the_teacher_takes_half_of_them(profile, teacher, cpu):
    coarse = profile.model_copy(
        update={"synthesis": profile.synthesis.model_copy(update={"coarse_fraction": 0.5}), "without_norms": None}
    )
    large, small = (InputSpec((3, side, side), (0.4,) * 3, (0.2,) * 3) for side in (64, 32))
    cases = ((teacher, large, 0.5), (teacher, small, 0.0), (OfOneSize(64), large, 0.0))
    for network, spec, expected in cases:
        assert settled(coarse, network, spec, cpu).profile.synthesis.coarse_fraction == expected
    assert (
        settle(coarse, Source(teacher, large, OutputSpec.one_label(4), cpu, object())).profile.synthesis.coarse_fraction
        == 0.0
    )


@pytest.mark.parametrize("damage", ["", "{", '{"images_at_once": "many"}'])
def test_a_run_that_resumes_decides_as_before(profile, teacher, input_spec, cpu, tmp_path, monkeypatch, damage):
    measured = []
    monkeypatch.setattr(module, "mirror_correlation", lambda *_: measured.append("flip") or 0.875)
    monkeypatch.setattr(module, "images_at_once", lambda *_: measured.append("memory") or 8 * len(measured))
    asking = profile.synthesis.model_copy(update={"flip": "auto", "images_at_once": "auto"})
    asking = profile.model_copy(update={"synthesis": asking})
    source = Source(teacher, input_spec, OutputSpec.one_label(4), cpu)
    first = settle(asking, source, work=tmp_path / "work")
    assert (first.profile.synthesis.images_at_once, first.mirror_correlation) == (8, 0.875)
    assert settle(asking, source, work=tmp_path / "work") == first, "whatever memory is free now"
    assert measured == ["memory", "flip"]
    (kept,) = (tmp_path / "work").iterdir()
    if damage:
        kept.write_text(damage)
        settle(asking, source, work=tmp_path / "work")
    settle(asking, source)
    assert measured == ["memory", "flip"] * (3 if damage else 2)

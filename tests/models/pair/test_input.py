"""An assumed scale of inputs that the teacher's batch norm contradicts."""

import shutil

import pytest

from edgerecover.artifacts import InputSpec
from edgerecover.cli.inputs import model_flags
from edgerecover.demo.example import ARCHITECTURE, demo_files
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.pair.input import check_scale
from edgerecover.models.pair.networks import inspect, open_classifier, open_models

UNSCALED = InputSpec((1, 8, 8), (0.0,), (1.0,))


@pytest.fixture
def dense(tmp_path):
    return shutil.copy(demo_files().dense, tmp_path / "dense.safetensors")


def flags(**given):
    return ModelFlags(ARCHITECTURE, UNSCALED, **given)


def test_an_input_that_nobody_named_stops_and_says_what_was_found_and_what_to_do(dense):
    network = open_classifier(dense, flags()).network
    spec = ModelSpec("lib:net", "--arch", dense.parent, None, UNSCALED, "assumed", None, assumed_of="lib:net")
    with pytest.raises(BadInputError, match=r"mean 0 and std 1 are assumed.* has stored the statistics") as caught:
        check_scale(spec, network, ModelFlags(), dense)
    for words in ("--mean and --std", "--mean 0.5 --std 0.5 fits better", "--assume"):
        assert words in caught.value.hint
    assert "are assumed" in check_scale(spec, network, ModelFlags(assume=True), dense)


def test_of_a_shape_alone_there_is_a_warning(dense):
    (warning,) = open_models(dense, flags(assumes_scale=True), will_prune=True).warnings
    doubt = open_classifier(dense, flags(assumes_scale=True)).doubt
    for said in (warning, doubt):
        assert "mean 0 and std 1 are assumed" in said
        assert said.endswith("; --mean 0.5 --std 0.5 fits better")


def test_facts_say_that_it_is_assumed(dense):
    assert inspect(dense, flags(assumes_scale=True)).input_source == "--input-shape; mean and std are assumed"
    assert inspect(dense, flags()).input_source == "--input-shape"


def test_what_somebody_stated_is_not_doubted(dense):
    assert open_models(dense, flags(), will_prune=True).warnings == ()


@pytest.mark.parametrize(("stated", "warns"), [("", True), ("mean = [0.3052]\nstd = [0.3757]\n", False)])
def test_a_toml_file_without_mean_and_std_assumes_them(dense, stated, warns):
    dense.with_name("model.toml").write_text(f'architecture = "{ARCHITECTURE}"\n[input]\nshape = [1, 8, 8]\n{stated}')
    warnings = open_models(dense, ModelFlags(), will_prune=True).warnings
    assert ["are assumed" in warning for warning in warnings] == [True] * warns


@pytest.mark.parametrize(
    ("mean", "std", "assumed"), [(None, None, True), ("0.1", None, False), (None, "0.3", False), ("0", "1", False)]
)
def test_flags_say_whether_they_name_a_scale(mean, std, assumed):
    assert model_flags(None, "1,8,8", mean, std, trust_code=False).assumes_scale is assumed
    assert not model_flags(None, None, trust_code=False).assumes_scale

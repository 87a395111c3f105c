"""Finding targets and profiles by name or path; profiles that extend others."""

import pytest

from edgerecover.config import load_profile, load_target, shipped_names
from edgerecover.errors import EXIT_BAD_INPUT, BadInputError

PROFILE = """\
name = "mine"
description = "a recipe"

[synthesis]
num_train = 64
num_calibration = 16
num_held_back = 16
batch_size = 16
num_steps = 10
lr = 0.1
schedule = "cosine"
betas = [0.5, 0.9]
class_term = "target"
class_weight = 0.2
bn_weight = 1.0
bn_distance = "l2"
tv_weight = 0.001
jitter_fraction = 0.1
flip = true
start = "low-frequency"
clamp = "pixel-range"

[recovery]
repair_statistics = true
num_steps = 20
batch_size = 16
optimizer = "adam"
lr = 0.001
schedule = "cosine"
temperature = 3.0
scale_by_temperature_squared = true
feature_weight = 1.0
bn = "adapt"
flip = true
crop_fraction = 0.1

[gates]
min_agreement = 0.9
min_parity_top1 = 0.99
max_parity_relative = 0.001
max_accuracy_drop_points = 2.0

[latency]
num_warmup = 5
min_queries = 20
min_duration_s = 0.1
"""


def test_a_path_ending_in_toml_names_ones_own_target(target_toml):
    text = target_toml.read_text(encoding="utf-8")
    target_toml.write_text(text.replace('name = "x86-cpu"', 'name = "my-box"'), encoding="utf-8")
    assert load_target(str(target_toml)).name == "my-box"


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(
        BadInputError, match=r"unknown target 'jetson-orin-nanno'; did you mean 'jetson-orin-nano'\?"
    ) as error:
        load_target("jetson-orin-nanno")
    assert error.value.exit_code == EXIT_BAD_INPUT
    assert "edgerecover targets list" in error.value.hint


def test_a_name_near_nothing_gets_no_guess():
    with pytest.raises(BadInputError, match=r"unknown target 'zzzz'$"):
        load_target("zzzz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"target file .*nowhere\.toml does not exist"):
        load_target(str(tmp_path / "nowhere.toml"))


@pytest.mark.parametrize("name", shipped_names("profiles"))
def test_a_shipped_profile_loads_under_its_file_name(name):
    assert load_profile(name).name == name


def test_a_profile_extends_another_and_changes_single_keys(tmp_path):
    (tmp_path / "mine.toml").write_text(PROFILE, encoding="utf-8")
    child = tmp_path / "child.toml"
    child.write_text('extends = "mine.toml"\nname = "child"\n[recovery]\nnum_steps = 99\n', encoding="utf-8")
    parent, profile = load_profile(str(tmp_path / "mine.toml")), load_profile(str(child))
    assert (profile.name, profile.recovery.num_steps) == ("child", 99)
    assert profile.recovery.lr == parent.recovery.lr
    assert profile.synthesis == parent.synthesis


def test_profiles_that_extend_each_other_are_refused(tmp_path):
    for name, parent in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{parent}.toml"\n', encoding="utf-8")
    with pytest.raises(BadInputError, match="extend each other in a cycle"):
        load_profile(str(tmp_path / "a.toml"))


def test_extends_names_a_profile_that_is_there(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "no-such-profile-at-all"\n', encoding="utf-8")
    with pytest.raises(BadInputError, match="unknown profile 'no-such-profile-at-all'"):
        load_profile(str(path))


def test_extends_takes_a_name_only(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nextends = 3\n', encoding="utf-8")
    with pytest.raises(BadInputError, match=r"mine\.toml:2: extends: expected the name of a profile"):
        load_profile(str(path))


def test_a_fault_in_a_nested_table_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE.replace("temperature = 3.0", "temprature = 3.0"), encoding="utf-8")
    line = PROFILE[: PROFILE.index("temperature = 3.0")].count("\n") + 1
    with pytest.raises(BadInputError) as error:
        load_profile(str(path))
    assert f"{path}:{line}: unknown key 'recovery.temprature'; did you mean 'temperature'?" in error.value.message


def test_the_recipe_without_norms_changes_what_it_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE + "\n[without_norms.recovery]\nnum_steps = 77\n")
    profile = load_profile(str(path))
    assert profile.without_norms.synthesis == profile.synthesis
    assert profile.without_norms.recovery == profile.recovery.model_copy(update={"num_steps": 77})


def test_the_recipe_without_norms_is_taken_over_and_follows_what_it_leaves_open(tmp_path):
    (tmp_path / "below.toml").write_text(PROFILE + "\n[without_norms.recovery]\nnum_steps = 77\n")
    above = tmp_path / "above.toml"
    above.write_text('name = "above"\nextends = "below.toml"\n[recovery]\nlr = 0.5\n')
    profile = load_profile(str(above))
    assert (profile.without_norms.recovery.num_steps, profile.without_norms.recovery.lr) == (77, 0.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[without_norms.recovery]\nnum_stepz = 7", "num_stepz"),
        ("[without_norms.synthesis]\nlr = -1.0", "without_norms.synthesis.lr"),
        ("[without_norms.synthesiz]\nlr = 1.0", "synthesiz"),
    ],
)
def test_a_wrong_recipe_without_norms_is_found_with_its_line(tmp_path, table, message):
    path = tmp_path / "mine.toml"
    path.write_text(f"{PROFILE}\n{table}\n")
    line = len(path.read_text().splitlines())
    with pytest.raises(BadInputError) as error:
        load_profile(str(path))
    assert message in error.value.message
    assert f"mine.toml:{line if 'synthesiz]' not in table else line - 1}:" in error.value.message


@pytest.mark.parametrize("value", ["without_norms = 3", "[without_norms]\nrecovery = 3"])
def test_a_recipe_without_norms_that_is_no_table_is_an_error(tmp_path, value):
    path = tmp_path / "mine.toml"
    path.write_text(f"{value}\n{PROFILE}" if value.endswith("= 3") and "[" not in value else f"{PROFILE}\n{value}\n")
    with pytest.raises(BadInputError, match="without_norms"):
        load_profile(str(path))


def test_shipped_profiles_leave_mirroring_to_the_teacher_or_say_why_not():
    flips = {
        name: (load_profile(name).synthesis.flip, load_profile(name).recovery.flip)
        for name in shipped_names("profiles")
    }
    assert flips["balanced"] == flips["fast"] == flips["quality"] == ("auto", "auto")
    assert flips["demo"] == flips["smoke"] == (False, False)

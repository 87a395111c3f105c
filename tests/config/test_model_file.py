"""`model.toml`: what it gives, and how a wrong one is reported."""

import pytest

from edgerecover.artifacts import InputSpec, Stated
from edgerecover.config import ModelFile, parse, read_toml
from edgerecover.errors import BadInputError


def model_file(tmp_path, text):
    path = tmp_path / "model.toml"
    path.write_text(text, encoding="utf-8")
    return parse(ModelFile, read_toml(path), path)


def test_model_toml_may_be_empty(tmp_path):
    assert model_file(tmp_path, "") == ModelFile()


def test_model_toml_gives_the_input_of_the_network(tmp_path):
    text = "[input]\nshape = [3, 32, 32]\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\nrange = [0, 255]\n"
    assert model_file(tmp_path, text).input.to_spec() == InputSpec(
        (3, 32, 32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), (0.0, 255.0)
    )


def test_model_toml_states_licence_and_card(tmp_path):
    text = 'licence = "MIT"\n[card]\nname = "sorter"\nauthors = ["A"]\nlimitations = ["x", "y"]\n'
    assert model_file(tmp_path, text).stated() == Stated("MIT", "sorter", authors=("A",), limitations=("x", "y"))
    assert model_file(tmp_path, "").stated() == Stated()


def test_without_mean_and_std_a_pixel_goes_in_as_it_is(tmp_path):
    spec = model_file(tmp_path, "[input]\nshape = [1, 8, 8]\n").input.to_spec()
    assert (spec.mean, spec.std, spec.range) == ((0.0,), (1.0,), (0.0, 1.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[input]\nshape = [3, 8, 8]\nmean = [0.5]\n", r":1: input: mean has 1 values for 3 channels"),
        ("[input]\nshape = [3, 8, 8]\nrange = [1, 0]\n", r":3: input.range: the lowest pixel must come before"),
        ("[input]\nshape = [8, 8]\n", r":2: input.shape: too few values \(found \[8, 8\]\)"),
        ("[input]\nshape = [1, 8, 8]\nstd = [0.0]\n", r":3: input.std.0: must be more than 0"),
        ('[card]\nauthor = "A"\n', r":2: unknown key 'card.author'; did you mean 'authors'"),
        (f'licence = "{"x" * 2001}"\n', r":1: licence: .*at most 2000"),
        ('teacher = "dense.pt"\nclases = ["a"]\n', r":2: unknown key 'clases'; did you mean 'classes'"),
        ('[outputs.age]\ntsk = "binary"\n', r":2: unknown key 'outputs.age.tsk'; did you mean 'task'"),
        ("[outputs.age]\nloss = 1\n", r":2: unknown key 'outputs.age.loss'; known keys: classes, task, weight"),
        (
            'classes = ["a"]\n[outputs.kind]\nclasses = ["a"]\n',
            r"classes are named, and those of \[outputs.kind\] too",
        ),
        (
            'task = "multi-label"\n[outputs.kind]\ntask = "one-label"\n',
            r"task is 'multi-label', and that of \[outputs.kind\] is 'one-label'",
        ),
    ],
)
def test_a_wrong_model_toml_is_reported_where_it_is_wrong(tmp_path, text, message):
    with pytest.raises(BadInputError, match=message) as error:
        model_file(tmp_path, text)
    assert "edgerecover help model-toml" in error.value.hint

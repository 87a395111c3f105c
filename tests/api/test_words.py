import pytest

from edgerecover.api.words import errors_in_python, in_python
from edgerecover.errors import BadInputError

PARAMETERS = {"input_shape", "mean", "std", "out", "run_folder", "resume", "pattern", "sparsity", "eval_data", "batch"}
PARAMETERS |= {"teacher", "pixel_range", "precision", "task"}


@pytest.mark.parametrize(
    ("line", "python"),
    [
        ("give --input-shape, --mean and --std", "give input_shape=, mean= and std="),
        ("for example --input-shape 3,224,224", "for example input_shape=(3, 224, 224)"),
        ("for example --pixel-range 0,255", "for example pixel_range=(0, 255)"),
        ("--std 0: expected numbers above 0", "std=0: expected numbers above 0"),
        ("--pattern 2:4 --sparsity 0.5", "pattern='2:4' sparsity=0.5"),
        ("--pattern unstructured --sparsity 0.75 prunes it", "pattern='unstructured' sparsity=0.75 prunes it"),
        ("--pattern channel needs --sparsity", "pattern='channel' needs sparsity="),
        ("--task binary, or --task regression; or task in", "task='binary', or task='regression'; or task in"),
        ("--out /tmp/a b: already exists", "out=/tmp/a b: already exists"),
        ("--out /tmp/a.bundle: already exists", "out='/tmp/a.bundle': already exists"),
        ("name another folder with --work", "name another folder with run_folder="),
        ("give --teacher, or as teacher in model.toml", "give teacher=, or as teacher in model.toml"),
        ("export with --batch 1, which is judged", "export with batch=1, which is judged"),
        ("leave out --precision to ship", "leave out precision= to ship"),
        ("run `edgerecover run --out a`, or give --out", "run `edgerecover run --out a`, or give out="),
        ("read the code, then run it with --debug", "read the code, then run it with --debug"),
        ("the images (--eval-data)", "the images (eval_data=)"),
    ],
)
def test_flags_are_keyword_arguments(line, python):
    assert in_python(line, PARAMETERS).replace("out= ", "out=") == python


def test_the_hint_is_shown_with_the_message():
    def save(path):
        with errors_in_python(save, out="path"):
            raise BadInputError("--out x: already exists", hint="name another path with --out")

    with pytest.raises(BadInputError) as caught:
        save("x")
    assert str(caught.value) == "path='x': already exists\n  next: name another path with path="
    assert caught.value.hint == "name another path with path="

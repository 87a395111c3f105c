"""What a file holds beside the weights that were taken is named."""

import pytest
import torch

from edgerecover.models.read.unused import unused_in_words

WEIGHTS = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"head": WEIGHTS}, ["'head' beside them not used (2 tensors)"]),
        ({"head": WEIGHTS, "teacher": {"net": WEIGHTS}}, ["'head' and 'teacher' beside them not used (4 tensors)"]),
        (
            {"ema": {"decay": 0.9, "num_updates": 3, "shadow_params": [torch.ones(3, 2), torch.ones(3)]}},
            ["not the running average under 'ema', 2 tensors without the weights' names"],
        ),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(3, 2)}}, "param_groups": []}}, []),
        ({"adam": [{"state": {0: {"exp_avg": torch.ones(3, 2)}}, "param_groups": []}]}, []),
        ({"rng_state": torch.ones(5056), "epoch": 3, "best": torch.tensor(0.9), "prototypes": torch.ones(4)}, []),
        ({"class_weights": {"w": torch.ones(4)}}, []),
        ({"masks": {"weight": torch.ones(3, 2)}}, []),
    ],
)
def test_only_what_could_be_weights_is_named(beside, words):
    assert unused_in_words({"state_dict": WEIGHTS, **beside}, ("state_dict",)) == words


def test_other_levels_and_what_was_taken():
    root = {"checkpoint": {"model": WEIGHTS, "ema": WEIGHTS, "head": WEIGHTS}, "aux": WEIGHTS}
    (words,) = unused_in_words(root, ("checkpoint", "model"), ("ema",))
    assert words == "'aux' and 'head' beside them not used (4 tensors)"


def test_a_dictionary_that_holds_itself_ends():
    circle = {"state_dict": WEIGHTS}
    circle["again"] = circle
    assert len(unused_in_words(circle, ("state_dict",))) == 1

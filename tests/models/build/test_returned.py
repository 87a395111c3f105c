"""What cannot be recovered as it was returned gets advice that fits it."""

import pytest
import torch

from edgerecover.models.build.returned import describe, hint_of

LEVELS = [torch.zeros(2, 8, 8, 8), torch.zeros(2, 8, 4, 4)]


@pytest.mark.parametrize(
    ("returned", "words", "advice"),
    [
        (LEVELS, "list of [2, 8, 8, 8], [2, 8, 4, 4]", "return the candidates that its maps stand for"),
        ({"maps": LEVELS}, "dict of maps list ([2, 8, 8, 8], [2, 8, 4, 4])", "--task maps_0=segmentation"),
        (
            {"boxes": LEVELS, "scores": LEVELS},
            "dict of boxes list ([2, 8, 8, 8], [2, 8, 4, 4]), scores list ([2, 8, 8, 8], [2, 8, 4, 4])",
            "--task boxes_0=segmentation",
        ),
        (
            {"boxes": torch.zeros(2, 90, 4), "scores": torch.zeros(2, 90, 3)},
            "dict of boxes [2, 90, 4], scores [2, 90, 3]",
            "torch.cat([boxes, scores], 2)",
        ),
        (
            (torch.zeros(2, 5, 2), torch.zeros(2, 8, 8, 8), torch.zeros(2, 8, 4, 4)),
            "tuple of [2, 5, 2], [2, 8, 8, 8], [2, 8, 4, 4]",
            "name the one to recover with its task, --task output_0=TASK",
        ),
        ({"boxes": torch.zeros(3, 4)}, "dict of boxes [3, 4]", "suppresses boxes itself"),
        (3, "int", "returns the logits alone"),
        (torch.zeros(2, dtype=torch.int64), "int64 [2]", "before argmax"),
    ],
)
def test_advice_fits_what_was_returned(returned, words, advice):
    assert describe(returned) == words
    assert advice in hint_of(returned)

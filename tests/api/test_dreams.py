import pytest
import torch

import edgerecover
from edgerecover.errors import BadInputError
from tests.api.conftest import INPUT, state_of


def test_dreams_are_network_inputs_with_the_classes_they_were_made_for(dense, profile):
    before = state_of(dense)
    images, labels = edgerecover.dream(dense, 9, profile=profile, **INPUT, progress=False)
    assert images.shape == (9, 1, 8, 8)
    assert images.dtype == torch.float32
    assert -2 <= images.min() < images.max() <= 2  # (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())


def test_the_number_of_images_is_at_least_one(dense):
    with pytest.raises(BadInputError, match="num_images=0: expected 1 or more"):
        edgerecover.dream(dense, 0, **INPUT)

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgerecover.artifacts import InputSpec


@dataclass(frozen=True)
class Labelled:
    """What `EvalSet` is, of arrays."""

    input: InputSpec
    images: Any
    labels: Any

    def __len__(self):
        return len(self.labels)

    def sample(self, num_images):
        chosen = np.random.default_rng(0).permutation(len(self))[:num_images]
        return Labelled(self.input, self.images[chosen], self.labels[chosen])

    def batches(self, batch_size):
        for start in range(0, len(self), batch_size):
            yield self.images[start : start + batch_size], self.labels[start : start + batch_size]


@pytest.fixture(scope="session")
def labelled(real_images, input_spec):
    images, labels = real_images
    return Labelled(input_spec, images.numpy(), labels.numpy().astype(np.int64))

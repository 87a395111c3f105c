import numpy as np
import pytest

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of

OUTPUTS = (
    OutputSpec(TaskKind.ONE_LABEL, (5,)),
    OutputSpec(TaskKind.BINARY, (1,)),
    OutputSpec(TaskKind.MULTI_LABEL, (6,)),
    OutputSpec(TaskKind.EMBEDDING, (8,)),
    OutputSpec(TaskKind.REGRESSION, (3,)),
    OutputSpec(TaskKind.SEGMENTATION, (3, 4, 5)),
    OutputSpec(TaskKind.SEGMENTATION, (1, 4, 5)),
    OutputSpec(TaskKind.DETECTION, (7, 16)),
    OutputSpec(TaskKind.DETECTION, (16, 6)),
)


@pytest.fixture(params=OUTPUTS, ids=lambda output: f"{output.task.value}-{output.shape[0]}")
def measure(request):
    return measure_of(request.param)


@pytest.fixture
def logits(measure):
    """Of 12 images, and of a network that errs."""
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 2, (12, measure.output.num_values)).astype(np.float32)
    return reference, reference + rng.normal(0, 1, reference.shape).astype(np.float32)

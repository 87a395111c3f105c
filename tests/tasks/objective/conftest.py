import pytest
import torch

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective import objective_of

OUTPUTS = (
    OutputSpec(TaskKind.ONE_LABEL, (5,)),
    OutputSpec(TaskKind.BINARY, (1,)),
    OutputSpec(TaskKind.MULTI_LABEL, (6,)),
    OutputSpec(TaskKind.EMBEDDING, (8,)),
    OutputSpec(TaskKind.REGRESSION, (3,)),
    OutputSpec(TaskKind.SEGMENTATION, (3, 4, 5)),
    OutputSpec(TaskKind.SEGMENTATION, (1, 4, 5)),
    OutputSpec(TaskKind.DETECTION, (7, 16), input_sides=(32, 32)),
    OutputSpec(TaskKind.DETECTION, (16, 6), input_sides=(32, 32)),
)


@pytest.fixture(params=OUTPUTS, ids=lambda output: f"{output.task.value}-{output.shape[0]}")
def objective(request):
    return objective_of(request.param)


@pytest.fixture
def outputs(objective):
    """Of 8 images, of a teacher and of a student that errs."""
    generator = torch.Generator().manual_seed(0)
    teacher = 2 * torch.randn(8, objective.output.num_values, generator=generator)
    return teacher, teacher + torch.randn(teacher.shape, generator=generator)

import copy

import pytest

from edgerecover.prune import apply_masks, global_magnitude_masks


def pruned(network, sparsity):
    student = copy.deepcopy(network)
    masks = global_magnitude_masks(student, sparsity)
    apply_masks(student, masks)
    return student.eval().requires_grad_(False), masks


@pytest.fixture
def student_and_masks(teacher):
    """The toy teacher without four of five weights; it decides much worse than the teacher."""
    return pruned(teacher, 0.8)


@pytest.fixture
def student_and_masks_without_bn(teacher_without_bn):
    return pruned(teacher_without_bn, 0.8)

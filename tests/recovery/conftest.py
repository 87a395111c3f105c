import copy

import pytest
import torch
import torch.nn.functional as F

from edgerecover.pruning import apply_masks, global_magnitude_masks, prune_channels


def pruned(network, sparsity):
    student = copy.deepcopy(network)
    masks = global_magnitude_masks(student, sparsity)
    apply_masks(student, masks)
    return student.eval().requires_grad_(False), masks


@pytest.fixture
def student_and_masks(teacher):
    """The toy teacher without 93 % of its weights: it decides by chance until it is repaired."""
    return pruned(teacher, 0.93)


@pytest.fixture
def fine_tuned(student_and_masks, training_images):
    """The student after someone with labels has trained it under its mask."""
    student, masks = copy.deepcopy(student_and_masks[0]), student_and_masks[1]
    images, labels = training_images
    student.train().requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for step in range(30):
        chosen = torch.arange(64) + 64 * (step % 8)
        optimizer.zero_grad()
        F.cross_entropy(student(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        apply_masks(student, masks)
    return student.eval().requires_grad_(False)


@pytest.fixture
def student_and_masks_without_bn(teacher_without_bn):
    return pruned(teacher_without_bn, 0.9)


@pytest.fixture
def narrower(teacher, input_spec):
    """The toy teacher without some channels of every layer."""
    return prune_channels(teacher, input_spec, 0.47).requires_grad_(False)

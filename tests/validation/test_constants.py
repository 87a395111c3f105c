"""Outputs that a student gives alike for all images are named."""

import numpy as np
import pytest

from edgerecover.artifacts import OutputPart, OutputSpec, TaskKind
from edgerecover.validation.constants import notes_of_constants


@pytest.mark.parametrize(
    ("task", "shape", "stuck", "named"),
    [
        (TaskKind.ONE_LABEL, (5,), np.s_[:, 3], "the score of class 3:"),
        (TaskKind.REGRESSION, (3,), np.s_[:, 0], "value 0:"),
        (TaskKind.REGRESSION, (2, 4, 5), np.s_[:, 1], "value 1:"),
        (TaskKind.SEGMENTATION, (6, 4, 5), np.s_[:, 1:], "the score of class 1, the score of class 2, the score of "),
        (TaskKind.SEGMENTATION, (6, 4, 5), np.s_[:, 1:], "class 4 and 1 more:"),
        (TaskKind.DETECTION, (6, 20), np.s_[:, 2], "the width of all boxes:"),
        (TaskKind.DETECTION, (20, 6), np.s_[:, :, 5], "the score of class 1:"),
    ],
)
def test_what_is_the_same_for_all_images_is_named(task, shape, stuck, named):
    output = OutputSpec(task, shape)
    teacher = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    student = teacher.copy()
    student[stuck] = student[:1][stuck]
    (note,) = notes_of_constants(teacher.reshape(4, -1), student.reshape(4, -1), output)
    assert named in note
    assert notes_of_constants(teacher.reshape(4, -1), teacher.reshape(4, -1), output) == ()
    assert notes_of_constants(student.reshape(4, -1), student.reshape(4, -1), output) == ()


def test_of_several_outputs_each_is_named_with_its_own():
    kinds = OutputPart("kind", OutputSpec.one_label(3)), OutputPart("age", OutputSpec(TaskKind.REGRESSION, (2,)))
    teacher = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    student = teacher.copy()
    student[:, 4] = 0
    (note,) = notes_of_constants(teacher, student, OutputSpec.several(kinds))
    assert note.startswith("output age: value 1: the recovered network gives the same")


def test_a_part_of_a_map_may_be_the_same_and_numbers_of_embeddings_mean_nothing():
    teacher = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    student = teacher.copy()
    student[:, 0] = 0
    assert notes_of_constants(teacher, student, OutputSpec(TaskKind.SEGMENTATION, (2, 1, 3))) == ()
    assert notes_of_constants(teacher, student, OutputSpec(TaskKind.EMBEDDING, (6,))) == ()
    assert notes_of_constants(teacher[:1], student[:1], OutputSpec(TaskKind.ONE_LABEL, (6,))) == ()

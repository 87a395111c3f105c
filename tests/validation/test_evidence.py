"""Every doubt that a report may raise, and that it raises none without reason."""

import dataclasses

import numpy as np
import pytest

from edgerecover.artifacts import (
    Accuracy,
    ByClass,
    Descent,
    Fidelity,
    LayerSparsity,
    Lineage,
    ModelFacts,
    Pattern,
    Proportion,
    Rung,
    Sparsity,
    SyntheticFacts,
    TaskKind,
)
from edgerecover.errors import BadInputError
from edgerecover.validation.evidence import Claims, Decisions, decisions_of, doubts, doubts_of_file
from tests.pairs import measure_of_classes

CLASSES = ("cat", "dog", "fox", "owl")
LAYERS = (
    LayerSparsity("conv.weight", (8, 3, 3, 3), 216, 160, Pattern.UNSTRUCTURED),
    LayerSparsity("fc.weight", (4, 8), 32, 24, Pattern.UNSTRUCTURED),
)
STUDENT = ModelFacts(
    path="model.pt", sha256="", size_bytes=0, format="state_dict", architecture=None, architecture_source="",
    num_parameters=300, num_batch_norms=1, num_classes=4, has_masks=False, teacher_inside=False,
    sparsity=Sparsity(LAYERS, Pattern.UNSTRUCTURED), input=None, input_source="",
)  # fmt: skip
EMPTY = dataclasses.replace(LAYERS[1], num_zeros=32)
DENSE = Sparsity(
    tuple(dataclasses.replace(layer, num_zeros=0, pattern=Pattern.DENSE) for layer in LAYERS), Pattern.DENSE
)
RUNGS = (Rung("pruned", 0.6, 1.0, 0.0), Rung("distillation", 0.9, 0.1, 1.0, chosen=True))
N = 100


def agreeing(pruned, recovered):
    values = [Proportion(hits, N) for hits in (pruned, recovered, recovered)]
    return Fidelity(*values)


@pytest.mark.parametrize(
    ("chance", "pruned", "exported", "said"),
    [
        (0.3, 60, 90, None),
        (0.95, 60, 96, "answers nearly alike on all held-out dreams"),
        (0.5, 30, 50, "the file is at chance level: mean IoU with the teacher 50.0%"),
        (0.5, 45, 90, "before recovery the student was at chance level"),
        (None, 0, 0, None),
    ],
)
def test_a_task_without_classes_is_compared_with_always_answering_the_same(chance, pruned, exported, said):
    synthetic = SyntheticFacts(N, N, N, None, 1.0, reused=False)
    claims = Claims(
        None, synthetic, dataclasses.replace(agreeing(pruned, exported), chance=chance), None, None,
        TaskKind.SEGMENTATION,
    )  # fmt: skip
    teacher = dataclasses.replace(STUDENT, sparsity=DENSE)
    for raised in (doubts(claims, STUDENT, teacher, RUNGS, None), doubts_of_file(claims)):
        assert len(raised) == (said is not None)
        assert said is None or said in raised[0]


def test_an_output_that_says_nothing_is_named():
    """The weighted mean of both looks well."""
    synthetic = SyntheticFacts(N, N, N, None, 1.0, reused=False)
    seen = {"kind": ByClass((50, 50), (45, 45), (), (), 0), "side": ByClass((0, 100), (0, 100), (), (), 0)}
    each = {name: dataclasses.replace(agreeing(75, 90), by_class=one) for name, one in seen.items()}
    right = {"kind": on_real_images(90), "side": on_real_images(52), "age": on_real_images(10)}
    real = {
        name: dataclasses.replace(one, by_class=None if name == "age" else seen["kind"]) for name, one in right.items()
    }
    claims = Claims(
        None,
        synthetic,
        dataclasses.replace(agreeing(75, 90), by_output=each),
        dataclasses.replace(on_real_images(71), by_output=real),
        None,
        TaskKind.SEVERAL,
    )
    teacher = dataclasses.replace(STUDENT, sparsity=DENSE)
    for raised in (doubts(claims, STUDENT, teacher, RUNGS, None), doubts_of_file(claims)):
        of_dreams, of_real = raised
        assert of_dreams.startswith("output side: the teacher gives one and the same class on all held-out dreams")
        assert of_real.startswith(
            "output side: the teacher itself is right on 52.0% of photos, which is chance (50.0%)"
        )


def doubts_about(
    *,
    counts=(25, 25, 25, 25),
    on_target=0.95,
    student=STUDENT,
    rungs=RUNGS,
    lineage=None,
    fidelity=None,
    accuracy=None,
    classes=CLASSES,
    num_batch_norms=1,
    **options,
):
    decisions = Decisions(counts)
    synthetic = SyntheticFacts(decisions.num_images, 32, N, on_target, 1.0, reused=False)
    teacher = dataclasses.replace(STUDENT, sparsity=DENSE, num_batch_norms=num_batch_norms)
    claims = Claims(decisions, synthetic, fidelity or agreeing(75, 90), accuracy, classes)
    return doubts(claims, student, teacher, rungs, lineage, **options)


def with_layers(*layers, pattern=Pattern.UNSTRUCTURED, num_parameters=300):
    return dataclasses.replace(STUDENT, sparsity=Sparsity(layers, pattern), num_parameters=num_parameters)


def on_real_images(right):
    return Accuracy("photos", N, *(Proportion(right, N) for _ in range(4)), 0, 0)


def test_a_record_takes_the_place_of_batch_norms_statistics():
    assert doubts_about(num_batch_norms=0, has_record=True) == ()


def test_a_sound_run_raises_none():
    assert doubts_about(accuracy=on_real_images(90)) == ()
    assert doubts_about(on_target=None) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"student": with_layers(LAYERS[0], EMPTY)}, "1 layer has no weight left (fc.weight)"),
        ({"student": with_layers(*DENSE.layers, pattern=Pattern.DENSE)}, "nothing was pruned"),
        ({"on_target": 0.27}, "27.0% of its own dreams as the class they were made for, which is chance (25.0%)"),
        ({"accuracy": on_real_images(24)}, "right on 24.0% of photos, which is chance (25.0%)"),
        ({"counts": (40, 0, 60, 0)}, "finds no dog, owl in 100 dreams: recovery may lose them"),
        ({"counts": (40, 0, 60, 0), "classes": None}, "finds no class 1, class 3 in"),
        ({"counts": (0, 0, 100, 0)}, "reads all 100 dreams as fox"),
        ({"counts": (1,) * 64 + (0,) * 936, "classes": None}, "64 train images cannot show all 1,000 classes"),
        ({"counts": (50,) + (0,) * 20 + (50,), "classes": None}, "class 8 and 12 more"),
        ({"num_batch_norms": 0}, "the teacher holds no statistics of real images"),
        ({"fidelity": agreeing(28, 30)}, "recovered student is at chance level"),
        ({"fidelity": agreeing(28, 90)}, "the pruned student decided by chance (28.0% agreement)"),
        ({"rungs": (*RUNGS, Rung("distillation (diverged)", 0.1, 1e9, 1.0))}, "its loss stopped being a number"),
    ],
    ids=lambda value: value.split(" ")[-1] if isinstance(value, str) else "",
)
def test_each_doubt_is_said_once_and_alone(changes, words):
    (doubt,) = doubts_about(**changes)
    assert words in doubt


def test_a_student_pruned_to_chance_is_no_doubt_once_real_images_have_judged_it():
    assert doubts_about(fidelity=agreeing(28, 90), accuracy=on_real_images(90)) == ()


def test_a_student_with_fewer_channels_was_pruned_although_it_is_dense():
    assert doubts_about(student=with_layers(*DENSE.layers, pattern=Pattern.DENSE, num_parameters=150)) == ()


def test_a_student_of_another_architecture_is_not_said_to_be_pruned():
    as_dense = dataclasses.replace(STUDENT, sparsity=DENSE)
    (doubt,) = doubts_about(student=as_dense, fidelity=agreeing(25, 90), same_architecture=False)
    assert doubt.startswith("the student of another architecture, as it came, decided by chance")


def test_a_student_that_answers_the_teachers_favourite_class_is_at_chance():
    """Chance is what the teacher's own decisions make it, not one over the number of classes."""
    (doubt,) = doubts_about(counts=(70, 10, 10, 10), fidelity=agreeing(72, 72))
    assert "always answering the same class would on 70.0%" in doubt


def test_decisions_are_counted():
    logits = np.eye(4, dtype=np.float32)[[0, 0, 2, 3, 3, 3]]
    decisions = decisions_of(logits, measure_of_classes(logits.shape[1]))
    assert decisions == Decisions((2, 0, 1, 3))
    assert decisions.num_images == 6
    assert (decisions.seen, decisions.unseen) == ((0, 2, 3), (1,))
    assert decisions.chance == 0.5


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(broken):
    logits = np.eye(4, dtype=np.float32)
    logits[1, 2] = broken
    with pytest.raises(BadInputError, match="NaN or infinite on 1 of 4 dreams"):
        decisions_of(logits, measure_of_classes(logits.shape[1]))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_a_teacher_that_tells_no_images_apart_is_refused(scale):
    row = np.array([0.1, -0.2, 0.4], np.float32) * scale
    logits = row * (1 + 1e-7 * np.arange(6, dtype=np.float32)[:, None])
    with pytest.raises(BadInputError, match="the same on all 6 dreams"):
        decisions_of(logits, measure_of_classes(logits.shape[1]))


def test_small_logits_that_differ_are_not_constant():
    assert decisions_of(1e-6 * np.eye(3, dtype=np.float32), measure_of_classes(3)) == Decisions((1, 1, 1))


AS_IT_CAME = (Rung("pruned", 0.6, 1.0, 0.0, chosen=True),)
TRAINED = Lineage(Descent.TRAINED, 0.137, ("conv.weight", "fc.weight"))


def test_a_student_that_was_handed_back_is_explained_with_the_way_out():
    (doubt,) = doubts_about(rungs=AS_IT_CAME, lineage=TRAINED)
    assert "2 tensors of the student are not the teacher's, by 13.70% of the weights' size" in doubt
    assert "handed back as it came" in doubt
    assert 'recovery.fine_tuned = "recover"' in doubt


def test_a_student_without_weights_to_compare_is_explained_too():
    (doubt,) = doubts_about(rungs=AS_IT_CAME, lineage=Lineage(Descent.UNRELATED, 1.0, ()))
    assert "cannot be compared" in doubt


def test_a_trained_student_that_was_changed_after_all_is_doubted():
    (doubt,) = doubts_about(lineage=TRAINED)
    assert "its real accuracy may have fallen although agreement rose" in doubt


def test_a_trained_student_that_no_rung_improved_is_not():
    rungs = (Rung("pruned", 0.9, 0.1, 0.0, chosen=True), Rung("distillation", 0.6, 1.0, 1.0))
    assert doubts_about(rungs=rungs, lineage=TRAINED) == ()


def test_a_copy_raises_no_doubt():
    assert doubts_about(lineage=Lineage(Descent.COPIED, 0.0, ())) == ()

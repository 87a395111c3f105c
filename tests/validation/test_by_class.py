import numpy as np

from edgerecover.artifacts import Confused, Proportion
from edgerecover.tasks.measure.classes import UNDECIDED
from edgerecover.validation import by_class as module
from edgerecover.validation.by_class import by_class


def test_hits_and_confusions_by_class():
    expected = np.array([0, 0, 0, 1, 1, 2])
    exported = np.array([0, 1, 1, 1, UNDECIDED, 2])
    pruned = np.array([1, 1, 0, 0, 0, 0])
    found = by_class(expected, exported, pruned, 4)
    assert found.totals == (3, 2, 1, 0)
    assert found.exported == (1, 1, 1, 0)
    assert found.pruned == (1, 0, 0, 0)
    assert found.confused == (Confused(0, 1, 2), Confused(1, None, 1))
    assert found.num_left_out == 0
    assert found.exported_of(0) == Proportion(1, 3)
    assert found.pruned_of(1) == Proportion(0, 2)


def test_an_image_that_the_teacher_does_not_decide_belongs_to_no_class():
    found = by_class(np.array([UNDECIDED, 0]), np.array([UNDECIDED, 0]), None, 2)
    assert (found.totals, found.exported, found.pruned, found.confused) == ((1, 0), (1, 0), (), ())
    assert found.pruned_of(0) is None


def test_rare_confusions_of_many_classes_are_counted_and_not_listed(monkeypatch):
    monkeypatch.setattr(module, "MOST_CONFUSED", 2)
    expected = np.array([0, 0, 0, 1, 1, 2])
    exported = np.array([1, 1, 1, 2, 2, 0])
    found = by_class(expected, exported, None, 3)
    assert found.confused == (Confused(0, 1, 3), Confused(1, 2, 2))
    assert found.num_left_out == 1


def test_all_right_and_no_image_at_all():
    assert by_class(np.array([1]), np.array([1]), None, 2).confused == ()
    empty = np.zeros(0, dtype=np.int64)
    assert by_class(empty, empty, empty, 2).totals == (0, 0)

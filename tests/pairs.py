"""Pairs of classifiers, and what is asked of them, for tests."""

from edgerecover.artifacts import OutputSpec
from edgerecover.models.pair.channels import SAME_CHANNELS
from edgerecover.recovery.pair import Pair
from edgerecover.tasks.measure import measure_of
from edgerecover.tasks.objective import objective_of


def pair_of(student, teacher, masks=None, channels=SAME_CHANNELS):
    """A pair whose teacher's last parameter has one row for each class."""
    num_classes = list(teacher.parameters())[-1].shape[0]
    return Pair(student, teacher, masks or {}, channels, output=OutputSpec.one_label(num_classes))


def objective_of_classes(num_classes):
    """What teaches a classifier of so many classes."""
    return objective_of(OutputSpec.one_label(num_classes))


def measure_of_classes(num_classes):
    """What agreement of classifiers of so many classes means."""
    return measure_of(OutputSpec.one_label(num_classes))

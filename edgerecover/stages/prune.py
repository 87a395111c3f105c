"""The prune stage: a dense network made sparse or narrow before its recovery."""

from __future__ import annotations

import copy
from dataclasses import replace

from edgerecover.config import Target
from edgerecover.models.network.sparsity import measure
from edgerecover.models.pair.channels import match_channels
from edgerecover.models.pair.facts import macs_kept
from edgerecover.models.pair.networks import Models
from edgerecover.pruning import Pruning, multiple_for, prune
from edgerecover.stages.probe import check_connected


def prune_student(models: Models, pruning: Pruning, target: Target) -> Models:
    """The student as magnitude pruning leaves it; the dense network stays the teacher.

    Args:
        models: teacher and student, both dense.
        pruning: pattern and share.
        target: whose runtime decides to which multiples the widths are kept.

    Raises:
        BadInputError: the network cannot be pruned so.
        MissingError: channels are to be pruned without Torch-Pruning.
    """
    narrower = pruning.pattern == "channel"
    dense = copy.deepcopy(models.student) if narrower else None
    pruned = prune(models.student, pruning, models.input, multiple_for(target))
    student_facts = replace(
        models.student_facts,
        num_parameters=sum(parameter.numel() for parameter in pruned.network.parameters()),
        sparsity=measure(pruned.network, narrower=narrower),
        macs_kept=macs_kept(pruned.network, dense, models.input) if dense else None,
    )
    check_connected(pruned.network, pruned.masks, student_facts.sparsity, models.input)
    # What came as zero and is no weight that magnitude ranks stays zero too.
    masks = {} if narrower else {**models.masks, **pruned.masks}
    return replace(
        models,
        student=pruned.network,
        masks=masks,
        channels=match_channels(models.teacher, pruned.network, models.input.shape)
        if narrower and models.same_architecture
        else models.channels,
        student_facts=student_facts,
        warnings=(*models.warnings, *pruned.notes),
    )

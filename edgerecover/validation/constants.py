"""Outputs that a student gives alike for every image, where its teacher's vary.

Pruning may take all weights of one output, such as a class's row of the last layer: it then gives its bias. Agreement
hides it where that class is rare. Shapes: M images, D numbers for each, C channels of outputs, P numbers of a channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import NUM_BOX_VALUES, OutputSpec, TaskKind

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_OF_BOXES = ("centre x", "centre y", "width", "height")
_MOST_NAMED = 4


def notes_of_constants(teacher_MD: NDArray[Any], student_MD: NDArray[Any], output: OutputSpec) -> tuple[str, ...]:
    """A sentence about outputs that are the same for all images, if there are some; numbers of classes are from 0.

    None for embeddings, of which no number means anything by itself, and of fewer than two images.
    """
    import numpy as np

    if output.parts:
        return tuple(
            f"output {part.name}: {note}"
            for part, columns in output.columns
            for note in notes_of_constants(teacher_MD[:, columns], student_MD[:, columns], part.output)
        )
    if output.task is TaskKind.EMBEDDING or len(student_MD) < 2:
        return ()
    is_stuck_C = ~_varies(student_MD, output) & _varies(teacher_MD, output)
    stuck = [_name(int(channel), output) for channel in np.flatnonzero(is_stuck_C)]
    if not stuck:
        return ()
    more = f" and {len(stuck) - _MOST_NAMED} more" if len(stuck) > _MOST_NAMED else ""
    named = ", ".join(stuck[:_MOST_NAMED]) + more
    return (
        f"{named}: the recovered network gives the same for all {len(student_MD):,} images, and the teacher does not. "
        "Pruning may have left no weight there, which no recovery under this mask can change: prune to the same share "
        "in every layer (--pattern layerwise), or to less",
    )


def _varies(outputs_MD: NDArray[Any], output: OutputSpec) -> NDArray[numpy.bool_]:
    """Whether a channel differs between two images anywhere, (C,)."""
    varies_D = (outputs_MD != outputs_MD[:1]).any(axis=0)
    if output.task is TaskKind.DETECTION and output.has_candidates_first:
        varies_C: NDArray[numpy.bool_] = varies_D.reshape(output.shape).any(axis=0)
    elif output.task in (TaskKind.SEGMENTATION, TaskKind.DETECTION):
        varies_C = varies_D.reshape(output.shape[0], -1).any(axis=1)
    else:
        varies_C = varies_D.reshape(-1, output.pixels).any(axis=1)
    return varies_C


def _name(channel: int, output: OutputSpec) -> str:
    if output.task is TaskKind.REGRESSION:
        return f"value {channel}"
    if output.task is not TaskKind.DETECTION:
        return f"the score of class {channel}"
    if channel < NUM_BOX_VALUES:
        return f"the {_OF_BOXES[channel]} of all boxes"
    return f"the score of class {channel - NUM_BOX_VALUES}"

"""Networks that are raced beside the recovered one: only so can be said what its pattern of zeros is worth."""

# ruff: noqa: TID253 - exports networks; only what calls the stages imports it

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edgerecover.artifacts import Exported, InputSpec, Pattern
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.models.macs import count_macs
from edgerecover.prune import prune_channels

DENSE = "dense"
_MACS_REMOVED = 0.5
Write = Callable[[nn.Module, InputSpec, Path], Exported]
ALTERNATIVE = "fewer channels"


@dataclass(frozen=True)
class TwinFile:
    """One of them as an ONNX file in float32."""

    name: str
    macs_kept: float
    exported: Exported
    """With its path in full."""


def export_twins(
    dense: nn.Module, pattern: Pattern, input: InputSpec, folder: Path, write: Write
) -> tuple[TwinFile, ...]:
    """The dense network and, where the recovered one only has zeros in it, the dense one with half of its work gone.

    The second has lost its accuracy: it is there for its latency alone. It is left out where Torch-Pruning is not
    installed or cannot narrow the network.

    Args:
        dense: the teacher, on the CPU; left as it is.
        pattern: of the recovered network.
        input: of both.
        folder: where the files go.
        write: exports a network as the recovered one was.
    """
    return tuple(_exported(dense, pattern, input, folder, write))


def _exported(dense: nn.Module, pattern: Pattern, input: InputSpec, folder: Path, write: Write) -> Iterator[TwinFile]:
    yield TwinFile(DENSE, 1.0, write(dense, input, folder / "dense.onnx"))
    if pattern not in (Pattern.UNSTRUCTURED, Pattern.TWO_FOUR):
        return
    network = copy.deepcopy(dense).cpu().float().eval()
    try:
        narrow = prune_channels(network, input, _MACS_REMOVED, roughly=True)
        exported = write(narrow, input, folder / "narrow.onnx")
    except (BadInputError, MissingError, StageError):
        return
    kept = count_macs(narrow, input.shape) / count_macs(network, input.shape)
    yield TwinFile(ALTERNATIVE, kept, exported)

"""Networks that are raced beside the recovered one: only so can be said what its pattern of zeros is worth."""

# ruff: noqa: TID253 - exports networks; only what calls the stages imports it

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edgerecover.artifacts import Exported, InputSpec, Pattern
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.models.network.macs import count_macs
from edgerecover.progress import SILENT, Progress
from edgerecover.prune import WIDTH_MULTIPLE, prune_channels

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


def export_dense(network: nn.Module, input: InputSpec, folder: Path, write: Write) -> TwinFile:
    """The dense network itself, left as it is.

    Raises:
        BadInputError: it cannot be exported; nor, then, can what is recovered after it.
    """
    return TwinFile(DENSE, 1.0, write(network, input, folder / "dense.onnx"))


def export_twins(
    dense: TwinFile,
    network: nn.Module,
    pattern: Pattern,
    input: InputSpec,
    folder: Path,
    write: Write,
    *,
    multiple: int = WIDTH_MULTIPLE,
    progress: Progress = SILENT,
) -> tuple[TwinFile, ...]:
    """The dense network and, where the recovered one only has zeros in it, the dense one with half of its work gone.

    The second has lost its accuracy: it is there for its latency alone. It is left out, with a note, where
    Torch-Pruning is not installed or the network cannot be narrowed.

    Args:
        dense: the file of the teacher.
        network: the teacher; left as it is.
        pattern: of the recovered network.
        input: of both.
        folder: where the files go.
        write: exports a network as the recovered one was.
        multiple: of channels, that widths are kept to.
        progress: told why the second is left out.
    """
    if pattern not in (Pattern.UNSTRUCTURED, Pattern.TWO_FOUR):
        return (dense,)
    network = copy.deepcopy(network).cpu().float().eval()
    try:
        narrow = prune_channels(network, input, _MACS_REMOVED, multiple=multiple, roughly=True)
        exported = write(narrow, input, folder / "narrow.onnx")
    except (BadInputError, MissingError, StageError) as error:
        progress.note(f"the race has no network with fewer channels beside this one: {error.message}")
        return (dense,)
    kept = count_macs(narrow, input.shape) / count_macs(network, input.shape)
    return dense, TwinFile(ALTERNATIVE, kept, exported)

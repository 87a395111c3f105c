"""Networks that are raced beside the recovered one: only so can be said what its pattern of zeros is worth."""

# ruff: noqa: TID253 - exports networks; only what calls the stages imports it

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgerecover.artifacts import Exported, InputSpec, OutputSpec, Pattern
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.export.mnn import file_for
from edgerecover.export.onnx import export
from edgerecover.models.network.examples import example_images
from edgerecover.models.network.macs import count_macs
from edgerecover.models.network.outputs import as_it_is, as_rows
from edgerecover.progress import SILENT, Progress
from edgerecover.pruning import WIDTH_MULTIPLE, multiple_for, prune_channels
from edgerecover.runtime.machine.mnn_module import MNN, import_mnn
from edgerecover.tasks.measure import Measure, measure_of
from edgerecover.validation.parity import compare
from edgerecover.validation.scores import on_scale, scale_of
from edgerecover.validation.scoring import Scores, open_on_cpu, scorer_of

if TYPE_CHECKING:
    from edgerecover.config import Target
    from edgerecover.recovery.ladder import Recovered
    from edgerecover.stages.load import Loaded
    from edgerecover.stages.request import Request

DENSE = "dense"
_MACS_REMOVED = 0.5
Write = Callable[[nn.Module, InputSpec, Path], Exported]
ALTERNATIVE = "fewer channels"
_NUM_TRIALS = 2
_MAX_DIFFERENCE = 0.1
"""Of the logits' standard deviation; other kernels make 1e-6 to 1e-3 of it."""


@dataclass(frozen=True)
class TwinFile:
    """One of them as an ONNX file in float32."""

    name: str
    macs_kept: float
    exported: Exported
    """With its path in full."""


def require_converter(target: Target) -> None:
    """Find out before hours of work whether the file of the target's own runtime can be made in the end.

    Raises:
        MissingError: the target runs MNN, which is not installed.
    """
    if target.runtime.value == MNN:
        import_mnn()


def convert_on_trial(target: Target, onnx: Path) -> None:
    """For a target that runs MNN: a file that its converter does not take is found before anything is made of it.

    Raises:
        BadInputError: it does not.
    """
    if target.runtime.value == MNN:
        with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
            file_for(MNN, onnx, Path(folder))


def export_dense(network: nn.Module, input: InputSpec, folder: Path, write: Write) -> TwinFile:
    """The dense network itself, left as it is.

    Raises:
        BadInputError: it cannot be exported; nor, then, can what is recovered after it.
    """
    return TwinFile(DENSE, 1.0, write(network, input, folder / "dense.onnx"))


def check_trial(
    exported: Exported, network: nn.Module, input: InputSpec, output: OutputSpec, *, one_by_one: bool = False
) -> None:
    """Refuse a network whose file computes something else, before anything is made from it.

    Args:
        exported: the file, its path in full.
        network: what it was written from, on the CPU.
        input: of both.
        output: of both.
        one_by_one: the network decides by the batch, so it is asked one image at a time.

    Raises:
        BadInputError: the scores differ by more than other kernels explain.
    """
    images_NCHW = example_images(input, _NUM_TRIALS).numpy()
    measure = measure_of(output)
    found_ND = open_on_cpu(Path(exported.path), input.shape, output.num_values_in_file).run(images_NCHW)
    expected_ND = scorer_of(network, one_by_one=one_by_one)(images_NCHW)
    difference = compare(on_scale(expected_ND, scale_of(found_ND)), found_ND, measure).relative
    if difference <= _MAX_DIFFERENCE:
        return
    training = [f"{name} ({type(layer).__name__})" for name, layer in network.named_modules() if layer.training]
    rounding = _rounding(network, images_NCHW, expected_ND, measure)
    if rounding > _MAX_DIFFERENCE:
        why = f"the network magnifies rounding errors (float32 and float64 differ by {rounding:.2g})"
        hint = "no runtime can repeat it: check for exploding activations, and that this is the last good checkpoint"
    elif training:
        why = f"{training[0]} is in training mode though the network is in eval mode, which no file can be"
        hint = "remove .train() from its forward; a layer that is to be used as trained stays in eval mode"
    else:
        why = "the exporter changed the network"
        hint = "look in its forward for branches on values and for .train(); or try a target with another opset"
    raise BadInputError(
        f"the teacher's exported file differs from it by {difference:.2g} standard deviations of its logits: {why}",
        hint=hint,
    )


@torch.no_grad()
def _rounding(network: nn.Module, images_NCHW: Scores, float32_ND: Scores, measure: Measure) -> float:
    """Difference that float32 makes, in standard deviations; 0 where the network cannot be computed in float64."""
    precise = copy.deepcopy(network).double().eval()
    try:
        float64_ND = as_rows(as_it_is(precise)(torch.from_numpy(images_NCHW).double())).numpy()
    except Exception:  # the user's network raises anything
        return 0.0
    return compare(float64_ND, on_scale(float32_ND, scale_of(float64_ND)), measure).relative


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
        progress.note(f"no network with fewer channels takes part in the race: {error.message}")
        return (dense,)
    kept = count_macs(narrow, input.shape) / count_macs(network, input.shape)
    return dense, TwinFile(ALTERNATIVE, kept, exported)


def export_recovered(
    request: Request, loaded: Loaded, recovered: Recovered, folder: Path, progress: Progress = SILENT
) -> tuple[Exported, tuple[TwinFile, ...]]:
    """The recovered network as a float32 file, its path in full, and the networks that are raced beside it.

    Args:
        request: of the user.
        loaded: the teacher, and its file.
        recovered: the student.
        folder: where the files go.
        progress: told why a network is left out.

    Raises:
        BadInputError: it cannot be exported.
    """
    models, write = loaded.models, exporter_for(request, loaded.models.output)
    assert loaded.dense is not None, "what only assists exports nothing"
    exported = write(recovered.student, models.input, folder / "fp32.onnx")
    twins = export_twins(
        loaded.dense, models.teacher, models.student_facts.sparsity.pattern, models.input, folder, write,
        multiple=multiple_for(request.target), progress=progress,
    )  # fmt: skip
    return exported, twins


def exporter_for(request: Request, output: OutputSpec) -> Write:
    """What writes a network with such outputs as the file that was asked for."""
    return partial(
        export,
        outputs=output.names,
        opset=request.target.opset.value,
        batch=request.batch,
        ir_version=request.target.ir_version.value if request.target.ir_version else None,
    )

"""The engine stage: what TensorRT makes of the variants, as far as this machine can tell.

TensorRT-RTX builds engines for GPUs that are not here; TensorRT builds only on the GPU itself, so here its parser is
asked, and the bundle's runner builds on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgerecover.artifacts import (
    ENGINE_RUNTIMES,
    TENSORRT_RTX,
    Acceptance,
    BatchRange,
    EngineFacts,
    EngineRecipe,
    Precision,
    Variant,
)
from edgerecover.config import Target
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.export.engines import recipe_for
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.engine.build import LAYERS_SUFFIX
from edgerecover.runtime.engine.engine import FACTS_SUFFIX, build_engine, check_accepted
from edgerecover.runtime.machine.tensorrt_module import import_tensorrt

_OPEN_BATCH = BatchRange(1, 1, 8)
"""Of an engine from a file that leaves the batch size open."""


@dataclass(frozen=True)
class Engines:
    """What came of it; all empty for a target that runs ONNX files."""

    recipes: Mapping[Precision, EngineRecipe] = field(default_factory=dict)
    built: tuple[EngineFacts, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Engines and their facts, by path inside a bundle."""
    unfit: Mapping[Precision, str] = field(default_factory=dict)
    """Variants that TensorRT does not take, and why."""
    notes: tuple[str, ...] = ()
    """For people."""


def require_builder(target: Target) -> None:
    """Find out before hours of work whether the engine of the target can be built in the end.

    Raises:
        MissingError: TensorRT-RTX is not installed.
    """
    if target.runtime.value == TENSORRT_RTX:
        import_tensorrt(TENSORRT_RTX)


def builder_notes(target: Target) -> tuple[str, ...]:
    """What is known beforehand of the engines of a target."""
    capability = target.compute_capability.value if target.compute_capability else ""
    if target.runtime.value == TENSORRT_RTX and capability == "7.5":
        return (
            "TensorRT-RTX builds no float32 fully connected layer (Gemm) for compute capability 7.5: the float32 file "
            "of a network with one cannot be built for this target",
        )
    return ()


def build_engines(
    variants: Sequence[Variant], target: Target, folder: Path, *, open_batch: bool, progress: Progress = SILENT
) -> Engines:
    """Build the engine of every variant, or ask whether the device's TensorRT will take it.

    Args:
        variants: float32 first; their files' paths in full.
        target: for whose GPU.
        folder: where engines go.
        open_batch: the files leave the batch size open.
        progress: where to report.

    Raises:
        BadInputError, MissingError, StageError: not even the float32 file can be built.
    """
    if target.runtime.value not in ENGINE_RUNTIMES:
        return Engines()
    workspace_mb = target.workspace_mb.value if target.workspace_mb else None
    recipes = {
        variant.precision: replace(
            recipe_for(target, variant.precision, batch=_OPEN_BATCH if open_batch else None), workspace_mb=workspace_mb
        )
        for variant in variants
    }
    if target.runtime.value == TENSORRT_RTX:
        return _built(variants, recipes, folder, progress)
    return _asked(variants, recipes, progress)


def _built(
    variants: Sequence[Variant], recipes: Mapping[Precision, EngineRecipe], folder: Path, progress: Progress
) -> Engines:
    facts: list[EngineFacts] = []
    files: dict[str, Path] = {}
    unfit: dict[Precision, str] = {}
    with progress.task("engines", len(variants), "engines") as task:
        for variant in variants:
            out = folder / f"{variant.precision.value}.engine"
            try:
                facts.append(build_engine(Path(variant.file.path), recipes[variant.precision], out))
            except (BadInputError, StageError) as error:
                if variant.precision is Precision.FP32:
                    raise
                unfit[variant.precision] = error.message
            else:
                parts = (out, *(out.with_name(out.name + suffix) for suffix in (FACTS_SUFFIX, LAYERS_SUFFIX)))
                files |= {f"engines/{part.name}": part for part in parts if part.is_file()}
            task.advance()
    return Engines(recipes, tuple(facts), files, unfit)


def _asked(variants: Sequence[Variant], recipes: Mapping[Precision, EngineRecipe], progress: Progress) -> Engines:
    answers: dict[Precision, Acceptance] = {}
    try:
        with progress.task("ask the parser", len(variants), "files") as task:
            for variant in variants:
                answers[variant.precision] = check_accepted(Path(variant.file.path))
                task.advance()
    except MissingError as error:
        return Engines(
            recipes, notes=(f"TensorRT was not asked whether it accepts the files: {error.message}; {error.hint}",)
        )
    refused = {precision: _why(answer) for precision, answer in answers.items() if not answer.accepted}
    notes = []
    if why := refused.pop(Precision.FP32, None):
        notes.append(f"TensorRT on the device may reject the float32 file: {why}")
    for precision, answer in answers.items():
        notes += [f"the parser of {answer.by} warns of the {precision.value} file: {text}" for text in answer.warnings]
    return Engines(recipes, unfit=refused, notes=tuple(notes))


def _why(answer: Acceptance) -> str:
    problems = "; ".join(answer.problems[:3]) or "no reason given"
    return f"the parser of {answer.by} rejects it: {problems}"

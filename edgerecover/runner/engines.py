"""The engine of a model on this machine: the bundle's own where it fits, else one that is built here and kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from edgerecover.artifacts import EngineFacts, EngineRecipe, sha256_of
from edgerecover.errors import BadInputError
from edgerecover.progress import Progress
from edgerecover.runner.contents import ENGINES, Contents, ModelFile
from edgerecover.runtime.engine.engine import check_runs_here, read_facts, ready_engine
from edgerecover.runtime.engine.key import onnx_digest


@dataclass(frozen=True)
class Engine:
    """A built engine."""

    file: Path
    facts: EngineFacts


def engine_of(contents: Contents, model: ModelFile, runtime: str, cache: Path | None, progress: Progress) -> Engine:
    """The engine of a model for the GPU that is here.

    Args:
        contents: of the bundle; nothing is written into it.
        model: one of its files.
        runtime: "tensorrt" or "tensorrt-rtx".
        cache: where built engines are kept; None: the user's cache folder.
        progress: told what is reused, and what is built and why.

    Raises:
        BadInputError: the runtime does not take the file.
        MissingError: the runtime, or a GPU for it, is not here.
        StageError: it fails in another way.
    """
    shipped = _find_shipped(contents, model, runtime, progress)
    if shipped is not None:
        return shipped
    recipe = replace(contents.recipe or EngineRecipe(), runtime=runtime, precision=model.precision)
    onnx = contents.folder / model.path
    folder = (cache or user_cache()) / "engines" / sha256_of(onnx)[:16]
    facts = ready_engine(onnx, recipe, folder, progress=progress)
    return Engine(folder / facts.file, facts)


def _find_shipped(contents: Contents, model: ModelFile, runtime: str, progress: Progress) -> Engine | None:
    """One that the bundle brings, if it was built for this GPU and version."""
    file = contents.folder / ENGINES / f"{model.precision.value}.engine"
    facts = read_facts(file) if file.is_file() else None
    if facts is None or facts.recipe.runtime != runtime:
        return None
    if facts.key.onnx_sha256 != onnx_digest(contents.folder / model.path):
        progress.note(f"{ENGINES}/{file.name} was built from another file than {model.path}: not used")
        return None
    try:
        check_runs_here(file, facts)
    except BadInputError as error:
        progress.note(f"{ENGINES}/{file.name} is not for this machine: {error.message}")
        return None
    progress.note(f"{ENGINES}/{file.name}: built for this machine")
    return Engine(file, facts)


def user_cache() -> Path:
    """Where this user's programs keep what they can make again, as the XDG Base Directory Specification says."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "edgerecover"

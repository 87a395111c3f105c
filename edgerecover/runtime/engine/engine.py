"""TensorRT engines: build one, reuse one while it fits, ask whether a file will be taken.

One builder for TensorRT 8.2 to 11 and TensorRT-RTX. What precision an engine computes in is said by the ONNX file, so
that every one of them builds the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edgerecover.artifacts.codec import from_json, sha256_of, to_json
from edgerecover.artifacts.engines import TENSORRT, Acceptance, EngineFacts, EngineRecipe
from edgerecover.errors import ODD_END_HINT, UNWRITABLE_HINT, BadInputError, MissingError, StageError
from edgerecover.files import replace_file
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.engine.build import LAYERS_SUFFIX
from edgerecover.runtime.engine.config import describe
from edgerecover.runtime.engine.key import key_here, machine_key, recipe_here, why_not_here, why_rebuild
from edgerecover.runtime.engine.network import available_parser
from edgerecover.runtime.machine.fresh import run_fresh

T = TypeVar("T")
FACTS_SUFFIX = ".json"
BUILD_TIMEOUT_S = 3600.0
"""TensorRT times thousands of kernels; on the smallest Jetson that takes many minutes for a large network."""
ACCEPT_TIMEOUT_S = 120.0


def build_engine(
    onnx: Path,
    recipe: EngineRecipe,
    out: Path,
    *,
    timing_cache: Path | None = None,
    timeout_s: float = BUILD_TIMEOUT_S,
) -> EngineFacts:
    """Build an engine from `onnx` in a separate process; it appears at `out` whole, or not at all.

    Writes the engine to `out`, its facts to `out`.json and its layers to `out`.layers.json.

    Args:
        onnx: a file that states every type itself; of a stranger's, the external data is checked beforehand.
        recipe: what to build.
        out: the engine's path, in a folder that exists.
        timing_cache: where the builder keeps what it has timed; read when it is there, then written.
        timeout_s: the process is killed after that.

    Raises:
        BadInputError: TensorRT does not take the file, crashes on it, or takes longer; the recipe does not fit it; or
            `out` cannot be written.
        MissingError: the runtime, or the GPU that it needs, is not here.
        StageError: TensorRT fails in another way.
    """
    if not out.parent.is_dir():
        raise BadInputError(f"{out}: its folder does not exist", hint=f"make {out.parent} first")
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    arguments = ["--recipe", json.dumps(to_json(recipe)), "--out", str(unfinished.absolute())]
    if timing_cache is not None:
        arguments += ["--timing-cache", str(timing_cache.absolute())]
    try:
        built = _ask("build", onnx, arguments, EngineFacts, timeout_s)
        facts = _rename(built, out.name)
        _put_in_place(unfinished, out, facts)
    finally:
        for path in (unfinished, unfinished.with_name(unfinished.name + LAYERS_SUFFIX)):
            path.unlink(missing_ok=True)
    return facts


def _rename(facts: EngineFacts, name: str) -> EngineFacts:
    return replace(facts, file=name)


def _put_in_place(unfinished: Path, out: Path, facts: EngineFacts) -> None:
    """The facts last: an engine without them is not used."""
    try:
        facts_path(out).unlink(missing_ok=True)
        unfinished.with_name(unfinished.name + LAYERS_SUFFIX).replace(out.with_name(out.name + LAYERS_SUFFIX))
        unfinished.replace(out)
        replace_file(facts_path(out), (json.dumps(to_json(facts), indent=1) + "\n").encode())
    except OSError as error:
        raise BadInputError(
            f"{out} cannot be written: {error.strerror or error}",
            hint="name a folder with free space that you may write to",
        ) from error


def check_accepted(onnx: Path, runtime: str = TENSORRT, *, timeout_s: float = ACCEPT_TIMEOUT_S) -> Acceptance:
    """Whether the parser of `runtime` accepts a file, asked in a separate process.

    Where TensorRT itself cannot run, TensorRT-RTX's parser answers instead, and the result says so: the two share
    their ONNX parser, but not every kernel, and an older TensorRT knows fewer operators.

    Args:
        onnx: the file.
        runtime: "tensorrt" or "tensorrt-rtx".
        timeout_s: a parser that takes longer has not taken the file.

    Raises:
        BadInputError: no such file or runtime.
        MissingError: there is no parser to ask.
    """
    if not onnx.is_file():
        raise BadInputError(f"{onnx}: no such file", hint="check the path")
    asked = available_parser(runtime)
    arguments = ["--runtime", asked, "--question", runtime]
    try:
        return _ask("accept", onnx, arguments, Acceptance, timeout_s)
    except BadInputError as error:  # it crashed or hung the parser
        return Acceptance(False, asked, asked != runtime, 0, (error.message,))


def ready_engine(
    onnx: Path,
    recipe: EngineRecipe,
    cache_folder: Path,
    *,
    progress: Progress = SILENT,
    timeout_s: float = BUILD_TIMEOUT_S,
) -> EngineFacts:
    """The engine of `onnx` for this machine: the one in `cache_folder` while it fits, else built now.

    Args:
        onnx: the file.
        recipe: what to build; of TensorRT-RTX's compute capabilities, this machine's GPU is taken when it is not there.
        cache_folder: made where it is not there; the engine is `cache_folder / facts.file`. The timing cache is kept
            there too.
        progress: told what is reused, and what is built and why.
        timeout_s: of a build.

    Raises:
        BadInputError, MissingError, StageError: as `build_engine`.
    """
    if not onnx.is_file():
        raise BadInputError(f"{onnx}: no such file", hint="check the path")
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"{cache_folder} cannot be made: {error.strerror or error}",
            hint=UNWRITABLE_HINT,
        ) from error
    recipe = recipe_here(recipe)
    engine = cache_folder / f"{onnx.stem}.{recipe.runtime}.engine"
    here = key_here(onnx, recipe)
    reason = "there is none yet"
    if engine.is_file():
        facts = read_facts(engine)
        reason = "it has no facts beside it, or others" if facts is None else why_rebuild(facts, here, recipe)
        if facts is not None and not reason:
            progress.note(f"engine {engine.name}: reused ({here.runtime} {here.version})")
            return facts
    progress.note(f"engine {engine.name}: built by {describe(recipe)} {here.version}, because {reason}")
    timing_cache = cache_folder / f"{recipe.runtime}-{here.version}.timing"
    with progress.task("build engine", 1, "engine") as task:
        facts = build_engine(onnx, recipe, engine, timing_cache=timing_cache, timeout_s=timeout_s)
        task.advance()
    return facts


def facts_path(engine: Path) -> Path:
    """Where the facts of an engine are: `FILE.json` beside it."""
    return engine.with_name(engine.name + FACTS_SUFFIX)


def read_facts(engine: Path) -> EngineFacts | None:
    """The facts beside an engine; None when there are none, they are damaged, or they are another engine's."""
    try:
        facts = from_json(EngineFacts, json.loads(facts_path(engine).read_text(encoding="utf-8")))
        return facts if facts.sha256 == sha256_of(engine) else None
    except (OSError, ValueError, RecursionError):
        return None


def check_runs_here(engine: Path, facts: EngineFacts) -> None:
    """Refuse an engine that was built by another version or for another GPU, before TensorRT sees it.

    Raises:
        BadInputError: it was; says which, and what to do.
        MissingError: its runtime is not here.
    """
    if reason := why_not_here(facts, machine_key(facts.recipe)):
        raise BadInputError(
            f"{engine}: this engine was built for something else: {reason}",
            hint="build it again here, from the ONNX file (edgerecover engine build, or the bundle's runner)",
        )


def _ask(task: str, onnx: Path, arguments: Sequence[str], kind: type[T], timeout_s: float) -> T:
    """Run `engine_build` in a fresh process and read its answer."""
    what = {"build": "building the engine", "accept": "asking TensorRT's parser"}[task]
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        answer = Path(folder) / "answer.json"
        try:
            child = run_fresh(
                "edgerecover.runtime.engine.build",
                [task, "--onnx", str(onnx.absolute()), "--answer", str(answer), *arguments],
                timeout_s,
                what=what,
            )
        except StageError as error:
            if not isinstance(error.__cause__, subprocess.TimeoutExpired):
                raise
            raise BadInputError(
                f"{onnx}: {what} did not finish within {timeout_s:.0f} s",
                hint="the file may be damaged or hostile, or the device too small for it",
            ) from error
        said = _read_answer(answer)
    _raise_for(child, said, onnx, what)
    try:
        return from_json(kind, said)
    except ValueError as error:
        raise StageError(
            f"{what} gave an unexpected answer: {error}",
            hint=ODD_END_HINT,
        ) from error


def _read_answer(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _raise_for(child: subprocess.CompletedProcess[str], said: dict[str, Any], onnx: Path, what: str) -> None:
    if child.returncode == 0:
        return
    if "message" in said:
        family = {kind.exit_code: kind for kind in (BadInputError, MissingError)}
        raise family.get(child.returncode, StageError)(said["message"], hint=said.get("hint", ""))
    if child.returncode == 1:  # a Python exception that nobody expected
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise StageError(
            f"{onnx}: {what} failed: {last[:300]}",
            hint="the message above is TensorRT's own; `edgerecover engine check` asks whether it takes the file",
        )
    raise BadInputError(
        f"{onnx}: TensorRT crashes on it (status {child.returncode})",
        hint="the file is damaged or hostile, or needs more memory than there is",
    )

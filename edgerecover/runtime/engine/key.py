"""When a built engine may be used, and in words why not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from edgerecover.artifacts.codec import sha256_of, to_json
from edgerecover.artifacts.engines import (
    TENSORRT_RTX,
    EngineFacts,
    EngineKey,
    EngineRecipe,
    HardwareCompatibility,
)
from edgerecover.runtime.machine.cuda import covers, this_gpu
from edgerecover.runtime.machine.tensorrt_module import WORDS, import_tensorrt, version_of

_EXTERNAL_DATA = (".data", "_data")
"""What exporters append to a model's name for the file that holds its weights."""


def key_here(onnx: Path, recipe: EngineRecipe, version: str | None = None) -> EngineKey:
    """The key of an engine that is built now, on this machine.

    Raises:
        MissingError: the runtime is not here, and `version` was not given.
        OSError: `onnx` cannot be read.
    """
    return replace(machine_key(recipe, version), onnx_sha256=onnx_digest(onnx))


def machine_key(recipe: EngineRecipe, version: str | None = None) -> EngineKey:
    """That key without the file: what this machine builds and runs.

    Raises:
        MissingError: the runtime is not here, and `version` was not given.
    """
    version = version or version_of(import_tensorrt(recipe.runtime))
    if recipe.runtime == TENSORRT_RTX:
        return EngineKey(recipe.runtime, version, recipe.compute_capabilities, "", "")
    gpu = this_gpu()
    capabilities = (gpu.compute_capability,) if gpu is not None else ()
    return EngineKey(recipe.runtime, version, capabilities, gpu.name if gpu is not None else "", "")


def recipe_here(recipe: EngineRecipe) -> EngineRecipe:
    """The recipe; where TensorRT-RTX was to build it for other GPUs, for the one that is here."""
    gpu = this_gpu()
    if recipe.runtime != TENSORRT_RTX or gpu is None or covers(recipe.compute_capabilities, gpu.compute_capability):
        return recipe
    return replace(recipe, compute_capabilities=(gpu.compute_capability,))


def onnx_digest(onnx: Path) -> str:
    """SHA-256 of the file; where its weights lie beside it under the customary name, of both digests in order."""
    beside = [onnx.with_name(onnx.name + suffix) for suffix in _EXTERNAL_DATA]
    digests = [sha256_of(path) for path in (onnx, *beside) if path == onnx or path.is_file()]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def why_rebuild(facts: EngineFacts, here: EngineKey, recipe: EngineRecipe) -> str:
    """Why an engine cannot be used as it is: "TensorRT 10.3.0 → 10.16.2"; "" when it can."""
    built = facts.key
    if facts.recipe != recipe:
        return f"the recipe changed: {_describe_changes(facts.recipe, recipe)}"
    if built.onnx_sha256 != here.onnx_sha256:
        return "the ONNX file changed"
    return why_not_here(facts, here)


def why_not_here(facts: EngineFacts, here: EngineKey) -> str:
    """The part of it that concerns the machine: runtime, its version, and the GPU."""
    built, words = facts.key, WORDS.get(facts.key.runtime, facts.key.runtime)
    if built.runtime != here.runtime:
        return f"{words} → {WORDS.get(here.runtime, here.runtime)}"
    if built.version != here.version and not _runs_on_later(facts, here):
        return f"{words} {built.version} → {here.version}"
    if built.runtime == TENSORRT_RTX:
        return _why_not_rtx(built)
    return _why_not_gpu(facts, here)


def _runs_on_later(facts: EngineFacts, here: EngineKey) -> bool:
    """Version compatibility goes forward alone (TensorRT documentation, "Engine Compatibility")."""
    return facts.recipe.version_compatible and _numbers(here.version) >= _numbers(facts.key.version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _why_not_rtx(built: EngineKey) -> str:
    gpu = this_gpu()
    if gpu is None or covers(built.compute_capabilities, gpu.compute_capability):
        return ""  # no GPU here: nothing that the engine could be wrong for
    named = ", ".join(built.compute_capabilities) or "8.0 and later"
    return f"compute capability {named} → {gpu.compute_capability} ({gpu.name})"


def _why_not_gpu(facts: EngineFacts, here: EngineKey) -> str:
    built, level = facts.key, facts.recipe.hardware_compatibility
    same_capability = built.compute_capabilities == here.compute_capabilities
    if not same_capability:
        runs_anyway = level is HardwareCompatibility.AMPERE_PLUS and all(
            covers((), one) for one in (*built.compute_capabilities, *here.compute_capabilities)
        )
        if not runs_anyway:
            found = ", ".join(here.compute_capabilities) or "no GPU"
            return f"compute capability {', '.join(built.compute_capabilities)} → {found}"
    if built.gpu != here.gpu and level is HardwareCompatibility.NONE:
        return f"GPU {built.gpu} → {here.gpu}"
    return ""


def _describe_changes(before: EngineRecipe, after: EngineRecipe) -> str:
    old, new = to_json(before), to_json(after)
    return ", ".join(f"{name} {old[name]} → {new[name]}" for name in old if old[name] != new[name])

"""A recipe as TensorRT's builder takes it: flags, limits, profiles.

Names and versions are those of the Python API of TensorRT 8.2, 8.5, 10.3, 10.16 and 11.1 (their `pyCore.cpp`) and of
TensorRT-RTX 1.7. What a version does not have is an error where the recipe asks for it, and nothing where it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgerecover.artifacts.engines import TENSORRT_RTX, BatchRange, EngineRecipe, HardwareCompatibility
from edgerecover.artifacts.exported import Precision
from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.engine.network import Network
from edgerecover.runtime.machine.tensorrt_module import WORDS, version_of

_LEVELS = {
    HardwareCompatibility.AMPERE_PLUS: "AMPERE_PLUS",
    HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "SAME_COMPUTE_CAPABILITY",
}
_WEAK_FLAGS = {Precision.FP16: "FP16", Precision.INT8: "INT8"}


def configure(network: Network, recipe: EngineRecipe, onnx: Path) -> Any:
    """A builder config that says what `recipe` says.

    Raises:
        BadInputError: the recipe asks for what this runtime or version does not have, or does not fit the file.
        MissingError: it asks for a deep learning accelerator that this device does not have.
    """
    config = network.builder.create_builder_config()
    config.profiling_verbosity = network.module.ProfilingVerbosity.DETAILED
    _limit_workspace(config, network, recipe)
    _set_flags(config, network, recipe)
    _set_compatibility(config, network, recipe)
    if recipe.dla_core is not None:
        _use_dla(config, network, recipe)
    _add_profile(config, network, recipe.batch, onnx)
    return config


def dla_fallbacks(config: Any, network: Network, recipe: EngineRecipe) -> tuple[str, ...]:
    """Names of the layers that the deep learning accelerator of the recipe cannot run."""
    if recipe.dla_core is None:
        return ()
    definition = network.definition
    layers = (definition.get_layer(index) for index in range(definition.num_layers))
    return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))


def _limit_workspace(config: Any, network: Network, recipe: EngineRecipe) -> None:
    if recipe.workspace_mb is None:
        return
    num_bytes = recipe.workspace_mb * 10**6
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(network.module.MemoryPoolType.WORKSPACE, num_bytes)
    else:  # TensorRT 8.2
        config.max_workspace_size = num_bytes


def _set_flags(config: Any, network: Network, recipe: EngineRecipe) -> None:
    flags = network.module.BuilderFlag
    if recipe.sparse_weights:
        config.set_flag(flags.SPARSE_WEIGHTS)
    if not recipe.tf32:
        config.clear_flag(flags.TF32)
    if not network.strongly_typed and recipe.precision in _WEAK_FLAGS:
        config.set_flag(getattr(flags, _WEAK_FLAGS[recipe.precision]))


def _set_compatibility(config: Any, network: Network, recipe: EngineRecipe) -> None:
    module = network.module
    if recipe.runtime == TENSORRT_RTX:
        _name_compute_capabilities(config, network, recipe)
        return
    if recipe.compute_capabilities:
        raise BadInputError(
            "TensorRT builds for the GPU that it builds on, not for named compute capabilities",
            hint="leave compute_capabilities out, or build with tensorrt-rtx",
        )
    if recipe.version_compatible:
        _must_have(module.BuilderFlag, "VERSION_COMPATIBLE", "version-compatible engines", network)
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if recipe.hardware_compatibility in _LEVELS:
        what = f"engines that run on other GPUs ({recipe.hardware_compatibility.value})"
        levels = getattr(module, "HardwareCompatibilityLevel", None)
        name = _LEVELS[recipe.hardware_compatibility]
        _must_have(levels, name, what, network)
        config.hardware_compatibility_level = getattr(levels, name)


def _must_have(holder: Any, name: str, what: str, network: Network) -> None:
    if not hasattr(holder, name):
        raise BadInputError(
            f"TensorRT {version_of(network.module)} builds no {what}", hint="leave that out of the recipe"
        )


def _name_compute_capabilities(config: Any, network: Network, recipe: EngineRecipe) -> None:
    """TensorRT-RTX builds for GPUs that are not there (its documentation, "CPU-Only AOT and TensorRT-RTX Engines")."""
    unsupported = {
        "version_compatible": recipe.version_compatible,
        "hardware_compatibility": recipe.hardware_compatibility is not HardwareCompatibility.NONE,
        "dla_core": recipe.dla_core is not None,
    }
    if asked := [name for name, is_asked in unsupported.items() if is_asked]:
        raise BadInputError(
            f"TensorRT-RTX has no {', '.join(asked)}", hint="leave it out; compute_capabilities names the GPUs"
        )
    known = network.module.ComputeCapability
    names = [f"SM{one.replace('.', '')}" for one in recipe.compute_capabilities]
    for asked_for, name in zip(recipe.compute_capabilities, names, strict=True):
        if not hasattr(known, name):
            has = ", ".join(_dotted(one) for one in known.__members__ if one.startswith("SM"))
            raise BadInputError(
                f"TensorRT-RTX {version_of(network.module)} builds no engine for compute capability {asked_for}",
                hint=f"it has {has}; a Jetson's engine is built on the Jetson, by TensorRT",
            )
    if names:
        config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(known, name), index)


def _dotted(name: str) -> str:
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def _use_dla(config: Any, network: Network, recipe: EngineRecipe) -> None:
    cores = network.builder.num_DLA_cores
    core = recipe.dla_core or 0
    if core >= cores:
        raise MissingError(
            f"DLA core {core} was requested, but TensorRT {version_of(network.module)} finds {cores}",
            hint="leave dla_core out: the GPU is used then",
        )
    if not network.strongly_typed and recipe.precision is Precision.FP32:
        raise BadInputError("a deep learning accelerator computes only in fp16 or int8", hint="build the fp16 file")
    config.default_device_type = network.module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(network.module.BuilderFlag.GPU_FALLBACK)


def _add_profile(config: Any, network: Network, batch: BatchRange | None, onnx: Path) -> None:
    """One optimisation profile for all inputs; only the batch may be open."""
    inputs = [network.definition.get_input(index) for index in range(network.definition.num_inputs)]
    shapes = {one.name: tuple(one.shape) for one in inputs}
    open_inputs = {name: shape for name, shape in shapes.items() if -1 in shape}
    if not open_inputs:
        _check_static(shapes, batch, onnx)
        return
    for name, shape in open_inputs.items():
        if -1 in shape[1:]:
            raise BadInputError(
                f"{onnx}: input {name} {_format_shape(shape)} has dynamic axes beside its batch",
                hint="export it for images of one size",
            )
    if batch is None:
        name, shape = next(iter(open_inputs.items()))
        raise BadInputError(
            f"{onnx}: input {name} {_format_shape(shape)} has a dynamic batch size, and the recipe names none",
            hint="give the smallest, usual and largest batch (--batch-range 1,1,8)",
        )
    if not 1 <= batch.min <= batch.opt <= batch.max:
        raise BadInputError(
            f"batch {batch.min},{batch.opt},{batch.max}: smallest, usual and largest were expected, each at least 1",
            hint="for example --batch-range 1,1,8",
        )
    profile = network.builder.create_optimization_profile()
    for name, shape in open_inputs.items():
        profile.set_shape(name, *((size, *shape[1:]) for size in (batch.min, batch.opt, batch.max)))
    config.add_optimization_profile(profile)


def _check_static(shapes: dict[str, tuple[int, ...]], batch: BatchRange | None, onnx: Path) -> None:
    for name, shape in shapes.items():
        if batch is not None and shape and {batch.min, batch.opt, batch.max} != {shape[0]}:
            raise BadInputError(
                f"{onnx}: input {name} {_format_shape(shape)} has a static batch of {shape[0]}, but the recipe "
                f"requires {batch.min} to {batch.max}",
                hint="leave the batch out, or export the file with a dynamic batch size",
            )


def _format_shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join('?' if side < 0 else str(side) for side in shape)})"


def use_timing_cache(config: Any, network: Network, recipe: EngineRecipe, cache: Path | None) -> None:
    """Let the builder reuse what it has timed before; a cache of another GPU or version is started afresh.

    TensorRT-RTX times nothing when it builds, and has no use for one.
    """
    if cache is None or recipe.runtime == TENSORRT_RTX:
        return
    content = cache.read_bytes() if cache.is_file() else b""
    timings = config.create_timing_cache(content) or config.create_timing_cache(b"")
    if not config.set_timing_cache(timings, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def timing_cache_bytes(config: Any, recipe: EngineRecipe) -> bytes:
    """What the builder has timed by now, to be kept; nothing for TensorRT-RTX."""
    if recipe.runtime == TENSORRT_RTX:
        return b""
    timings = config.get_timing_cache()
    return bytes(timings.serialize()) if timings is not None else b""


def describe(recipe: EngineRecipe) -> str:
    """For messages: "TensorRT-RTX for 8.6, 8.9"."""
    said = WORDS[recipe.runtime]
    return f"{said} for {', '.join(recipe.compute_capabilities)}" if recipe.compute_capabilities else said

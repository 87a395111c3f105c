"""Build one engine, or ask one parser, in this process: best a fresh one, because TensorRT can end it.

    python -m edgerecover.runtime.engine.build build --onnx m.onnx --recipe '{…}' --out m.engine --answer answer.json

A parser and a compiler in C++ meet a file that anyone can have written: that may crash, hang or take all memory, and
what it prints must not mix with a report. `engine.build_engine` starts this module and reads the answer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgerecover.artifacts.codec import from_json, sha256_of, to_json
from edgerecover.artifacts.engines import EngineFacts, EngineRecipe
from edgerecover.errors import BadInputError, EdgeRecoverError, StageError
from edgerecover.files import replace_file
from edgerecover.runtime.engine.config import (
    configure,
    describe,
    dla_fallbacks,
    timing_cache_bytes,
    use_timing_cache,
)
from edgerecover.runtime.engine.key import key_here
from edgerecover.runtime.engine.layers import by_type, layers_of_inspector, layers_of_log, sparse_layers
from edgerecover.runtime.engine.network import Network, accepted_here, names_are_text, parse_onnx
from edgerecover.runtime.machine.cuda import this_gpu
from edgerecover.runtime.machine.memory import bound_memory
from edgerecover.runtime.machine.tensorrt_module import Log, first_of, logger_into, version_of

LAYERS_SUFFIX = ".layers.json"
_TURING_HINT = (
    "TensorRT-RTX multiplies no float32 matrices on Turing (compute capability 7.5): give it a float16 file, whose "
    "fully connected layers are float16 too"
)


def build_here(onnx: Path, recipe: EngineRecipe, out: Path, timing_cache: Path | None = None) -> EngineFacts:
    """Build in this process; writes the engine and `out`.layers.json.

    Raises:
        BadInputError: the parser or the builder refuses the file, or the recipe does not fit it or the runtime; or
            `out` cannot be written.
        MissingError: the runtime or the GPU that it needs is not here.
        StageError: TensorRT fails in another way.
    """
    log = Log()
    started_s = time.perf_counter()
    with names_are_text(onnx):
        network = parse_onnx(onnx, recipe, log)
        config = configure(network, recipe, onnx)
        fallbacks = dla_fallbacks(config, network, recipe)
    use_timing_cache(config, network, recipe, timing_cache)
    plan = _build(network, config, recipe, onnx)
    build_s = time.perf_counter() - started_s
    layers, source = _layers(network, plan)
    _write(out, plan)
    _write(out.with_name(out.name + LAYERS_SUFFIX), json.dumps({"source": source, "layers": layers}).encode())
    if timing_cache is not None and (timings := timing_cache_bytes(config, recipe)):
        _write(timing_cache, timings)
    return EngineFacts(
        file=out.name,
        sha256=sha256_of(out),
        size_bytes=out.stat().st_size,
        key=key_here(onnx, recipe, version_of(network.module)),
        recipe=recipe,
        build_s=build_s,
        num_layers=sum(by_type(layers).values()),
        layers_by_type=by_type(layers),
        layers_source=source,
        sparse=sparse_layers(text for _, text in log.messages) if recipe.sparse_weights else None,
        dla_fallbacks=fallbacks,
        warnings=log.texts("WARNING"),
    )


def _build(network: Network, config: Any, recipe: EngineRecipe, onnx: Path) -> bytes:
    seen = len(network.log.errors)
    try:
        plan = network.builder.build_serialized_network(network.definition, config)
    except Exception as error:  # pybind11 turns what C++ throws into RuntimeError, MemoryError and others
        raise StageError(
            f"{onnx}: {describe(recipe)} failed to build it: {str(error)[:300]}",
            hint="the message above is TensorRT's own; `edgerecover engine check` asks whether it takes the file",
        ) from error
    if plan is None:
        reason = first_of(network.log.errors[seen:] or network.log.errors, "it gives no reason")
        raise BadInputError(
            f"{onnx}: {describe(recipe)} took the file but could not build an engine: {reason}",
            hint=_TURING_HINT
            if "SM75" in reason
            else "try it with another precision, a larger workspace, or without sparse weights or DLA",
        )
    return bytes(plan)


def _layers(network: Network, plan: bytes) -> tuple[list[dict[str, Any]], str]:
    """From the inspector where the engine can be opened, else from the log of the build."""
    if this_gpu() is not None:
        information = _inspect(network, plan)
        if layers := layers_of_inspector(information):
            return layers, "engine inspector"
    layers = layers_of_log(text for _, text in network.log.messages)
    return layers, "build log" if layers else ""


def _inspect(network: Network, plan: bytes) -> str:
    module = network.module
    engine = module.Runtime(logger_into(module, Log())).deserialize_cuda_engine(plan)
    if engine is None:
        return ""
    return str(engine.create_engine_inspector().get_engine_information(module.LayerInformationFormat.JSON))


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="name a folder with free space that you may write to",
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; the result, or an error's message and hint, goes to the answer file as JSON."""
    options = _parser().parse_args(argv)
    warnings.simplefilter("ignore")
    bound_memory(address_space=this_gpu() is None)
    try:
        answer = to_json(_done(options))
        status = 0
    except MemoryError:
        answer, status = {"message": f"{options.onnx}: it needs more memory than there is", "hint": ""}, 2
    except EdgeRecoverError as error:
        answer, status = {"message": error.message, "hint": error.hint}, error.exit_code
    Path(options.answer).write_text(json.dumps(answer), encoding="utf-8")
    return status


def _done(options: argparse.Namespace) -> Any:
    if options.task == "accept":
        return accepted_here(options.onnx, options.runtime, options.question)
    recipe = from_json(EngineRecipe, json.loads(options.recipe))
    return build_here(options.onnx, recipe, options.out, options.timing_cache)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m edgerecover.runtime.engine.build", description=__doc__)
    parser.add_argument("task", choices=["build", "accept"])
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--answer", type=Path, required=True, help="where the result goes, as JSON")
    parser.add_argument("--recipe", help="an EngineRecipe as JSON")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--timing-cache", type=Path)
    parser.add_argument("--runtime", help="accept: whose parser is asked")
    parser.add_argument("--question", help="accept: the runtime that the answer is for")
    return parser


if __name__ == "__main__":
    sys.exit(main())

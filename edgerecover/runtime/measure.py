"""Latency and memory of one ONNX file, measured in a process that holds nothing else.

    python -m edgerecover.runtime.measure --model model.onnx --golden-inputs inputs.npy

prints one JSON object, an `artifacts.Latency`. In the process that trained, torch's memory would count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import Latency, TargetMachine, from_json, to_json
from edgerecover.artifacts.machine import ANY_MACHINE
from edgerecover.errors import BadInputError, EdgeRecoverError, MissingError, StageError
from edgerecover.runtime.fresh import run_fresh
from edgerecover.runtime.host import is_target, this_host
from edgerecover.runtime.latency import measure
from edgerecover.runtime.memory import peak_bytes
from edgerecover.runtime.session import import_onnxruntime, open_session

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

SCOPE = "one onnxruntime call, images in and logits out in host memory"
TIMEOUT_S = 900.0


def measure_here(
    model: Path,
    golden_inputs: Path,
    providers: Sequence[str],
    *,
    num_warmup: int,
    min_queries: int,
    min_duration_s: float,
    num_threads: int | None = None,
    target: TargetMachine = ANY_MACHINE,
) -> Latency:
    """Measure in this process, best a fresh one: peak memory is the whole process's.

    Args:
        model: the ONNX file.
        golden_inputs: .npy of float32 images (N, C, H, W); the first batch is the query.
        providers: onnxruntime execution providers, best first.
        num_warmup: queries before those that count.
        min_queries: at least so many count, and
        min_duration_s: they take at least this long.
        num_threads: None leaves it to onnxruntime.
        target: decides `host_is_target`.

    Raises:
        BadInputError: the model or the images cannot be read or do not fit each other.
        MissingError: onnxruntime is not installed.
    """
    import numpy as np

    runtime = import_onnxruntime()
    feed_NCHW = _read_images(golden_inputs)
    memory_before_bytes = peak_bytes()
    shape_CHW = feed_NCHW.shape[1:] if feed_NCHW.ndim == 4 else None
    session = open_session(model, providers, num_threads=num_threads, shape_CHW=shape_CHW)
    batch = session.batch or 1
    session.run(feed_NCHW[:batch])  # refuses images that do not fit
    query = session.feed(np.resize(feed_NCHW[:batch], (batch, *session.shape_CHW)))
    warmup_ms, samples_ms = measure(
        lambda: session.run_batch(query),
        num_warmup=num_warmup,
        min_queries=min_queries,
        min_duration_s=min_duration_s,
    )
    memory_peak_bytes = peak_bytes()
    host = this_host()
    return Latency(
        scope=SCOPE,
        runtime=f"onnxruntime {runtime.__version__}",
        # Known from a second, profiled session: it must not count in the peak above.
        provider=session.provider,
        nodes_by_provider=session.nodes_by_provider,
        num_threads=session.num_threads,
        batch=batch,
        host=host,
        host_is_target=is_target(target, host),
        warmup_ms=warmup_ms,
        samples_ms=samples_ms,
        load_ms=session.load_ms,
        memory_before_bytes=memory_before_bytes,
        memory_peak_bytes=memory_peak_bytes,
    )


def measure_in_subprocess(
    model: Path,
    golden_inputs: Path,
    providers: Sequence[str],
    *,
    num_warmup: int,
    min_queries: int,
    min_duration_s: float,
    num_threads: int | None = None,
    target: TargetMachine = ANY_MACHINE,
) -> Latency:
    """`measure_here` in a fresh interpreter, so that its peak memory is the runtime's alone.

    Raises:
        BadInputError, MissingError: as `measure_here`.
        StageError: the process died, hung or answered something else; gives its last line.
    """
    arguments = ["--model", str(model.absolute()), "--golden-inputs", str(golden_inputs.resolve())]
    arguments += ["--providers", ",".join(providers), "--target", json.dumps(to_json(target))]
    arguments += ["--num-warmup", str(num_warmup), "--min-queries", str(min_queries)]
    arguments += ["--min-duration-s", str(min_duration_s)]
    if num_threads is not None:
        arguments += ["--num-threads", str(num_threads)]
    return _parsed(run_fresh("edgerecover.runtime.measure", arguments, TIMEOUT_S, what="the latency measurement"))


def _parsed(child: subprocess.CompletedProcess[str]) -> Latency:
    if child.returncode:
        last_line = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        family = {kind.exit_code: kind for kind in (BadInputError, MissingError)}
        raise family.get(child.returncode, StageError)(f"the latency measurement failed: {last_line}")
    try:
        return from_json(Latency, json.loads(child.stdout))
    except ValueError as error:
        raise StageError(f"the latency measurement answered something else: {error}") from error


def _read_images(path: Path) -> NDArray[numpy.float32]:
    import numpy as np

    try:
        # Mapped, not read: images that are not queried must not count as the runtime's memory.
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"{path}: cannot be read as .npy: {error}") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        raise BadInputError(f"{path}: one float32 array (N, C, H, W) was expected")
    return images


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the arguments name; JSON goes to stdout, an error to stderr. Returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        latency = measure_here(
            options.model,
            options.golden_inputs,
            options.providers.split(","),
            num_warmup=options.num_warmup,
            min_queries=options.min_queries,
            min_duration_s=options.min_duration_s,
            num_threads=options.num_threads,
            target=from_json(TargetMachine, json.loads(options.target)),
        )
    except EdgeRecoverError as error:
        sys.stderr.write(f"{error.message}{f' ({error.hint})' if error.hint else ''}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(to_json(latency)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m edgerecover.runtime.measure", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--golden-inputs", type=Path, required=True)
    parser.add_argument("--providers", default="CPUExecutionProvider", help="comma-separated, best first")
    parser.add_argument("--num-warmup", type=int, default=10)
    parser.add_argument("--min-queries", type=int, default=100)
    parser.add_argument("--min-duration-s", type=float, default=1.0)
    parser.add_argument("--num-threads", type=int, help="default: onnxruntime's own choice")
    parser.add_argument("--target", default="{}", help="an `artifacts.TargetMachine` as JSON; default: any machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())

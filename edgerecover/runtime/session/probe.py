"""Try a stranger's ONNX file in a process that may die of it, before this one opens it.

A parser and a hundred kernels in C++ meet a file that anyone can have written: it can run for ever (a Loop without
end), grow without bounds (functions that call each other twice, thirty levels deep), or end the process. Here that
ends in a message.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgerecover.artifacts import NumValues
from edgerecover.errors import BadInputError, EdgeRecoverError, MissingError, StageError
from edgerecover.runtime.machine.fresh import run_fresh
from edgerecover.runtime.machine.memory import bound_memory
from edgerecover.runtime.session.onnxruntime import CPU, open_session

TIMEOUT_S = 120.0
"""A sound file of 2 GB opens and runs once in a fraction of it."""


def probe(
    model: Path, shape_CHW: tuple[int, int, int] | None, num_values: NumValues | None, *, timeout_s: float = TIMEOUT_S
) -> None:
    """Open `model` on the CPU and run it once on zeros, in a fresh process with bounded time and memory.

    Args:
        model: the ONNX file; its external data checked beforehand.
        shape_CHW: of the images it is to take, where known.
        num_values: numbers for each image, where known.
        timeout_s: for all of it.

    Raises:
        BadInputError: the file is not a classifier that onnxruntime runs, or it crashed the process, took longer, or
            asked for more memory than the machine has.
        MissingError: onnxruntime is not installed.
        StageError: the process could not be started, or failed for another reason than the file.
    """
    arguments = ["--model", str(model.absolute())]
    if shape_CHW is not None:
        arguments += ["--shape", ",".join(map(str, shape_CHW))]
    if num_values is not None:
        arguments += ["--num-values", json.dumps(num_values)]
    try:
        child = run_fresh("edgerecover.runtime.session.probe", arguments, timeout_s, what="a first run of the file")
    except StageError as error:
        if not isinstance(error.__cause__, subprocess.TimeoutExpired):
            raise
        raise BadInputError(
            f"{model}: opening it and running it once did not finish within {timeout_s:.0f} s",
            hint="the file may be damaged or hostile; a network of ordinary size takes a few seconds",
        ) from error
    _raise_for(model, child)


def _raise_for(model: Path, child: subprocess.CompletedProcess[str]) -> None:
    if child.returncode == 0:
        return
    lines = child.stderr.strip().splitlines()
    family = {kind.exit_code: kind for kind in (BadInputError, MissingError)}.get(child.returncode)
    if family is not None and child.stdout:
        said = json.loads(child.stdout)
        raise family(said["message"], hint=said["hint"])
    if 0 < child.returncode < 256:
        raise StageError(
            f"a first run of {model.name} failed: {(lines or ['no message'])[-1][:300]}",
            hint="the runtime may lack an operator of the file; `edgerecover doctor` checks the runtime itself",
        )
    raise BadInputError(
        f"{model}: onnxruntime crashes on it (status {child.returncode})",
        hint="the file is damaged or hostile, or needs more memory than there is",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Probe what the arguments name. An error's message and hint go to stdout as JSON. Returns the exit code."""
    options = _parser().parse_args(argv)
    bound_memory()
    shape = _shape(options.shape) if options.shape else None
    try:
        session = open_session(
            options.model,
            [CPU],
            strict=True,
            shape_CHW=shape,
            num_values=options.num_values,
        )
        _ = session.output_indices
    except MemoryError:
        sys.stdout.write(json.dumps({"message": f"{options.model}: it needs more memory than there is", "hint": ""}))
        return BadInputError.exit_code
    except EdgeRecoverError as error:
        sys.stdout.write(json.dumps({"message": error.message, "hint": error.hint}))
        return error.exit_code
    return 0


def _shape(text: str) -> tuple[int, int, int]:
    channels, height, width = map(int, text.split(","))
    return channels, height, width


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m edgerecover.runtime.session.probe", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--shape", help="C,H,W of one image")
    parser.add_argument("--num-values", type=json.loads)
    return parser


if __name__ == "__main__":
    sys.exit(main())

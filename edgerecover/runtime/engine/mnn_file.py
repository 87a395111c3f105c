"""An ONNX file as MNN's own kind of file, made offline in its own process.

    python -m edgerecover.runtime.engine.mnn_file --onnx m.onnx --out m.mnn --block 4

MNN multiplies without the zeros of a layer whose file leaves them out. The converter is told to leave them out of every
layer with more than 60 % zeros, or 30 % of zeros in blocks of four output channels.

Shapes: O output channels.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from edgerecover.artifacts.codec import sha256_of
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.runtime.machine.fresh import run_fresh
from edgerecover.runtime.machine.memory import bound_memory
from edgerecover.runtime.machine.mnn_module import import_converter, import_mnn

SUFFIX = ".mnn"
BLOCK_O = 4
"""Output channels that zeros in blocks share: the most that MNN's kernels use on every processor."""
LEAST_ZEROS = {1: 0.6, BLOCK_O: 0.3}
"""Zeros from which on the converter leaves them out of a layer, by the size of a block (MNN 3.6.1,
tools/converter/source/common/AddSparseInfo.cpp)."""
TIMEOUT_S = 300.0
_PLATFORM_NOISE = re.compile(r"^\[[\d:]+\] :\d+: ")


def convert(onnx: Path, out: Path, *, block_O: int = 1, timeout_s: float = TIMEOUT_S) -> None:
    """Write `out`, the network of a float32 ONNX file for MNN. The same file gives the same bytes.

    Args:
        onnx: the file, checked beforehand if it is a stranger's; its external data beside it.
        out: a .mnn file.
        block_O: output channels that share their zeros; 1 where zeros are anywhere.
        timeout_s: the process is ended after that.

    Raises:
        BadInputError: MNN does not take the file, or crashes or hangs on it.
        MissingError: MNN is not installed.
    """
    import_mnn()
    if not onnx.is_file():
        raise BadInputError(f"{onnx}: no such file", hint="check the path")
    arguments = ["--onnx", str(onnx.absolute()), "--out", str(out.absolute()), "--block", str(block_O)]
    try:
        child = run_fresh("edgerecover.runtime.engine.mnn_file", arguments, timeout_s, what="the conversion for MNN")
    except StageError as error:
        if not isinstance(error.__cause__, subprocess.TimeoutExpired):
            raise
        raise BadInputError(
            f"{onnx}: MNN's converter did not finish within {timeout_s:.0f} s",
            hint="the file may be damaged; a network of ordinary size takes a few seconds",
        ) from error
    if child.returncode == 0 and out.is_file():
        return
    out.unlink(missing_ok=True)
    if child.returncode == MissingError.exit_code:
        import_converter()  # for its message
    if child.returncode < 0:
        raise BadInputError(
            f"{onnx}: MNN's converter crashes on it (signal {-child.returncode})",
            hint="give it an intact float32 file, or choose a target that does not name MNN",
        )
    raise BadInputError(
        f"{onnx}: MNN's converter does not take it: {_reason(child.stdout + child.stderr)}",
        hint="export it with standard ONNX operators, or choose a target that does not name MNN",
    )


def _reason(said: str) -> str:
    """The line in which the converter complains; it prints much else, and always returns success."""
    lines = [_PLATFORM_NOISE.sub("", line.strip()) for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"[Ee]rror|[Ff]ail|[Uu]nsupport|[Cc]an't|[Nn]ot ", line)]
    text = (wrong or lines or ["it gives no reason"])[0]
    return "".join(character if character.isprintable() else "?" for character in text)[:300]


def main(argv: Sequence[str] | None = None) -> int:
    """Convert what the arguments name. Returns the exit code."""
    options = _parser().parse_args(argv)
    bound_memory()
    try:
        converter = import_converter()
    except MissingError as error:
        return error.exit_code
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        parameters = Path(folder) / "parameters.json"
        parameters.write_text(json.dumps(_parameters(options.onnx, options.block)), encoding="utf-8")
        arguments = ["MNNConvert", "-f", "ONNX", "--modelFile", str(options.onnx), "--MNNModel", str(options.out)]
        arguments += ["--bizCode", "edgerecover", "--detectSparseSpeedUp"]
        arguments += ["--compressionParamsFile", str(parameters)]
        converter.mnnconvert(arguments)
    return 0 if options.out.is_file() else BadInputError.exit_code


def _parameters(onnx: Path, block_O: int) -> dict[str, object]:
    """What the converter is told of the zeros, and the name that it would else draw by chance."""
    described = f"{sha256_of(onnx)} {block_O}"
    pruned: dict[str, object] = {"type": "RANDOM"}
    if block_O > 1:
        pruned = {"type": "SIMD_OC", "simd_oc_pruner_params": {"oc_blocks": [block_O]}}
    return {
        "version": "0.0.0",
        "mnn_uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, described)),
        "algo": [{"type": "PRUNE", "prune_params": pruned}],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m edgerecover.runtime.engine.mnn_file", description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--block", type=int, default=1, help="output channels that share their zeros")
    return parser


if __name__ == "__main__":
    sys.exit(main())

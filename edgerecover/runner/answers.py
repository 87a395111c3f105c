"""A model's answers to the golden images, from a process that may die of it, and what they are to the golden ones.

Shapes: N images, C channels, H height, W width, D scores for each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import GoldenCheck, NumValues, Precision
from edgerecover.errors import BadInputError, EdgeRecoverError, MissingError, StageError
from edgerecover.files import npy_bytes
from edgerecover.runtime.machine.fresh import run_fresh
from edgerecover.runtime.session.opening import open_model
from edgerecover.tasks.measure import Measure
from edgerecover.validation.fidelity import agreement, shares
from edgerecover.validation.parity import compare

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

TIMEOUT_S = 600.0
"""To open a model and run the golden images; a GPU's first kernels take their time."""

TOLERANCE = {Precision.FP32: 0.02, Precision.FP16: 0.05, Precision.INT8: 0.5}
"""Largest difference of a score that two runtimes may have on one file, in standard deviations of the scores: two to
three times what was measured, and less than bfloat16 makes of an fp32 file (docs/adr/0024)."""
_LARGEST = 3.4e38


def answers_of(
    model: Path,
    golden_inputs: Path,
    runtime: str,
    providers: Sequence[str],
    num_values: NumValues,
    num_threads: int | None = None,
) -> NDArray[numpy.float32]:
    """Scores (N, D) of the golden images, in a fresh process.

    Args:
        model: an ONNX file; for TensorRT an engine.
        golden_inputs: .npy, float32 (N, C, H, W).
        runtime: of `opening.RUNTIMES`.
        providers: of that runtime, best first; the first one must run.
        num_values: numbers for each image, of several outputs by name.
        num_threads: None leaves it to the runtime.

    Raises:
        BadInputError: the runtime cannot run the file, or dies of it.
        MissingError: the runtime is not installed, or its first provider does not run.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        out = Path(folder) / "answers.npy"
        arguments = ["--model", str(model.absolute()), "--golden-inputs", str(golden_inputs.absolute())]
        arguments += ["--out", str(out), "--runtime", runtime, "--providers", ",".join(providers)]
        arguments += ["--num-values", json.dumps(num_values)]
        if num_threads is not None:
            arguments += ["--num-threads", str(num_threads)]
        _raise_for(model, run_fresh("edgerecover.runner.answers", arguments, TIMEOUT_S, what="the golden check"))
        answers_ND: NDArray[numpy.float32] = np.load(out, allow_pickle=False)
    return answers_ND


def _raise_for(model: Path, child: subprocess.CompletedProcess[str]) -> None:
    if child.returncode == 0:
        return
    family = {kind.exit_code: kind for kind in (BadInputError, MissingError)}.get(child.returncode)
    if family is not None and child.stdout:
        said = json.loads(child.stdout)
        raise family(said["message"], hint=said["hint"])
    last_line = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
    if child.returncode > 0:
        raise StageError(
            f"the golden check of {model.name} failed: {last_line[:300]}",
            hint="the runtime may lack an operator of the file; `edgerecover doctor` checks the runtime itself",
        )
    raise BadInputError(
        f"{model.name}: the runtime crashes on it (signal {-child.returncode})",
        hint="it may need more memory than there is, or another version of the runtime",
    )


def check(
    answers_ND: NDArray[Any],
    golden_ND: NDArray[Any],
    teacher_ND: NDArray[Any] | None,
    measure: Measure,
    precision: Precision,
    golden_precision: Precision,
) -> GoldenCheck:
    """Compare a file's answers with the golden ones.

    Args:
        answers_ND: of the file, here.
        golden_ND: of the bundle's model, where it was packed.
        teacher_ND: of the dense network; None where they are not known.
        measure: what agreement means.
        precision: of the file.
        golden_precision: of the bundle's model. The tolerance is that of the coarser of the two.
    """
    import numpy as np

    tolerance = max(TOLERANCE[precision], TOLERANCE[golden_precision])
    is_finite_N = np.isfinite(answers_ND).all(axis=1)
    same_N, is_near_N, differences = is_finite_N, np.ones(len(golden_ND), np.bool_), []
    for _, columns, part in measure.parts:
        here_ND, there_ND = answers_ND[:, columns], golden_ND[:, columns]
        parity = compare(there_ND, here_ND, part)
        is_same_N = shares(here_ND, there_ND, part) >= part.least_same
        # Too close to call: in every output that differs.
        is_near_N = is_near_N & (is_same_N | part.is_near(there_ND, tolerance * parity.logit_scale))
        same_N = same_N & is_same_N
        differences.append(parity.relative)
    return GoldenCheck(
        num_images=len(golden_ND),
        same_decisions=int(same_N.sum()),
        too_close=int((~same_N & is_near_N & is_finite_N).sum()),
        largest_difference=min(max(differences), _LARGEST),
        tolerance=tolerance,
        is_same_precision=precision is golden_precision,
        teacher=None if teacher_ND is None else agreement(answers_ND, teacher_ND, measure),
        task=measure.output.task,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments name. An error's message and hint go to stdout as JSON. Returns the exit code."""
    import numpy as np

    options = _parser().parse_args(argv)
    try:
        images_NCHW = np.load(options.golden_inputs, mmap_mode="r", allow_pickle=False)
        opened = open_model(
            options.model,
            options.runtime,
            options.providers.split(","),
            num_threads=options.num_threads,
            strict=True,
            shape_CHW=images_NCHW.shape[1:],
            num_values=options.num_values,
        )
        options.out.write_bytes(npy_bytes(opened.run(np.asarray(images_NCHW))))
    except EdgeRecoverError as error:
        sys.stdout.write(json.dumps({"message": error.message, "hint": error.hint}))
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m edgerecover.runner.answers", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--golden-inputs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help=".npy of the scores")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--providers", required=True, help="comma-separated, best first")
    parser.add_argument("--num-values", type=json.loads, required=True)
    parser.add_argument("--num-threads", type=int)
    return parser

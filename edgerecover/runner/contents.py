"""What a bundle says of itself, read once it is verified. Trusts no field: a bundle can come from anyone.

Shapes: N images, C channels, H height, W width, D scores for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import DeviceTask, EngineRecipe, Gate, OutputSpec, Precision, TaskKind, from_json
from edgerecover.artifacts.strict_json import MAX_JSON_BYTES, parse_object
from edgerecover.bundle.verify import REPORT, Signed, Verified
from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.measure.timing import MAX_DURATION_S
from edgerecover.runtime.session.opening import RUNTIMES
from edgerecover.tasks.measure import Measure, measure_of
from edgerecover.validation.limits import Limits

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

MODEL = "model.onnx"
VARIANTS = "variants"
GOLDEN_INPUTS, GOLDEN_OUTPUTS, GOLDEN_TEACHER = "golden/inputs.npy", "golden/outputs.npy", "golden/teacher.npy"
TASK, LIMITS, RECIPE = "runner.json", "limits.json", "recipe.json"
ENGINES = "engines"
MNN_FILE = "mnn/fp32.mnn"
"""The float32 network as MNN opens it."""
MAX_GOLDEN_BYTES = 1 << 30


@dataclass(frozen=True)
class ModelFile:
    """One of the networks in a bundle."""

    path: str
    """Inside the bundle."""
    precision: Precision


@dataclass(frozen=True)
class Contents:
    """A verified bundle."""

    folder: Path
    """Folder with the bundle's files."""
    path: Path
    """The folder or archive that was given."""
    manifest_sha256: str
    signed: Signed
    signer: str
    models: tuple[ModelFile, ...]
    """The shipped one first."""
    has_mnn: bool
    """`MNN_FILE` is in the bundle."""
    task: DeviceTask
    limits: Limits
    recipe: EngineRecipe | None
    """How an engine is built; None for targets that need none."""
    gates: tuple[Gate, ...]
    """As judged by the machine that packed the bundle."""
    outputs: NDArray[numpy.float32]
    """Scores (N, D) of model.onnx on the golden images when the bundle was packed."""
    teacher: NDArray[numpy.float32] | None
    """Scores (N, D) of the teacher on the golden images; None where the bundle does not hold them."""

    @property
    def measure(self) -> Measure:
        """What agreement means."""
        return measure_of(self.task.output or OutputSpec(TaskKind.ONE_LABEL, self.outputs.shape[1:]))


def read_contents(verified: Verified, bundle: Path) -> Contents:
    """Read what the runner of a bundle needs.

    Args:
        verified: the bundle.
        bundle: folder with its files.

    Raises:
        BadInputError: its files cannot be read.
        VerificationError: they have changed since they were verified.
    """
    listed = verified.files
    needed = (MODEL, GOLDEN_INPUTS, GOLDEN_OUTPUTS, TASK, LIMITS, REPORT)
    if absent := [path for path in needed if path not in listed]:
        raise BadInputError(
            f"{verified.path}: it holds no {absent[0]}, which its runner needs",
            hint="pack it again with this version: `edgerecover run`, or `edgerecover validate --out`",
        )
    task = _decode(DeviceTask, _read_json(verified, TASK), bundle / TASK)
    _check_task(task, bundle / TASK)
    outputs_ND, teacher_ND = _golden_scores(bundle, task, has_teacher=GOLDEN_TEACHER in listed)
    return Contents(
        folder=bundle,
        path=verified.path,
        manifest_sha256=verified.manifest_sha256,
        signed=verified.signed,
        signer=verified.signer,
        models=_models(listed, task.precision),
        has_mnn=MNN_FILE in listed,
        task=task,
        limits=_decode(Limits, _read_json(verified, LIMITS), bundle / LIMITS),
        recipe=_decode(EngineRecipe, _read_json(verified, RECIPE), bundle / RECIPE) if RECIPE in listed else None,
        gates=_decode(tuple[Gate, ...], _read_json(verified, REPORT).get("gates"), bundle / REPORT),
        outputs=outputs_ND,
        teacher=teacher_ND,
    )


def _models(listed: Mapping[str, object], shipped: Precision) -> tuple[ModelFile, ...]:
    """model.onnx, and variants that are named after their precision."""
    named = [ModelFile(f"{VARIANTS}/{precision.value}.onnx", precision) for precision in Precision]
    return (ModelFile(MODEL, shipped), *(model for model in named if model.path in listed))


def _check_task(task: DeviceTask, path: Path) -> None:
    if not {task.runtime, *task.also_runtimes} <= set(RUNTIMES) or not task.providers:
        raise _unreadable(path, f"it names the runtime {task.runtime!r} with the providers {task.providers!r}")
    if task.num_warmup < 0 or task.min_queries < 1 or not 0 <= task.min_duration_s <= MAX_DURATION_S:
        raise _unreadable(path, "its settings of the measurement make no sense")


# --- files ----------------------------------------------------------------------------------------------------


def _read_json(verified: Verified, name: str) -> dict[str, Any]:
    path = verified.path / name
    if verified.files[name].size_bytes > MAX_JSON_BYTES:
        raise _unreadable(path, f"larger than {MAX_JSON_BYTES >> 20} MiB")
    try:
        return parse_object(verified.read(name))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error


def _decode(kind: Any, value: Any, path: Path) -> Any:
    try:
        return from_json(kind, value)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error


def _golden_scores(bundle: Path, task: DeviceTask, *, has_teacher: bool) -> tuple[Any, Any]:
    inputs_NCHW = _read_array(bundle / GOLDEN_INPUTS, ndim=4)
    outputs_ND = _read_array(bundle / GOLDEN_OUTPUTS, ndim=2)
    teacher_ND = _read_array(bundle / GOLDEN_TEACHER, ndim=2) if has_teacher else None
    num_values = task.output.num_values if task.output else max(2, outputs_ND.shape[1])
    for scores_ND in (outputs_ND, teacher_ND):
        if scores_ND is not None and scores_ND.shape != (len(inputs_NCHW), num_values):
            raise _unreadable(bundle / GOLDEN_OUTPUTS, f"scores {scores_ND.shape} of images {inputs_NCHW.shape}")
    return outputs_ND, teacher_ND


def _read_array(path: Path, ndim: int) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise MissingError(f"numpy cannot be imported: {error}", hint="python3 -m pip install numpy") from error
    try:
        if path.stat().st_size > MAX_GOLDEN_BYTES:
            raise ValueError(f"larger than {MAX_GOLDEN_BYTES >> 20} MiB")
        # Mapped: a header that claims more than there is must not take memory.
        array = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, str(error)) from error
    if array.dtype != np.float32 or array.ndim != ndim or not array.size:
        raise _unreadable(path, f"float32 of {ndim} axes was expected, found {array.dtype} {array.shape}")
    return array


def _unreadable(path: Path, problem: str) -> BadInputError:
    return BadInputError(
        f"{path} cannot be read: {problem[:300]}", hint="was it packed by another version of edgerecover?"
    )

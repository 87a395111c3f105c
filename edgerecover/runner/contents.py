"""What a bundle says of itself, read once it is verified. Trusts no field: a bundle can come from anyone.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgerecover.artifacts import Gate, Precision, from_json
from edgerecover.bundle.manifest import MANIFEST_NAME
from edgerecover.bundle.verify import verify_bundle
from edgerecover.errors import BadInputError
from edgerecover.validate.limits import Limits

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

T = TypeVar("T")

MODEL = "model.onnx"
VARIANTS = "variants"
GOLDEN_INPUTS, GOLDEN_OUTPUTS, GOLDEN_TEACHER = "golden/inputs.npy", "golden/outputs.npy", "golden/teacher.npy"
LIMITS, RECIPE = "limits.json", "recipe.json"
MAX_JSON_BYTES = 64 << 20
MAX_GOLDEN_BYTES = 1 << 30


@dataclass(frozen=True)
class ModelFile:
    """One of the networks in a bundle."""

    path: str
    """Inside the bundle."""
    precision: Precision


@dataclass(frozen=True)
class Asked:
    """What the bundle asks of the machine and of the measurement."""

    target: str
    machine: str
    """`platform.machine()`, or "any"."""
    board: str | None
    runtime: str
    also_runtimes: tuple[str, ...]
    """Runtimes that may be faster, where they are installed."""
    providers: tuple[str, ...]
    """Of onnxruntime, best first."""
    num_warmup: int
    min_queries: int
    min_duration_s: float


@dataclass(frozen=True)
class Contents:
    """A verified bundle."""

    folder: Path
    manifest_sha256: str
    models: tuple[ModelFile, ...]
    """The shipped one first."""
    asked: Asked
    gates: tuple[Gate, ...]
    """As the machine judged that packed it."""
    limits: Limits | None
    """None in bundles packed before they were put in."""
    inputs_NCHW: NDArray[numpy.float32]
    outputs_NK: NDArray[numpy.float32]
    teacher_NK: NDArray[numpy.float32] | None


def read_contents(bundle: Path) -> Contents:
    """Verify a bundle and read what its runner needs.

    Raises:
        BadInputError: it is not a bundle, or is one whose files cannot be read.
        VerificationError: it is not what its manifest lists.
    """
    manifest = verify_bundle(bundle)
    listed = manifest.files
    needed = (MODEL, GOLDEN_INPUTS, GOLDEN_OUTPUTS, "config.json", "report.json")
    if absent := [path for path in needed if path not in listed]:
        raise BadInputError(
            f"{bundle}: it lists no {absent[0]}, which its runner needs",
            hint="pack it anew with `edgerecover run` or `edgerecover validate --out`",
        )
    report = _read_json(bundle / "report.json")
    return Contents(
        folder=bundle,
        manifest_sha256=hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest(),
        models=_models(sorted(listed), _shipped_precision(report)),
        asked=_asked(bundle, _read_json(bundle / "config.json")),
        gates=_decoded(tuple[Gate, ...], report.get("gates"), bundle / "report.json", "gates"),
        limits=_decoded(Limits, _read_json(bundle / LIMITS), bundle / LIMITS, "") if LIMITS in listed else None,
        **_golden(bundle, has_teacher=GOLDEN_TEACHER in listed),
    )


def _models(paths: list[str], shipped: Precision) -> tuple[ModelFile, ...]:
    """model.onnx, and variants that are named after their precision."""
    others = [ModelFile(path, precision) for precision in Precision if (path := f"{VARIANTS}/{precision.value}.onnx") in paths]
    return (ModelFile(MODEL, shipped), *others)


def _shipped_precision(report: dict[str, Any]) -> Precision:
    """Of model.onnx; a report from before there were others does not name it."""
    exported = report.get("exported")
    named = exported.get("precision") if isinstance(exported, dict) else None
    return next((precision for precision in Precision if precision.value == named), Precision.FP32)


def _asked(bundle: Path, config: dict[str, Any]) -> Asked:
    """Of the target and the profile, what decides where and how long to measure."""
    try:
        target, timing = config["target"], config["profile"]["latency"]
        facts = {name: fact["value"] for name, fact in target.items() if isinstance(fact, dict) and "value" in fact}
        plain = {
            "target": target["name"],
            "machine": facts["machine"],
            "board": facts.get("board"),
            "runtime": facts["runtime"],
            "also_runtimes": facts.get("also_runtimes", []),
            "providers": facts["providers"],
            "num_warmup": timing["num_warmup"],
            "min_queries": timing["min_queries"],
            "min_duration_s": timing["min_duration_s"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise _unreadable(bundle / "config.json", f"{type(error).__name__}: {error}") from error
    asked = _decoded(Asked, plain, bundle / "config.json", "")
    if not asked.providers or asked.min_queries < 1 or asked.num_warmup < 1 or not 0 <= asked.min_duration_s <= 3600:
        raise _unreadable(bundle / "config.json", "its providers or its settings of latency make no sense")
    return asked


# --- files ----------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"larger than {MAX_JSON_BYTES >> 20} MiB")
        value = json.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(value, dict):
        raise _unreadable(path, f"an object was expected, found {type(value).__name__}")
    return value


def _decoded(kind: Any, value: Any, path: Path, where: str) -> Any:
    try:
        return from_json(kind, value)
    except ValueError as error:
        raise _unreadable(path, f"{where}: {error}" if where else str(error)) from error


def _golden(bundle: Path, *, has_teacher: bool) -> dict[str, Any]:
    inputs_NCHW = _read_array(bundle / GOLDEN_INPUTS, ndim=4)
    scores = {"outputs_NK": _read_array(bundle / GOLDEN_OUTPUTS, ndim=2), "teacher_NK": None}
    if has_teacher:
        scores["teacher_NK"] = _read_array(bundle / GOLDEN_TEACHER, ndim=2)
    for array in scores.values():
        if array is not None and (len(array) != len(inputs_NCHW) or array.shape[1] < 2):
            raise _unreadable(bundle / "golden", f"scores {array.shape} do not belong to images {inputs_NCHW.shape}")
    return {"inputs_NCHW": inputs_NCHW, **scores}


def _read_array(path: Path, ndim: int) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise _no_numpy(error) from error
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


def _no_numpy(error: ImportError) -> Exception:
    from edgerecover.errors import MissingError

    return MissingError(f"numpy cannot be imported: {error}", hint="python3 -m pip install numpy")


def _unreadable(path: Path, problem: str) -> BadInputError:
    return BadInputError(f"{path} cannot be read: {problem[:300]}", hint="was it packed by another version of edgerecover?")

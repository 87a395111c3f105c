"""JSON of anyone's: read within bounds, and checked for numbers that no measurement has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from edgerecover.artifacts import Accuracy, Decisions, Latency, PrecisionLoss, Proportion, Release, from_json
from edgerecover.artifacts.strict_json import MAX_JSON_BYTES, parse_object
from edgerecover.errors import BadInputError

T = TypeVar("T")
_MAX_INT = 1 << 62
_ROUNDING = 1e-5
"""Of what one image counts."""


def read_sound(kind: type[T], path: Path, what: str) -> T:
    """A frozen value from a file of at most 64 MiB; else as `sound`.

    Raises:
        BadInputError: it cannot be read, or is not such a value.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, what, error.strerror or str(error)) from error
    return sound(kind, content, path, what)


def sound(kind: type[T], content: bytes, path: Path, what: str) -> T:
    """A frozen value from JSON.

    Args:
        kind: a dataclass of `artifacts`.
        content: of the file.
        path: of the file, for messages;
        what: and what it is: "a baseline", "the bundle's report".

    Raises:
        BadInputError: it is larger than 64 MiB, does not have the shape of `kind`, or holds numbers that contradict
            each other.
    """
    try:
        value = from_json(kind, parse_object(content))
        _check(value, kind.__name__)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, what, str(error)) from error
    return value


def _unreadable(path: Path, what: str, reason: str) -> BadInputError:
    return BadInputError(
        f"{path} cannot be read as {what}: {ascii(reason)[1:-1][:300]}",
        hint="was it written by another version of edgerecover, or changed by hand?",
    )


def _check(value: Any, where: str) -> None:
    """Every value inside, by what its kind promises."""
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check(item, f"{where}[{number}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(item, f"{where}.{key}")
    elif isinstance(value, int) and abs(value) > _MAX_INT:
        raise ValueError(f"{where}: the number is too large")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check(getattr(value, field.name), f"{where}.{field.name}")
        if problem := _contradiction(value):
            raise ValueError(f"{where}: {problem}")


def _contradiction(value: Any) -> str:
    """What cannot be, in one value; "" where nothing is wrong."""
    if isinstance(value, Proportion):
        return "" if 0 <= value.hits <= value.total > 0 else f"{value.hits:g} of {value.total} is no proportion"
    if isinstance(value, Decisions):
        are_shares = all(0 <= share <= 1 for share in value.shares) and not (value.right and value.shares)
        are_digits = not set(value.right) - {"0", "1"}
        return "" if are_digits and are_shares else "decisions are a string of 0 and 1, or numbers from 0 to 1"
    if isinstance(value, Latency):
        return _of_latency(value)
    if isinstance(value, PrecisionLoss):
        counts = (value.float32_only, value.variant_only, value.changed)
        sound = value.num_images > 0 and min(counts) >= 0 and sum(counts[:2]) <= value.num_images
        return "" if sound else "it counts more images than there are"
    if isinstance(value, Accuracy):
        return _of_accuracy(value)
    if isinstance(value, Release):
        fits = _fits(value.decisions, value.agreement)
        return "" if fits and value.size_bytes > 0 else "its decisions or its size contradict the rest"
    return ""


def _of_latency(latency: Latency) -> str:
    samples, sizes = latency.samples_ms, latency.round_sizes
    if not samples or min(samples) < 0 or max(samples) <= 0:
        return "it has no latency samples, or some below 0"
    if sizes and (min(sizes) < 0 or sum(sizes) != len(samples)):
        return f"its rounds hold {sum(sizes)} samples, there are {len(samples)}"
    return "" if min(latency.memory_before_bytes, latency.memory_peak_bytes) >= 0 else "memory is below 0"


def _of_accuracy(accuracy: Accuracy) -> str:
    known = [side for side in (accuracy.teacher, accuracy.pruned, accuracy.recovered, accuracy.exported) if side]
    pairs = (accuracy.teacher_only, accuracy.exported_only)
    counted = all(side.total == accuracy.num_images for side in known)
    if not counted or min(pairs) < 0 or sum(pairs) > accuracy.num_images:
        return "it counts other images than there are"
    return "" if _fits(accuracy.decisions, accuracy.exported) else "its decisions contradict its accuracy"


def _fits(decisions: Decisions | None, counted: Proportion) -> bool:
    if decisions is None:
        return True
    return decisions.total == counted.total and abs(decisions.hits - counted.hits) <= _ROUNDING * counted.total

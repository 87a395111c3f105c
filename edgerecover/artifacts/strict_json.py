"""JSON that anyone can have written: bounded in size, and refused where two readers could understand it differently.

Stdlib only: devices read bundles too.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_JSON_BYTES = 64 << 20


def parse_json(content: bytes) -> Any:
    """A JSON value of any kind; an object has each key once, and every number is finite.

    Raises:
        ValueError: larger than 64 MiB, not UTF-8, not JSON, a key that appears twice, NaN, or a number that is too
            large for a float.
        RecursionError: it nests too deeply.
    """
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"larger than {MAX_JSON_BYTES >> 20} MiB")
    return json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object, read as `parse_json` reads it.

    Raises:
        ValueError: as `parse_json`, or the value is no object.
        RecursionError: it nests too deeply.
    """
    value = parse_json(content)
    if not isinstance(value, dict):
        raise ValueError(f"an object was expected, found {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two equal keys they take, so there must not be two."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:100]!r} appears twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value

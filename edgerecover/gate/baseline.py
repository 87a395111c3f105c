"""`baseline.json`: the numbers of a release, and how fast it ran on each machine that was asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgerecover.artifacts import BASELINE_SCHEMA, Baseline, Latency, Release, to_json
from edgerecover.errors import UNWRITABLE_HINT, BadInputError
from edgerecover.files import replace_file
from edgerecover.gate.here import runs_like
from edgerecover.gate.sound import read_sound

MAX_RUNS = 20
"""Kept of one machine and scope; the oldest go first."""
_DIGITS = 4
"""Of a sample that mean something."""


def read_baseline(path: Path) -> Baseline:
    """Read what `write_baseline` wrote.

    Raises:
        BadInputError: it cannot be read, is no baseline, or is one of another schema.
    """
    baseline = read_sound(Baseline, path, "a baseline")
    if baseline.schema_version != BASELINE_SCHEMA:
        raise BadInputError(
            f"{path}: baselines of schema {BASELINE_SCHEMA} are read here, this is one of {baseline.schema_version}",
            hint="a newer edgerecover may read it; else delete it, and the next run writes a new one",
        )
    return baseline


def baseline_of(release: Release, earlier: Baseline | None, latency: Latency | None) -> Baseline:
    """A baseline with one run more.

    Runs of another model are left behind: they say nothing about this one.
    """
    same = earlier is not None and earlier.release.model_sha256 == release.model_sha256
    runs = earlier.runs if earlier is not None and same else ()
    if latency is not None:
        alike = runs_like(latency, runs)
        too_old = set(map(id, alike[: max(0, len(alike) + 1 - MAX_RUNS)]))
        runs = (*(run for run in runs if id(run) not in too_old), _slim(latency))
    return Baseline(BASELINE_SCHEMA, release, runs)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write it whole or not at all.

    Raises:
        BadInputError: it cannot be written.
    """
    text = json.dumps(_with_plain_rows(to_json(baseline)), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        replace_file(path, (_join(text) + "\n").encode())
    except OSError as error:
        raise BadInputError(
            f"{path}: the baseline cannot be written: {error.strerror or error}",
            hint=UNWRITABLE_HINT,
        ) from error


def _slim(latency: Latency) -> Latency:
    """Without what nothing is compared by; the samples in as many digits as they are worth."""
    rounded = tuple(float(f"{sample:.{_DIGITS}g}") for sample in latency.samples_ms)
    return replace(latency, warmup_ms=(), samples_ms=rounded)


_MARK = "\N{SYMBOL FOR UNIT SEPARATOR}"


def _with_plain_rows(value: Any) -> Any:
    """Lists of numbers as marked text, which `_join` turns back: thousands of samples would be lines of their own."""
    if isinstance(value, dict):
        return {key: _with_plain_rows(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, (int, float)) for item in value):
            return _MARK + json.dumps(value) + _MARK
        return [_with_plain_rows(item) for item in value]
    return value


def _join(text: str) -> str:
    return text.replace(f'"{_MARK}', "").replace(f'{_MARK}"', "")

"""The points of a sweep, and the plan in its folder that lists them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover import __version__
from edgerecover.artifacts import SweepPoint, from_json, sha256_of, to_json
from edgerecover.errors import BadInputError
from edgerecover.files import replace_file

if TYPE_CHECKING:
    from edgerecover.config import Profile
    from edgerecover.pruning import PruningPattern
    from edgerecover.stages.request import Request

MAX_POINTS = 32
"""Limit for points: their files are raced together, each in its own process."""
_PLAN = "plan.json"
_SCHEMA_VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
_HEX = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class PlannedPoint:
    """A point, and the run that makes it."""

    point: SweepPoint
    request: Request
    key: str
    """Digest of everything that the bundle depends on, as 16 hexadecimal digits."""


@dataclass(frozen=True)
class Plan:
    """A sweep's plan, written before anything is made; it is data alone, so that a stranger's folder runs nothing."""

    model: str
    target: str
    points: tuple[SweepPoint, ...]
    keys: tuple[str, ...]
    """Key of each point; bundles made under another key do not belong to this sweep."""
    synthetic: str
    """Digest of the settings that make the images of all points."""
    seed: int


def points_of(
    base: Request,
    patterns: Sequence[PruningPattern],
    sparsities: Sequence[float],
    profiles: Sequence[Profile],
    folder: Path,
) -> tuple[PlannedPoint, ...]:
    """All combinations of patterns, sparsities and profiles, each as its own run.

    All learn from the images of the first profile: one set is made, and agreement compares only on the same images.

    Args:
        base: the run, apart from pruning, profile, bundle and run folder.
        patterns: empty for unstructured zeros, if there are sparsities.
        sparsities: empty for the model as it is, or for patterns that need none.
        profiles: one or more.
        folder: the sweep's folder.

    Raises:
        BadInputError: there are too many points, two profiles have the same name, or a pattern and a sparsity do not
            fit.
    """
    from edgerecover.pruning import pruning_from_flags

    if len({profile.name for profile in profiles}) < len(profiles):
        raise BadInputError("--profile: two of them have the same name", hint="a profile's name is in its file")
    prunings = dict.fromkeys(
        pruning_from_flags(pattern, None if pattern == "2:4" else sparsity)
        for pattern in patterns or (None,)
        for sparsity in (sparsities if sparsities and pattern != "2:4" else (None,))
    )
    planned = []
    for pruning in prunings:
        for profile in profiles:
            shared = _with_images_of(profile, profiles[0])
            pattern, sparsity = (pruning.pattern, pruning.sparsity) if pruning else (None, None)
            parts = [
                *([pattern.replace(":", "-")] if pattern else []),
                *([f"{100 * sparsity:g}"] if sparsity is not None and pattern != "2:4" else []),
                *([profile.name] if len(profiles) > 1 or not pattern else []),
            ]
            point = SweepPoint("-".join(parts), pattern, sparsity, shared.name)
            request = replace(
                base,
                profile=shared,
                pruning=pruning,
                out=folder / f"{point.name}.bundle",
                work=folder / ".edgerecover" / point.name,
            )
            planned.append(PlannedPoint(point, request, _key(request)))
    if len(planned) > MAX_POINTS:
        raise BadInputError(
            f"{len(planned)} points: at most {MAX_POINTS} can be compared, because all their files run in one race",
            hint="split the sweep over several folders",
        )
    return tuple(planned)


def write_plan(folder: Path, planned: Sequence[PlannedPoint]) -> Plan:
    """Write the plan into the sweep's folder; the same sweep always writes the same plan.

    Raises:
        BadInputError: the folder holds something else, or cannot be written to.
    """
    first = planned[0].request
    plan = Plan(
        model=first.model_path.name,
        target=first.target.name,
        points=tuple(one.point for one in planned),
        keys=tuple(one.key for one in planned),
        synthetic=_digest(first.profile.synthesis.model_dump(mode="json"), first.seed),
        seed=first.seed,
    )
    if folder.exists() and not (folder / _PLAN).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(
            f"{folder}: exists already and is not a sweep",
            hint="choose another folder with --out",
        )
    written = {"schema_version": _SCHEMA_VERSION, **to_json(plan)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / _PLAN, (json.dumps(written, indent=1) + "\n").encode())
    except OSError as error:
        raise BadInputError(
            f"--out {folder}: {error.strerror or error}", hint="name a folder you can write to"
        ) from error
    return plan


def read_plan(folder: Path) -> Plan:
    """Read a sweep's plan; all its text is checked before it reaches a path or a terminal.

    Raises:
        BadInputError: the folder is not a sweep's.
    """
    path = folder / _PLAN
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(written, dict) or written.pop("schema_version", None) != _SCHEMA_VERSION:
            raise ValueError(f"schema_version {_SCHEMA_VERSION} was expected")
        plan = from_json(Plan, written)
        names = [point.name for point in plan.points]
        if not names or len(names) > MAX_POINTS or len(set(names)) < len(names) or len(plan.keys) != len(names):
            raise ValueError("points that are none, too many or named alike")
        if not all(map(_NAME.fullmatch, names)) or not all(map(_HEX.fullmatch, plan.keys)):
            raise ValueError("a point's name or key is malformed")
        said = [plan.model, plan.target, plan.synthetic, *(point.profile for point in plan.points)]
        said += [point.pattern or "" for point in plan.points]
        if not all(text.isprintable() for text in said):
            raise ValueError("a name is not printable")
    except (OSError, ValueError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise BadInputError(
            f"{path}: cannot be used: {reason}", hint="give a folder that `edgerecover sweep --out` wrote"
        ) from error
    return plan


def _with_images_of(profile: Profile, first: Profile) -> Profile:
    """The profile with the images of the first one, and a name that says so."""
    shared: dict[str, object] = {"synthesis": first.synthesis}
    if profile.without_norms is not None:
        images = first.without_norms.synthesis if first.without_norms else first.synthesis
        shared["without_norms"] = profile.without_norms.model_copy(update={"synthesis": images})
    made = profile.model_copy(update=shared)
    return profile if made == profile else made.model_copy(update={"name": f"{profile.name}-on-{first.name}"})


def _key(request: Request) -> str:
    """Digest of every file and setting that determines the bundle, without opening the model."""
    from edgerecover.models.name.spec import resolve

    assert request.eval_data is None or isinstance(request.eval_data, Path), "sweeps are planned from paths"
    said = resolve(request.model_path, request.flags, teacher=request.teacher)
    code = (said.architecture or "").rpartition(":")[0]
    files = {
        "model": request.model_path,
        "said": said.toml_path,
        "teacher": said.teacher_path,
        "code": said.base_dir / code if code.endswith(".py") else None,
        "images": request.eval_data,
        "record": request.record,
    }
    files |= {f"card {index}": path for index, path in enumerate(said.card.files if said.card else ())}
    return _digest(
        __version__,
        {name: _content(path) for name, path in files.items() if path is not None},
        [
            said.architecture,
            request.teacher_arch,
            to_json(request.flags.input),
            to_json(said.task),
            to_json(said.outputs),
            to_json(request.pruning),
        ],
        [request.seed, request.device, request.batch, to_json(request.precisions)],
        request.target.model_dump(mode="json"),
        request.profile.model_dump(mode="json"),
    )[:16]


def _content(path: Path) -> object:
    """Digest of a file, or of each file in a folder; None if it is missing, which the run will report."""
    if path.is_dir():
        return {
            file.relative_to(path).as_posix(): sha256_of(file) for file in sorted(path.rglob("*")) if file.is_file()
        }
    return sha256_of(path) if path.is_file() else None


def _digest(*described: object) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

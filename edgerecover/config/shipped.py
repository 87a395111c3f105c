"""Finding targets and profiles: shipped with edgerecover, or the user's own; `extends` is followed."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from edgerecover.config.profile import Profile, WithoutNorms
from edgerecover.config.target import Target
from edgerecover.config.toml import line_of, parse, read_toml
from edgerecover.errors import BadInputError

_NEAR = 0.75
"""Likeness of a name that is suggested: "balancd" is that near to "balanced"; "quick" is far from "quality"."""


def shipped_folder(kind: Literal["targets", "profiles", "docs"]) -> Path:
    """Folder of the shipped files: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def shipped_names(kind: Literal["targets", "profiles"]) -> list[str]:
    """Names of all shipped targets or profiles, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.toml"))


def load_target(name_or_path: str) -> Target:
    """Read a shipped target by name, or any target by path (it ends in .toml); `extends = "NAME"` is followed.

    Raises:
        BadInputError: no such target (names the nearest), a wrong file, or targets that extend each other.
    """
    path = _find("targets", name_or_path)
    # A fact is replaced whole: a source for one device says nothing about another.
    return parse(Target, _read_extended("targets", path, (), join=operator.or_), path)


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped profile by name, or any profile by path (it ends in .toml); `extends = "NAME"` is followed.

    Raises:
        BadInputError: no such profile (names the nearest), a wrong file, or profiles that extend each other.
    """
    path = _find("profiles", name_or_path)
    return parse(Profile, _complete(_read_extended("profiles", path, (), join=_merge)), path)


def _complete(data: dict[str, Any]) -> dict[str, Any]:
    """The tables of `[without_norms]` with what they leave to `[synthesis]` and `[recovery]`."""
    changes = data.get("without_norms")
    tables = {name: data.get(name) for name in WithoutNorms.model_fields}
    if not isinstance(changes, dict):
        return data  # absent, or wrong, which parsing reports
    return {**data, "without_norms": _merge(tables, changes)}


def _read_extended(
    kind: Literal["targets", "profiles"],
    path: Path,
    seen: tuple[Path, ...],
    *,
    join: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    if path in seen:
        raise BadInputError(
            f"{path}: {kind} extend each other in a cycle: {' → '.join(p.stem for p in seen)}",
            hint="remove one of the `extends` lines",
        )
    data = read_toml(path)
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        word = kind.removesuffix("s")
        raise BadInputError(
            f"{path}:{line_of(path, ['extends'])}: extends: expected the name of a {word}",
            hint='for example extends = "balanced"',
        )
    return join(_read_extended(kind, _find(kind, parent, beside=path.parent), (*seen, path), join=join), data)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if both_tables else value
    return result


def _find(kind: Literal["targets", "profiles"], name_or_path: str, beside: Path | None = None) -> Path:
    word = kind.removesuffix("s")
    if name_or_path.endswith(".toml"):
        path = (beside or Path()) / name_or_path
        if not path.is_file():
            raise BadInputError(f"{word} file {path} does not exist", hint="check the path")
        return path
    names = shipped_names(kind)
    if name_or_path in names:
        return shipped_folder(kind) / f"{name_or_path}.toml"
    near = difflib.get_close_matches(name_or_path, names, 1, cutoff=_NEAR)
    begin_so = [name for name in names if name.startswith(f"{name_or_path}-")]
    raise BadInputError(
        f"unknown {word} {name_or_path!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint=(
            f"`edgerecover {kind} list` shows all; a path ending in .toml names your own file"
            if near
            else f"one of {', '.join(begin_so or names)}; or the path of your own .toml file"
        ),
    )

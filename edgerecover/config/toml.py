"""Reading a TOML file and checking it against a schema; a wrong file is reported with file, line and key."""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgerecover.config.schema import Settings
from edgerecover.errors import UNREADABLE_HINT, BadInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

M = TypeVar("M", bound="Settings")


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        BadInputError: it cannot be read or is not TOML; the message gives the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: is not UTF-8 text, as TOML must be", hint="save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(
            f"{path}: is not valid TOML: {error}", hint="correct that line; https://toml.io describes the format"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"{path}: is nested too deeply, or contains a number that is too long",
            hint="simplify it; no file of edgerecover needs that",
        ) from error


def parse(kind: type[M], data: dict[str, Any], path: Path) -> M:
    """Check `data`, read from `path`, against a schema.

    Raises:
        BadInputError: names file, line, key, what was found, and for an unknown key the nearest known one.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_describe(kind, problem, path) for problem in error.errors()]
        raise BadInputError(
            "\n".join(lines),
            hint=f"the keys of this file are described in docs/reference/{_reference(kind)}.md",
        ) from error


def _reference(kind: type[Settings]) -> str:
    pages = {"Target": "targets", "Profile": "profiles", "ModelFile": "model-toml", "LimitsFile": "gate"}
    return pages[kind.__name__]


def _describe(kind: type[Settings], problem: Any, path: Path) -> str:
    keys = [key for key in problem["loc"] if isinstance(key, str)]
    line = line_of(path, keys)
    where = f"{path}:{line}" if line else str(path)
    dotted = ".".join(str(key) for key in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, 1)
        advice = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
        return f"{where}: unknown key {dotted!r}{advice}"
    if problem["type"] == "missing":
        return f"{where}: key {dotted!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {dotted or 'file'}: {message} (found {problem['input']!r})"[:400]


def _known_keys(kind: Any, keys: list[str]) -> list[str]:
    for key in keys:
        field = kind.model_fields.get(key)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        kind = next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), None)
        if kind is None:
            return []
    return sorted(kind.model_fields)


def line_of(path: Path, keys: list[str]) -> int | None:
    """Line of a dotted key in a TOML file: tables are followed, inline tables count as their own line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    table: list[str] = []
    best, best_depth = None, 0
    for number, line in enumerate(lines, start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            found = table
        elif entry := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            found = table + [part.strip("\"'") for part in entry[1].split(".")]
        else:
            continue
        if keys[: len(found)] == found and len(found) > best_depth:
            best, best_depth = number, len(found)
    return best

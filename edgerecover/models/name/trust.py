"""Which folders' Python code this user has trusted, recorded as hashes of the files. Stdlib and platformdirs.

Code beside a downloaded checkpoint runs only while every file is as it was when the folder was trusted.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgerecover.artifacts import sha256_of
from edgerecover.errors import UNREADABLE_HINT, BadInputError
from edgerecover.files import replace_file

TRUST_FILE_VARIABLE = "EDGERECOVER_TRUST_FILE"
"""Environment variable with another path for the file of records."""

MAX_CODE_FILES = 5_000
MAX_ENTRIES = 100_000

_SCHEMA_VERSION = 1
_NUM_SHOWN = 5


@dataclass(frozen=True)
class TrustRecord:
    """A trusted folder: the SHA-256 of each model.toml and importable file in it, by relative POSIX path."""

    folder: Path
    files: dict[str, str]


def trust(folder: Path) -> TrustRecord:
    """Record, for this user, that the code in `folder` may run as it is now; replaces an earlier record.

    Raises:
        BadInputError: the folder does not exist, is too large or holds no code, or the record cannot be written.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise BadInputError(f"{folder}: is not a folder", hint="name the folder that holds model.toml")
    record = TrustRecord(folder, _hashes(folder))
    if not record.files:
        raise BadInputError(
            f"{folder}: holds neither model.toml nor Python files, so there is nothing to trust",
            hint="name the folder that holds model.toml",
        )
    records = _read_records()
    records[str(folder)] = record.files
    _write_records(records)
    return record


def require_trust(folder: Path, needed: Path) -> None:
    """Check that `folder` was trusted and that its code has not changed since.

    Args:
        folder: holds the model.toml that names Python code.
        needed: the file that is about to be read or run; it must be among those recorded.

    Raises:
        BadInputError: the folder was never trusted, or has changed; the message names the changed, new and deleted
            files.
    """
    folder = folder.resolve()
    hint = f"read the code, then run `edgerecover trust {folder}`; or allow it this once with --trust-code"
    recorded = _read_records().get(str(folder))
    if recorded is None:
        raise BadInputError(
            f"{needed}: would run Python code from {folder}, a folder that you have not trusted", hint=hint
        )
    recorded = {name: sha256 for name, sha256 in recorded.items() if _is_code(name)}
    if differences := _differences(recorded, _hashes(folder)):
        raise BadInputError(
            f"{needed}: the code in {folder} is not what you trusted:\n  " + "\n  ".join(differences), hint=hint
        )
    if needed.resolve() not in {(folder / name).resolve() for name in recorded}:
        raise BadInputError(
            f"{needed}: lies outside the trusted files of {folder}", hint="put the code beside model.toml"
        )


def trust_file() -> Path:
    """Path of this user's records."""
    if override := os.environ.get(TRUST_FILE_VARIABLE):
        return Path(override)
    from platformdirs import user_data_path

    return user_data_path("edgerecover", appauthor=False) / "trusted.json"


def _differences(recorded: dict[str, str], found: dict[str, str]) -> list[str]:
    changed = [f"changed: {name}" for name in sorted(recorded.keys() & found) if recorded[name] != found[name]]
    new = [f"new: {name}" for name in sorted(found.keys() - recorded)]
    deleted = [f"deleted: {name}" for name in sorted(recorded.keys() - found)]
    lines = changed + new + deleted
    return lines[:_NUM_SHOWN] + ([f"and {len(lines) - _NUM_SHOWN} more"] if len(lines) > _NUM_SHOWN else [])


def _hashes(folder: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for path in _code_files(folder):
        if len(hashes) == MAX_CODE_FILES:
            raise _too_large(folder, f"{MAX_CODE_FILES:,} code files")
        try:
            hashes[path.relative_to(folder).as_posix()] = sha256_of(path)
        except OSError as error:
            raise BadInputError(
                f"{path}: cannot be read: {error.strerror or error}",
                hint=UNREADABLE_HINT,
            ) from error
    return hashes


def _code_files(folder: Path) -> Iterator[Path]:
    """Every model.toml and every file that Python can import; links are followed, as imports do."""
    visited: set[Path] = set()
    num_entries = 0
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        subfolders[:] = sorted(name for name in subfolders if _may_hold_code(here / name))
        if here.resolve() in visited:
            subfolders.clear()
            continue
        visited.add(here.resolve())
        num_entries += len(names) + len(subfolders)
        if num_entries > MAX_ENTRIES:
            raise _too_large(folder, f"{MAX_ENTRIES:,} files")
        yield from (here / name for name in sorted(names) if _is_code(name) and (here / name).is_file())


def _is_code(name: str) -> bool:
    """Whether a change of the file matters: a profile or a note beside the model runs nothing."""
    return name.rpartition("/")[2] == "model.toml" or name.endswith(tuple(importlib.machinery.all_suffixes()))


def _may_hold_code(folder: Path) -> bool:
    """Whether a folder is searched: not hidden, no virtual environment, no bytecode cache (see `architectures`)."""
    is_hidden = folder.name.startswith(".") or folder.name == "__pycache__"
    return not is_hidden and not (folder / "pyvenv.cfg").exists()


def _too_large(folder: Path, limit: str) -> BadInputError:
    return BadInputError(
        f"{folder}: holds more than {limit}, too much to trust as a whole",
        hint="move the checkpoint, model.toml and their code into a folder of their own",
    )


# --- the records ----------------------------------------------------------------------------------------


def _read_records() -> dict[str, dict[str, str]]:
    path = trust_file()
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, str(error)) from error
    try:
        return _check(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from error


def _check(data: Any) -> dict[str, dict[str, str]]:
    if not isinstance(data, dict) or data.get("schema_version") != _SCHEMA_VERSION:
        raise ValueError(f"schema_version {_SCHEMA_VERSION} was expected")
    folders = data.get("folders")
    if not isinstance(folders, dict) or not all(isinstance(files, dict) for files in folders.values()):
        raise ValueError("'folders' must hold one object per folder")
    return folders


def _broken(path: Path, reason: str) -> BadInputError:
    return BadInputError(
        f"{path}: the record of trusted folders cannot be used: {reason}",
        hint="delete that file, then trust your folders again with `edgerecover trust FOLDER`",
    )


def _write_records(records: dict[str, dict[str, str]]) -> None:
    path = trust_file()
    text = json.dumps({"schema_version": _SCHEMA_VERSION, "folders": records}, indent=1, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise BadInputError(
            f"{path}: the record of trusted folders cannot be written: {error.strerror or error}",
            hint=f"set {TRUST_FILE_VARIABLE} to a file that you may write",
        ) from error

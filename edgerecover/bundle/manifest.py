"""A bundle's table of contents: every file with its digest and size. Stdlib only: devices verify too.

`manifest.json` itself is covered by no hash: whoever can change a file can change the manifest with it.
It protects from damage and from mix-ups, not from an attacker; that takes a signature.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgerecover.errors import VerificationError

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 4 << 20
_RESERVED = ("schema_version", "files")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """Law: `Manifest.parse(m.dump()) == m`."""

    files: dict[str, FileEntry]
    """By path inside the bundle: relative, with forward slashes."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Whatever else the writer stated: model, target, tool version."""

    def dump(self) -> bytes:
        """The JSON text; the same manifest gives the same bytes.

        Raises:
            ValueError: a path no bundle may hold, or a field named like one of the manifest's own.
        """
        check_paths(self.files)
        if taken := sorted(set(_RESERVED) & set(self.fields)):
            raise ValueError(f"the manifest itself has the field {taken[0]!r}")
        files = {
            path: {"sha256": entry.sha256, "size_bytes": entry.size_bytes} for path, entry in sorted(self.files.items())
        }
        document = {"schema_version": SCHEMA_VERSION, "files": files, **self.fields}
        return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Read what `dump` wrote, trusting nothing in it.

        Raises:
            VerificationError: not such a manifest, another schema version, or a path no bundle may hold.
        """
        document = _object(_read_json(content), "it")
        version = document.pop("schema_version", None)
        if type(version) is not int or version != SCHEMA_VERSION:
            raise VerificationError(
                f"{MANIFEST_NAME}: schema version {SCHEMA_VERSION} was expected, found {version!r}",
                hint="a newer edgerecover may read it",
            )
        listed = _object(document.pop("files", None), "files")
        files = {path: _entry(path, entry) for path, entry in listed.items()}
        try:
            check_paths(files)
        except ValueError as error:
            raise VerificationError(f"{MANIFEST_NAME}: {error}") from error
        return cls(files, document)


def check_paths(paths: Mapping[str, object]) -> None:
    """Check that each names one file inside the bundle on every system.

    Raises:
        ValueError: an absolute path, a step up, a backslash, a drive, a control character, the manifest's own
            name, two paths that differ in case alone, or a file that is also a folder.
    """
    seen: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        odd = any(character in "\\:" or ord(character) < 32 or ord(character) == 127 for character in path)
        if odd or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{path!r} is not a plain relative path with forward slashes")
        folded = path.casefold()
        if folded == MANIFEST_NAME:
            raise ValueError(f"{path!r} is the manifest's own name")
        if folded in seen:
            raise ValueError(f"{seen[folded]!r} and {path!r} are one file where case does not count")
        seen[folded] = path
    for folded, path in seen.items():
        folders = ("/".join(folded.split("/")[:depth]) for depth in range(1, folded.count("/") + 1))
        if clash := next((folder for folder in folders if folder in seen), None):
            raise ValueError(f"{seen[clash]!r} is both a file and the folder of {path!r}")


# --- hostile JSON -------------------------------------------------------------------------------------------


def _read_json(content: bytes) -> Any:
    try:
        return json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{MANIFEST_NAME} is not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers may pick different ones of two equal keys: so there must not be two."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise VerificationError(f"{MANIFEST_NAME}: {what} should be an object, found {type(value).__name__}")
    return value


def _entry(path: str, value: Any) -> FileEntry:
    entry = _object(value, repr(path))
    sha256, size_bytes = entry.get("sha256"), entry.get("size_bytes")
    sound = (
        set(entry) == {"sha256", "size_bytes"}
        and isinstance(sha256, str)
        and _SHA256.fullmatch(sha256)
        and type(size_bytes) is int
        and size_bytes >= 0
    )
    if not sound:
        raise VerificationError(
            f"{MANIFEST_NAME}: {path!r} should have a sha256 and a size_bytes, found {entry!r:.200}"
        )
    return FileEntry(str(sha256), int(size_bytes or 0))

"""A bundle's tables of contents: every file with its digest and size. Stdlib only: devices verify too.

`manifest.json` holds what the same run makes again, byte for byte; `measurements.json` what was measured or timed, and
the digest of the manifest that it belongs to. Both have one canonical form and hold the digest of their own text,
so that any changed byte shows. That finds damage and mix-ups; against someone who rewrites them it takes a signature.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgerecover.artifacts.strict_json import parse_json
from edgerecover.errors import DAMAGED_HINT, VerificationError

MANIFEST_NAME = "manifest.json"
MEASUREMENTS_NAME = "measurements.json"
SIGNATURE_NAME = "signature.json"
SIGNATURE_DIGEST_NAME = "signature.sha256"
OWN_NAMES = (SIGNATURE_NAME, SIGNATURE_DIGEST_NAME, MANIFEST_NAME, MEASUREMENTS_NAME)
"""What no table lists, in the order in which it is read."""
SCHEMA_VERSION = 2
MEASUREMENTS_VERSION = 1
MAX_OWN_BYTES = 4 << 20
"""Of each of `OWN_NAMES`."""
MAX_FILES = 10_000
MAX_PATH_BYTES = 255
"""What a tar header holds, and most file systems."""
RESERVED_NAMES = (
    *OWN_NAMES,
    *("bom.cdx.json", "config.json", "dreams.png", "engines", "golden", "limits.json", "model-card.md", "recipe.json"),
    *("report.html", "report.json", "report.md", "runner.json", "runner.pyz", "variants"),
)
"""What every bundle holds beside its model."""

_SEAL = "self_sha256"
_RESERVED = ("schema_version", "files", "manifest_sha256", _SEAL)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.DOTALL)
"""Names that Windows keeps for itself, with any ending."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """Law: `Manifest.parse(m.dump()) == m` for the version that is written."""

    files: dict[str, FileEntry]
    """By path inside the bundle: relative, with forward slashes."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Whatever else the writer stated: model, target, lineage, tool versions."""
    schema_version: int = SCHEMA_VERSION

    def dump(self) -> bytes:
        """The JSON text; the same manifest gives the same bytes.

        Raises:
            ValueError: a path no bundle may hold, a field named like one of the manifest's own, or an older version.
        """
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"manifests of schema version {self.schema_version} are read, not written")
        return _seal({"schema_version": SCHEMA_VERSION, "files": _list_files(self.files), **_free(self.fields)})

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Read what `dump` wrote, of this version or an earlier one, trusting nothing in it.

        Raises:
            VerificationError: not such a manifest, another schema version, or a path no bundle may hold.
        """
        document = _object(_read_json(content, MANIFEST_NAME), MANIFEST_NAME, "it")
        version = document.pop("schema_version", None)
        if type(version) is not int or version not in (1, SCHEMA_VERSION):
            raise VerificationError(
                f"{MANIFEST_NAME}: a schema version up to {SCHEMA_VERSION} was expected, found {version!r}",
                hint="a newer edgerecover may read it",
            )
        if version == 1:
            if _SEAL in document:
                raise VerificationError(
                    f"{MANIFEST_NAME}: it says schema version 1, which has no {_SEAL}",
                    hint=DAMAGED_HINT,
                )
            return cls(_files(document, MANIFEST_NAME, own=(MANIFEST_NAME,)), document, version)
        _require_seal(document, version, content, MANIFEST_NAME)
        return cls(_files(document, MANIFEST_NAME, own=OWN_NAMES), document)


@dataclass(frozen=True)
class Measurements:
    """What of a bundle was measured or timed. Law: `Measurements.parse(m.dump()) == m`."""

    manifest_sha256: str
    """Digest of the manifest.json that it belongs to."""
    files: dict[str, FileEntry]
    """By path inside the bundle; none that the manifest lists."""
    fields: dict[str, Any] = field(default_factory=dict)
    """When, and with what verdict."""

    def dump(self) -> bytes:
        """The JSON text; the same measurements give the same bytes.

        Raises:
            ValueError: a path no bundle may hold, or a field named like one of its own.
        """
        document = {"schema_version": MEASUREMENTS_VERSION, "manifest_sha256": self.manifest_sha256}
        return _seal({**document, "files": _list_files(self.files), **_free(self.fields)})

    @classmethod
    def parse(cls, content: bytes) -> Measurements:
        """Read what `dump` wrote, trusting nothing in it.

        Raises:
            VerificationError: not such a file, another schema version, or a path no bundle may hold.
        """
        document = _object(_read_json(content, MEASUREMENTS_NAME), MEASUREMENTS_NAME, "it")
        version = document.pop("schema_version", None)
        if type(version) is not int or version != MEASUREMENTS_VERSION:
            raise VerificationError(
                f"{MEASUREMENTS_NAME}: schema version {MEASUREMENTS_VERSION} was expected, found {version!r}",
                hint="a newer edgerecover may read it",
            )
        _require_seal(document, version, content, MEASUREMENTS_NAME)
        manifest_sha256 = document.pop("manifest_sha256", None)
        if not isinstance(manifest_sha256, str) or not _SHA256.fullmatch(manifest_sha256):
            raise VerificationError(
                f"{MEASUREMENTS_NAME}: its manifest_sha256 is no digest: {manifest_sha256!r:.100}",
                hint=DAMAGED_HINT,
            )
        return cls(manifest_sha256, _files(document, MEASUREMENTS_NAME, own=OWN_NAMES), document)


# --- paths --------------------------------------------------------------------------------------------------


def check_paths(paths: Mapping[str, object], own: Iterable[str] = OWN_NAMES) -> None:
    """Check that each names one file inside the bundle on every system.

    Args:
        paths: the keys are looked at.
        own: names that the bundle keeps for itself.

    Raises:
        ValueError: an absolute path, a step up, a backslash, a drive, a control character, a name that Windows keeps or
            cuts, a path that is too long, a name of the bundle's own, two paths that differ only in case or in how
            their letters are composed, a file that is also a folder, or too many of them.
    """
    if len(paths) > MAX_FILES:
        raise ValueError(f"{len(paths):,} files exceed the {MAX_FILES:,} of a bundle")
    seen: dict[str, str] = {}
    for path in paths:
        check_path(path)
        folded = _fold(path)
        if folded in own:
            raise ValueError(f"{path!r} is a name that the bundle keeps for its own")
        if folded in seen:
            raise ValueError(f"{seen[folded]!r} and {path!r} are one file where case or composition does not count")
        seen[folded] = path
    for folded, path in seen.items():
        folders = ("/".join(folded.split("/")[:depth]) for depth in range(1, folded.count("/") + 1))
        if clash := next((folder for folder in folders if folder in seen), None):
            raise ValueError(f"{seen[clash]!r} is both a file and the folder of {path!r}")


def check_path(path: str) -> None:
    """Check one path by itself.

    Raises:
        ValueError: as `check_paths`.
    """
    odd = any(character in "\\:" or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl") for character in path)
    if odd or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is not a plain relative path with forward slashes")
    if any(_DEVICES.fullmatch(part.casefold()) or part[-1] in ". " for part in path.split("/")):
        raise ValueError(f"{path!r} is a name that Windows keeps for devices, or cuts at its end")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"{path[:40]!r}… is longer than the {MAX_PATH_BYTES} bytes of a path")


def _fold(path: str) -> str:
    """One text for all spellings that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


# --- one way to write it -------------------------------------------------------------------------------------


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one JSON text of a document: UTF-8, keys sorted by code point, two spaces, one line feed at its end."""
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _seal(document: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(canonical(document)).hexdigest()
    return canonical({**document, _SEAL: digest})


def _require_seal(document: dict[str, Any], version: int, content: bytes, name: str) -> None:
    """Take the seal off `document` and check that `content` is its one sealed text."""
    document.pop(_SEAL, None)
    try:
        is_whole = _seal({**document, "schema_version": version}) == content
    except (ValueError, RecursionError):  # an escape that no text holds, or a nesting that cannot be written
        is_whole = False
    if not is_whole:
        raise VerificationError(
            f"{name}: its {_SEAL} is not the digest of its text: it was changed or damaged",
            hint="copy the bundle again, or make it again with `edgerecover run`",
        )


def _list_files(files: Mapping[str, FileEntry]) -> dict[str, Any]:
    check_paths(files)
    return {path: {"sha256": entry.sha256, "size_bytes": entry.size_bytes} for path, entry in files.items()}


def _free(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if taken := sorted(set(_RESERVED) & set(fields)):
        raise ValueError(f"the file itself has the field {taken[0]!r}")
    return fields


# --- hostile JSON -------------------------------------------------------------------------------------------


def _read_json(content: bytes, name: str) -> Any:
    try:
        return parse_json(content)
    except (ValueError, RecursionError) as error:
        raise VerificationError(
            f"{name} is not valid JSON: {error}",
            hint=DAMAGED_HINT,
        ) from error


def _object(value: Any, name: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise VerificationError(
            f"{name}: {what} should be an object, found {type(value).__name__}",
            hint=DAMAGED_HINT,
        )
    return value


def _files(document: dict[str, Any], name: str, own: Iterable[str]) -> dict[str, FileEntry]:
    """Take the list of files out of `document`."""
    listed = _object(document.pop("files", None), name, "files")
    try:
        check_paths(listed, own)
    except ValueError as error:
        raise VerificationError(
            f"{name}: {error}",
            hint=DAMAGED_HINT,
        ) from error
    return {path: _entry(path, entry, name) for path, entry in listed.items()}


def _entry(path: str, value: Any, name: str) -> FileEntry:
    entry = _object(value, name, repr(path))
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
            f"{name}: {path!r} should have a sha256 and a size_bytes, found {entry!r:.200}",
            hint=DAMAGED_HINT,
        )
    return FileEntry(str(sha256), int(size_bytes or 0))

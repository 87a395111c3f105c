"""Is a bundle exactly what was packed? Signature, then manifest, then every file. Stdlib only: devices verify too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Report, from_json
from edgerecover.artifacts.strict_json import parse_object
from edgerecover.bundle.manifest import (
    MANIFEST_NAME,
    MAX_OWN_BYTES,
    MEASUREMENTS_NAME,
    OWN_NAMES,
    SIGNATURE_DIGEST_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    Measurements,
)
from edgerecover.bundle.source import Snapshot, open_source, snapshot
from edgerecover.errors import DAMAGED_HINT, BadInputError, VerificationError

if TYPE_CHECKING:
    from edgerecover.bundle.signature import Trusted

MAX_NAMED = 20
"""Differences spelled out in one message."""
REPORT = "report.json"
MAX_READ_BYTES = 1 << 30


class Signed(str, Enum):
    """What is known of a bundle's signature."""

    ABSENT = "absent"
    NOT_CHECKED = "not checked"
    """There is one, and nobody said whom to trust."""
    VERIFIED = "verified"


@dataclass(frozen=True)
class Difference:
    """One file that is not what was packed."""

    kind: str
    """"missing", "extra" or "changed"."""
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {_printable(self.path)}" + (f" ({self.detail})" if self.detail else "")


class BundleDiffersError(VerificationError):
    """A bundle is not what its signature or its manifest lists."""

    def __init__(self, what: str, differences: tuple[Difference, ...]) -> None:
        named = [str(difference) for difference in differences[:MAX_NAMED]]
        if not differences:
            named.append("its list of files is of another kind than edgerecover's")
        if len(differences) > MAX_NAMED:
            named.append(f"and {len(differences) - MAX_NAMED} more")
        super().__init__(
            f"{what}:\n  " + "\n  ".join(named),
            hint="copy the bundle again, or make it again with `edgerecover run`",
        )
        self.differences = differences


@dataclass(frozen=True)
class Verified:
    """A bundle as it was when it was verified."""

    path: Path
    """Folder or archive."""
    manifest: Manifest
    measurements: Measurements | None
    """None for bundles of schema version 1, whose manifest lists everything."""
    own: dict[str, FileEntry]
    """Manifest, measurements and signature themselves."""
    signed: Signed
    signer: str = ""
    """For people; "" unless the signature was verified."""

    @property
    def files(self) -> dict[str, FileEntry]:
        """All that manifest and measurements list."""
        return {**self.manifest.files, **(self.measurements.files if self.measurements else {})}

    @property
    def fields(self) -> dict[str, Any]:
        """What manifest and measurements state."""
        return {**self.manifest.fields, **(self.measurements.fields if self.measurements else {})}

    @property
    def paths(self) -> list[str]:
        """Everything there is to copy."""
        return sorted([*self.files, *self.own])

    @property
    def manifest_sha256(self) -> str:
        """Digest of manifest.json: what the bundle is called by."""
        return self.own[MANIFEST_NAME].sha256

    def read(self, path: str) -> bytes:
        """Content of a listed file, which is checked once more: what is used is what was verified.

        Raises:
            BadInputError: the bundle lists no such file, or it is too large to be read at once.
            VerificationError: it has changed since.
        """
        if path not in self.files:
            raise BadInputError(f"{self.path}: it holds no {path}", hint="was it packed by another version?")
        entry = self.files[path]
        if entry.size_bytes > MAX_READ_BYTES:
            raise BadInputError(
                f"{self.path}: {path} is larger than {MAX_READ_BYTES >> 20} MiB",
                hint="it is not one of the files that edgerecover reads; open it with the tool that wrote it",
            )
        with open_source(self.path) as source:
            content = b"".join(source.pieces(path))
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleDiffersError(
                f"{self.path} has changed since it was verified", (Difference("changed", path, "sha256 differs"),)
            )
        return content


def verify_bundle(bundle: Path, trusted: Trusted | None = None) -> Verified:
    """Check a bundle: its signature where somebody is trusted, its manifest, every file, and that there is no other.

    Without a signature this finds damage and mix-ups, not someone who rewrote files and manifest.

    Args:
        bundle: folder or archive.
        trusted: who must have signed it; None: a signature is not needed, and not checked.

    Raises:
        BadInputError: no such bundle, or the key cannot be read.
        MissingError: signatures cannot be checked on this machine.
        VerificationError: not signed by whom is trusted, a malformed manifest, or files that are missing, extra,
            changed or not regular; names them.
    """
    with open_source(bundle) as source:
        found = snapshot(source)
    signed, signer = _signature(bundle, found, trusted)
    return _compare(bundle, found, signed, signer)


def read_report(verified: Verified) -> Report:
    """The report in a verified bundle, of this version or an earlier one.

    Raises:
        BadInputError: there is none, or it cannot be read.
        VerificationError: it has changed since the bundle was verified.
    """
    try:
        return from_json(Report, parse_object(verified.read(REPORT)))
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"{verified.path}/{REPORT} cannot be read: {error}", hint="was it written by another version?"
        ) from error


def read_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a folder alone, without checking the files it lists.

    Raises:
        BadInputError: no such folder, or no manifest in it.
        VerificationError: the manifest is malformed.
    """
    with open_source(bundle) as source:
        content = b""
        for piece in source.pieces(MANIFEST_NAME):
            content += piece
            if len(content) > MAX_OWN_BYTES:
                raise VerificationError(
                    f"{bundle}: its manifest is larger than the {MAX_OWN_BYTES >> 20} MiB of one",
                    hint=DAMAGED_HINT,
                )
    return Manifest.parse(content)


def signature_words(signed: Signed, signer: str) -> str:
    """For people: who signed, as far as is known."""
    if signed is Signed.VERIFIED:
        return f"signed by {signer}"
    return "not signed" if signed is Signed.ABSENT else "signed, and the signature was not checked"


# --- signature ----------------------------------------------------------------------------------------------


def _signature(bundle: Path, found: Snapshot, trusted: Trusted | None) -> tuple[Signed, str]:
    signature, digest = found.own.get(SIGNATURE_NAME), found.own.get(SIGNATURE_DIGEST_NAME)
    if signature is None and digest is None:
        if trusted is not None:
            raise VerificationError(
                f"{bundle} is not signed", hint="sign it with `edgerecover bundle sign`, or ask its maker to"
            )
        return Signed.ABSENT, ""
    if signature is None or digest is None or digest != signature_digest(signature):
        raise VerificationError(
            f"{bundle}: {SIGNATURE_DIGEST_NAME} is not the digest of {SIGNATURE_NAME}: one of them was changed, or is "
            "missing",
            hint="copy the bundle again, or sign it again with `edgerecover bundle sign`",
        )
    if trusted is None:
        return Signed.NOT_CHECKED, ""
    from edgerecover.bundle.signature import check_signature

    checked = check_signature(signature, signed_digests(found.entries), trusted)
    if not checked.covers:
        listed = {path: FileEntry(sha256, -1) for path, sha256 in checked.digests.items()}
        differences = _differences(listed, signed_entries(found.entries), {}) if listed else ()
        raise BundleDiffersError(f"{bundle} is not what {checked.signer} signed", differences)
    return Signed.VERIFIED, checked.signer


def signature_digest(signature: bytes) -> bytes:
    """Content of signature.sha256, as sha256sum writes it: changed bytes show where no key is available."""
    return f"{hashlib.sha256(signature).hexdigest()}  {SIGNATURE_NAME}\n".encode()


def signed_entries(entries: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """What a signature covers: everything but itself."""
    return {path: entry for path, entry in entries.items() if path not in (SIGNATURE_NAME, SIGNATURE_DIGEST_NAME)}


def signed_digests(entries: Mapping[str, FileEntry]) -> dict[str, str]:
    """Digest of each file that a signature covers."""
    return {path: entry.sha256 for path, entry in signed_entries(entries).items()}


# --- manifest and files --------------------------------------------------------------------------------------


def _compare(bundle: Path, found: Snapshot, signed: Signed, signer: str) -> Verified:
    if MANIFEST_NAME not in found.own:
        raise VerificationError(
            f"{bundle}: there is no {MANIFEST_NAME} in it",
            hint="name the folder or archive that `edgerecover run` wrote",
        )
    manifest = Manifest.parse(found.own[MANIFEST_NAME])
    measurements = None
    needed = {MANIFEST_NAME}
    if manifest.schema_version > 1:
        needed.add(MEASUREMENTS_NAME)
        measurements = _measurements(bundle, found)
    if both := sorted(manifest.files.keys() & (measurements.files.keys() if measurements else set())):
        raise VerificationError(
            f"{bundle}: manifest and measurements both list {both[0]!r}",
            hint=DAMAGED_HINT,
        )
    optional = {SIGNATURE_NAME, SIGNATURE_DIGEST_NAME} if manifest.schema_version > 1 else set()
    own = {path: found.entries[path] for path in OWN_NAMES if path in found.entries and path in needed | optional}
    verified = Verified(bundle, manifest, measurements, own, signed, signer)
    present = {path: entry for path, entry in found.entries.items() if path not in own}
    if differences := _differences(verified.files, present, found.odd):
        raise BundleDiffersError(f"{bundle} is not what its manifest lists", differences)
    return verified


def _measurements(bundle: Path, found: Snapshot) -> Measurements:
    if MEASUREMENTS_NAME not in found.own:
        odd = found.odd.get(MEASUREMENTS_NAME, "")
        raise BundleDiffersError(
            f"{bundle} is not what its manifest lists",
            (Difference("changed" if odd else "missing", MEASUREMENTS_NAME, odd),),
        )
    measurements = Measurements.parse(found.own[MEASUREMENTS_NAME])
    if measurements.manifest_sha256 != found.entries[MANIFEST_NAME].sha256:
        raise VerificationError(
            f"{bundle}: {MEASUREMENTS_NAME} belongs to another manifest.json, of sha256 "
            f"{measurements.manifest_sha256[:16]}…",
            hint="copy the whole bundle again; parts of two were mixed",
        )
    return measurements


def _differences(
    listed: Mapping[str, FileEntry], found: Mapping[str, FileEntry], odd: Mapping[str, str]
) -> tuple[Difference, ...]:
    """What is not as it should be, by path. A size of -1 is not known."""
    differences = [Difference("missing", path) for path in listed.keys() - found.keys() - odd.keys()]
    differences += [Difference("changed" if path in listed else "extra", path, what) for path, what in odd.items()]
    differences += [Difference("extra", path) for path in found.keys() - listed.keys()]
    for path in listed.keys() & found.keys():
        wanted, is_ = listed[path], found[path]
        if wanted.size_bytes not in (-1, is_.size_bytes):
            differences.append(Difference("changed", path, f"size {is_.size_bytes} instead of {wanted.size_bytes}"))
        elif wanted.sha256 != is_.sha256:
            differences.append(Difference("changed", path, "sha256 differs"))
    return tuple(sorted(differences, key=lambda one: (one.path, one.kind)))


def _printable(path: str) -> str:
    """A stray file's name is anyone's text: shown escaped where it would play with the terminal."""
    return path if path.isprintable() else ascii(path)

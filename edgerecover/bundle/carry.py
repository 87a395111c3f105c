"""Bundles on their way: packed into an archive, unpacked again, signed. Nothing hostile is written. Stdlib only."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.bundle.archive import SUFFIX, write_archive
from edgerecover.bundle.manifest import MANIFEST_NAME, SIGNATURE_DIGEST_NAME, SIGNATURE_NAME, FileEntry
from edgerecover.bundle.source import open_source
from edgerecover.bundle.verify import (
    BundleDiffersError,
    Difference,
    Verified,
    signature_digest,
    signed_digests,
    verify_bundle,
)
from edgerecover.bundle.write import check_writable, put, unwritable
from edgerecover.errors import UNWRITABLE_HINT, BadInputError, EdgeRecoverError
from edgerecover.files import building_beside, move_into_place, replace_file

if TYPE_CHECKING:
    from edgerecover.bundle.signature import Signer, Trusted


@contextlib.contextmanager
def open_as_folder(bundle: Path, trusted: Trusted | None = None) -> Iterator[tuple[Verified, Path]]:
    """A verified bundle and a folder with its files: its own or, of an archive, a private one that goes away again.

    Raises:
        BadInputError, MissingError, VerificationError: as `verify_bundle`.
    """
    verified = verify_bundle(bundle, trusted)
    if bundle.is_dir():
        yield verified, bundle
        return
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as private:
        folder = Path(private) / archive_stem(bundle)
        _extract(verified, folder)
        yield verified, folder


def archive_path(bundle: Path) -> Path:
    """Where the archive of a bundle's folder goes if nobody says otherwise."""
    folder = bundle.absolute()
    return folder.with_name(folder.name + SUFFIX)


def archive_stem(archive: Path) -> str:
    """Name of the folder in an archive."""
    return archive.name.removesuffix(SUFFIX) or "bundle"


def pack_bundle(bundle: Path, out: Path) -> Verified:
    """Write the archive of a bundle: the same files give the same bytes. Whole at `out`, or nothing.

    Args:
        bundle: verified first; a signature in it stays.
        out: a place that is free, or an earlier archive of a bundle, which is replaced.

    Returns:
        The archive, verified.

    Raises:
        BadInputError: no bundle, `out` holds something else or cannot be written, or a file of 8 GiB or more.
        VerificationError: the bundle is not what its manifest lists, or changed while it was read.
    """
    verified = verify_bundle(bundle)
    check_free(out)
    listed = {**verified.files, **verified.own}
    try:
        with building_beside(out) as building, open_source(bundle) as source:
            with building.open("xb") as file:
                write_archive({path: (entry.size_bytes, source.pieces(path)) for path, entry in listed.items()}, file)
            packed = verify_bundle(building)
            _require_same(bundle, {**packed.files, **packed.own}, listed)
            move_into_place(building, out)
    except OSError as error:
        raise unwritable(out, error) from error
    except ValueError as error:
        raise BadInputError(f"{bundle} cannot be packed: {error}", hint="copy the folder as it is") from error
    return replace(packed, path=out)


def unpack_bundle(archive: Path, out: Path, trusted: Trusted | None = None) -> Verified:
    """Write the folder of an archive, once all of it is verified. Whole at `out`, or nothing.

    Args:
        archive: of a bundle.
        out: a place that is free, an empty folder, or an earlier bundle, which is replaced.
        trusted: who must have signed it; None: nobody.

    Raises:
        BadInputError: no such archive, or `out` holds something else or cannot be written.
        MissingError: signatures cannot be checked on this machine.
        VerificationError: it is not what was packed; nothing is written.
    """
    if archive.is_dir():
        raise BadInputError(f"{archive} is a folder already", hint="unpack the archive that `bundle pack` made")
    verified = verify_bundle(archive, trusted)
    copy_bundle(verified, out)
    return replace(verified, path=out)


def copy_bundle(verified: Verified, out: Path) -> None:
    """Write a verified bundle, folder or archive, as a folder elsewhere. Whole at `out`, or nothing.

    Raises:
        BadInputError: `out` holds something else or cannot be written.
        VerificationError: the bundle has changed since it was verified.
    """
    check_writable(out)
    try:
        with building_beside(out) as building:
            _extract(verified, building)
            move_into_place(building, out)
    except OSError as error:
        raise unwritable(out, error) from error


def sign_bundle(bundle: Path, signer: Signer) -> Verified:
    """Sign a bundle, folder or archive; an earlier signature is replaced.

    Raises:
        BadInputError: no bundle, one of an older schema version, or the key cannot be used.
        MissingError: model-signing is not installed, or Sigstore cannot be reached.
        VerificationError: the bundle is not what its manifest lists: such a one is not signed.
    """
    from edgerecover.bundle.signature import make_signature

    verified = verify_bundle(bundle)
    if verified.measurements is None:
        raise BadInputError(
            f"{bundle} is of schema version {verified.manifest.schema_version}, which has no signature",
            hint="make it again with this version of edgerecover",
        )
    signature = make_signature(signed_digests({**verified.files, **verified.own}), archive_stem(bundle), signer)
    if bundle.is_dir():
        _put_signature(bundle, signature)
    else:
        with tempfile.TemporaryDirectory(prefix="edgerecover-") as private:
            folder = Path(private) / archive_stem(bundle)
            _extract(verified, folder)
            _put_signature(folder, signature)
            pack_bundle(folder, bundle)
    return verify_bundle(bundle)


def _put_signature(folder: Path, signature: bytes) -> None:
    try:
        replace_file(folder / SIGNATURE_NAME, signature)
        replace_file(folder / SIGNATURE_DIGEST_NAME, signature_digest(signature))
    except OSError as error:
        raise BadInputError(
            f"{folder}: the signature cannot be written: {error.strerror or error}",
            hint=UNWRITABLE_HINT,
        ) from error


def _extract(verified: Verified, folder: Path) -> None:
    """Write the files of a verified bundle, and check that what was written is what was verified."""
    folder.mkdir()
    listed = {**verified.files, **verified.own}
    with open_source(verified.path) as source:
        written = {path: put(source.pieces(path), folder / path) for path in sorted(source.names())}
    _require_same(verified.path, written, listed)


def _require_same(bundle: Path, found: dict[str, FileEntry], listed: dict[str, FileEntry]) -> None:
    if found != listed:
        changed = sorted(path for path in {*found, *listed} if found.get(path) != listed.get(path))
        raise BundleDiffersError(
            f"{bundle} changed while it was read", tuple(Difference("changed", path) for path in changed)
        )


def check_free(out: Path) -> None:
    """Find out whether an archive may be written at `out`.

    Raises:
        BadInputError: there is something that is not the archive of a bundle.
    """
    if not (out.exists() or out.is_symlink()):
        return
    try:
        if out.is_symlink() or not out.is_file():
            raise BadInputError(f"{out} is no file", hint="name a file")
        with open_source(out) as source:
            is_bundle = MANIFEST_NAME in source.names()
    except EdgeRecoverError:
        is_bundle = False
    if not is_bundle:
        raise BadInputError(
            f"{out}: there is something there already, and it is not the archive of a bundle",
            hint="name another file, or remove it yourself",
        )

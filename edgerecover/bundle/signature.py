"""Signatures over a bundle, by OpenSSF model-signing: an in-toto statement of every file's digest in a Sigstore bundle.

The digests are ours, taken while the files were read; the library signs and checks them. So folder and archive have one
signature, and nothing is read twice. Its own tool checks the same signature:
`model_signing verify key BUNDLE --signature BUNDLE/signature.json --public_key FILE`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.bundle.manifest import SIGNATURE_DIGEST_NAME, SIGNATURE_NAME
from edgerecover.errors import (
    UNREADABLE_HINT,
    BadInputError,
    EdgeRecoverError,
    MissingError,
    VerificationError,
    pip_line,
)

if TYPE_CHECKING:
    from model_signing import hashing

PASSWORD_VARIABLE = "EDGERECOVER_KEY_PASSWORD"


# --- whom to trust, and who signs -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PublicKey:
    """The holder of the private key that belongs to this public one: PEM, NIST P-256, P-384 or P-521."""

    path: Path


@dataclass(frozen=True)
class Certificates:
    """The holder of a certificate issued under one of these: PEM, roots and intermediates."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Identity:
    """The person or job that an identity provider knew by this name when Sigstore issued a short-lived certificate."""

    identity: str
    """Mail address, or the URL of a workflow."""
    issuer: str
    """URL of the provider."""
    trust_config: Path | None = None
    """Trust configuration of your own Sigstore instance; None: the public one, whose trust root is fetched."""
    staging: bool = False


Trusted = PublicKey | Certificates | Identity


@dataclass(frozen=True)
class KeySigner:
    """Signs with a private key."""

    key: Path
    password: str | None = None


@dataclass(frozen=True)
class CertificateSigner:
    """Signs with the private key of a certificate."""

    key: Path
    certificate: Path
    chain: tuple[Path, ...] = ()


@dataclass(frozen=True)
class KeylessSigner:
    """Signs with a key that lives for one signature, certified by Sigstore for an identity; needs network access."""

    identity_token: str | None = None
    """None: that of the CI job this runs in, else a browser is opened."""
    trust_config: Path | None = None
    staging: bool = False


Signer = KeySigner | CertificateSigner | KeylessSigner


@dataclass(frozen=True)
class Checked:
    """A signature by a trusted signer."""

    signer: str
    """For people."""
    covers: bool
    """Whether the signature is over these very files."""
    digests: dict[str, str]
    """What the signature says was signed, to name what differs: sha256 by path."""


def make_signature(digests: Mapping[str, str], name: str, signer: Signer) -> bytes:
    """Sign digests of files.

    Args:
        digests: sha256 by path.
        name: of the bundle; stands in the signature for people.
        signer: who signs.

    Raises:
        BadInputError: the key cannot be used.
        MissingError: model-signing is not installed, or Sigstore cannot be reached.
    """
    signing, _ = _library()
    files = _hashing(digests, name)
    config = signing.Config().set_hashing_config(files)
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder, _said_on_stderr():
        out = Path(folder) / SIGNATURE_NAME
        if isinstance(signer, KeylessSigner):
            _online(lambda: _sign_keyless(config, signer, Path(name), out))
        else:
            _with_key(lambda: _key_signer(config, signer), signer.key)
            config.sign(name, out)
        return out.read_bytes()


def require_signer(signer: Signer) -> None:
    """Find out before hours of work whether the key can be used.

    Raises:
        BadInputError, MissingError: as `make_signature`; whether Sigstore answers is not tried.
    """
    signing, _ = _library()
    if not isinstance(signer, KeylessSigner):
        with _said_on_stderr():
            _with_key(lambda: _key_signer(signing.Config(), signer), signer.key)


def check_signature(signature: bytes, digests: Mapping[str, str], trusted: Trusted) -> Checked:
    """Check that a trusted signer made a signature, and whether it covers these files and no others.

    Args:
        signature: content of signature.json.
        digests: of the files that are there.
        trusted: who must have made it.

    Raises:
        BadInputError: the key or the certificates cannot be read.
        MissingError: model-signing is not installed, or Sigstore's trust root cannot be fetched.
        VerificationError: it is not a signature, or not by whom is trusted.
    """
    _, verifying = _library()
    config = verifying.Config()
    with _said_on_stderr():
        _trust(config, trusted)
        files = _hashing(digests, "")
        config.set_hashing_config(files)
        with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
            file = Path(folder) / SIGNATURE_NAME
            file.write_bytes(signature)
            try:
                config.verify(folder, file)
            except Exception as error:  # a hostile signature may trip the library anywhere
                # It asks for the digests once the signature holds: what fails after that is the comparison with them.
                if files.was_asked:
                    return Checked(_name(trusted), False, _signed_files(signature))
                raise VerificationError(
                    f"{SIGNATURE_NAME} is not a signature by {_name(trusted)}: {_short(error)}",
                    hint="check that this is the right key, certificate or identity; else do not use the bundle",
                ) from error
    return Checked(_name(trusted), True, dict(digests))


# --- the library --------------------------------------------------------------------------------------------


def _library() -> tuple[Any, Any]:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise MissingError(
            f"signatures need the package model-signing, which cannot be imported: {error}",
            hint=pip_line("install 'edgerecover[signing]'"),
        ) from error
    return signing, verifying


def _hashing(digests: Mapping[str, str], name: str) -> Any:
    """What the library asks for the digests of a folder: it gets the ones that were taken while files were read."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest  # the one thing that has no public name

    class Taken(hashing.Config):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
            self.was_asked = False

        def hash(self, model_path: hashing.PathLike, *, files_to_hash: object = None) -> manifest.Manifest:
            self.was_asked = True
            recipe = {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_NAME, SIGNATURE_DIGEST_NAME],
            }
            serialization = manifest.SerializationType.from_args(recipe)
            items = [
                serialization.new_item(path, Digest("sha256", bytes.fromhex(sha256)))
                for path, sha256 in digests.items()
            ]
            return manifest.Manifest(name, items, serialization)

    return Taken()


def _key_signer(config: Any, signer: KeySigner | CertificateSigner) -> None:
    if isinstance(signer, KeySigner):
        # Its annotation says str; what it hands the password to takes bytes.
        password = signer.password.encode() if signer.password is not None else None
        config.use_elliptic_key_signer(private_key=signer.key, password=password)
    else:
        config.use_certificate_signer(
            private_key=signer.key, signing_certificate=signer.certificate, certificate_chain=signer.chain
        )


def _with_key(use: Callable[[], None], key: Path) -> None:
    try:
        use()
    except OSError as error:
        raise BadInputError(
            f"{error.filename or key} cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    except Exception as error:  # of whatever the library trips over in a file that is no such key
        raise BadInputError(
            f"{key} cannot be used to sign: {_short(error)}",
            hint=f"a PEM file of a NIST P-256, P-384 or P-521 key; its password, if it has one, in {PASSWORD_VARIABLE}",
        ) from error


def _sign_keyless(config: Any, signer: KeylessSigner, model: Path, out: Path) -> None:
    config.use_sigstore_signer(
        identity_token=signer.identity_token,
        use_ambient_credentials=signer.identity_token is None,
        use_staging=signer.staging,
        trust_config=signer.trust_config,
    )
    config.sign(model, out)


def _trust(config: Any, trusted: Trusted) -> None:
    if isinstance(trusted, Identity):
        _online(
            lambda: config.use_sigstore_verifier(
                identity=trusted.identity,
                oidc_issuer=trusted.issuer,
                use_staging=trusted.staging,
                trust_config=trusted.trust_config,
            )
        )
        return
    paths = (trusted.path,) if isinstance(trusted, PublicKey) else trusted.paths
    try:
        if isinstance(trusted, PublicKey):
            config.use_elliptic_key_verifier(public_key=trusted.path)
        else:
            config.use_certificate_verifier(certificate_chain=list(trusted.paths))
    except OSError as error:
        raise BadInputError(
            f"{error.filename or paths[0]} cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    except Exception as error:  # of whatever the library trips over in a file that is no such key
        raise BadInputError(
            f"{', '.join(map(str, paths))} cannot be used to verify: {_short(error)}",
            hint="PEM files: a public key of NIST P-256, P-384 or P-521, or certificates",
        ) from error


def _online(work: Callable[[], None]) -> None:
    """Sigstore's client fails in many ways where there is no network, or nobody to log in."""
    try:
        work()
    except EdgeRecoverError:
        raise
    except Exception as error:
        raise MissingError(
            f"Sigstore could not be used: {_short(error)}",
            hint="keyless signatures need network access, and a trust root or a login; offline, use a key file "
            "(--key, --public-key) or your own instance's --trust-config",
        ) from error


@contextlib.contextmanager
def _said_on_stderr() -> Iterator[None]:
    """The library prints warnings, and how to log in, where results go."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


# --- what was signed ------------------------------------------------------------------------------------------


def _signed_files(signature: bytes) -> dict[str, str]:
    """The digests in a signature, to name what differs; none where it was made in another way."""
    try:
        payload = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
        return {str(resource["name"]): str(resource["digest"]) for resource in payload["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _name(trusted: Trusted) -> str:
    if isinstance(trusted, PublicKey):
        return f"the key of {trusted.path.name}"
    if isinstance(trusted, Certificates):
        names = ", ".join(path.name for path in trusted.paths) or "this system's certificates"
        return f"a certificate that leads to {names}"
    return f"{trusted.identity} (known to {trusted.issuer})"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

"""Flags about signatures, and whom they name: who signs, and who must have signed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from edgerecover.bundle.signature import Signer, Trusted

PublicKeyOption = Annotated[
    Path | None, typer.Option("--public-key", help="PEM: the bundle must be signed with its private key.")
]
CertificatesOption = Annotated[
    list[Path] | None,
    typer.Option("--certificates", help="PEM: the signer's certificate must lead to one of them; several times."),
]
IdentityOption = Annotated[
    str | None, typer.Option("--identity", help="Mail address or workflow that Sigstore must have certified.")
]
IssuerOption = Annotated[str | None, typer.Option("--issuer", help="URL of who vouches for --identity.")]
TrustConfigOption = Annotated[
    Path | None, typer.Option("--trust-config", help="JSON of a Sigstore instance of one's own. [the public one]")
]
StagingOption = Annotated[bool, typer.Option("--staging", help="Sigstore's staging instance.")]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", help="PEM of a P-256, P-384 or P-521 private key; password in EDGERECOVER_KEY_PASSWORD."),
]
CertificateOption = Annotated[Path | None, typer.Option("--certificate", help="PEM of --key's certificate.")]
ChainOption = Annotated[
    list[Path] | None, typer.Option("--chain", help="PEM of the certificates above it; several times.")
]


def key_signer(key: Path | None, certificate: Path | None = None, chain: list[Path] | None = None) -> Signer:
    """Who signs with a file, as the flags say.

    Raises:
        BadInputError: a certificate without a key, or a chain without a certificate.
    """
    from edgerecover.bundle.signature import PASSWORD_VARIABLE, CertificateSigner, KeySigner

    if key is None or (chain and certificate is None):
        raise BadInputError("--chain and --certificate belong to a --key", hint="give all of them, or --key alone")
    if certificate is not None:
        return CertificateSigner(key, certificate, tuple(chain or ()))
    return KeySigner(key, os.environ.get(PASSWORD_VARIABLE))


def trusted_by(
    public_key: Path | None,
    certificates: list[Path] | None,
    identity: str | None,
    issuer: str | None,
    trust_config: Path | None,
    staging: bool,
) -> Trusted | None:
    """Who must have signed, as the flags say; None: nobody.

    Raises:
        BadInputError: they name several, or half of one.
    """
    from edgerecover.bundle.signature import Certificates, Identity, PublicKey

    if (public_key is not None) + bool(certificates) + (identity is not None or issuer is not None) > 1:
        raise BadInputError(
            "whom to trust is not clear", hint="give one of --public-key, --certificates, and --identity with --issuer"
        )
    if (identity is None) != (issuer is None):
        raise BadInputError(
            "--identity and --issuer belong together: a name counts only with who vouches for it",
            hint="give both, or neither",
        )
    if public_key is not None:
        return PublicKey(public_key)
    if certificates:
        return Certificates(tuple(certificates))
    return Identity(identity, issuer, trust_config, staging) if identity is not None and issuer is not None else None

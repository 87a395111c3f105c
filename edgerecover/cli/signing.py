"""Flags about signatures, and whom they name: who signs, and who must have signed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgerecover.cli.options import (
    SIGNATURE,
    switch,
)
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from edgerecover.bundle.signature import Signer, Trusted

PublicKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--public-key",
        help="PEM public key; the bundle must be signed with its private key.",
        rich_help_panel=SIGNATURE,
    ),
]
CertificatesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--certificates",
        metavar="<path>",
        help="PEM certificate that the signer's must chain to; repeat for several.",
        rich_help_panel=SIGNATURE,
    ),
]
IdentityOption = Annotated[
    str | None,
    typer.Option(
        "--identity", help="Email address or workflow that Sigstore must have certified.", rich_help_panel=SIGNATURE
    ),
]
IssuerOption = Annotated[
    str | None, typer.Option("--issuer", help="OpenID Connect issuer (URL) of --identity.", rich_help_panel=SIGNATURE)
]
TrustConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--trust-config",
        help="Trust configuration (JSON) of a private Sigstore instance. Default: the public one.",
        rich_help_panel=SIGNATURE,
    ),
]
StagingOption = Annotated[bool, switch("--staging", help="Use Sigstore's staging instance.", panel=SIGNATURE)]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        "--sign-key",
        help="PEM private key (P-256, P-384 or P-521); password in EDGERECOVER_KEY_PASSWORD.",
        rich_help_panel=SIGNATURE,
    ),
]
CertificateOption = Annotated[
    Path | None, typer.Option("--certificate", help="PEM certificate of --key.", rich_help_panel=SIGNATURE)
]
ChainOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--chain",
        metavar="<path>",
        help="PEM intermediate certificate of --certificate; repeat for several.",
        rich_help_panel=SIGNATURE,
    ),
]


def key_signer(key: Path | None, certificate: Path | None = None, chain: list[Path] | None = None) -> Signer:
    """The signer that the flags about a key file name.

    Raises:
        BadInputError: a certificate without a key, or a chain without a certificate.
    """
    from edgerecover.bundle.signature import PASSWORD_VARIABLE, CertificateSigner, KeySigner

    if key is None or (chain and certificate is None):
        raise BadInputError(
            "--certificate needs --key, and --chain needs --certificate", hint="give all of them, or --key alone"
        )
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
    """The signer that the flags ask for; None: no signature is asked for.

    Raises:
        BadInputError: they name several signers, or one incompletely.
    """
    from edgerecover.bundle.signature import Certificates, Identity, PublicKey

    if (public_key is not None) + bool(certificates) + (identity is not None or issuer is not None) > 1:
        raise BadInputError(
            "several trusted signers were given",
            hint="give one of --public-key, --certificates, or --identity with --issuer",
        )
    if (identity is None) != (issuer is None):
        raise BadInputError(
            "--identity and --issuer must be given together",
            hint="give both, or neither",
        )
    if public_key is not None:
        return PublicKey(public_key)
    if certificates:
        return Certificates(tuple(certificates))
    return Identity(identity, issuer, trust_config, staging) if identity is not None and issuer is not None else None

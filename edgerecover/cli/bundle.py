"""`bundle verify|show|pack|unpack|sign`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.options import (
    OUTPUT,
    SIGNATURE,
    ForceOption,
    JsonOption,
    switch,
)
from edgerecover.cli.reports import drawing, page_of, write_page
from edgerecover.cli.signing import (
    CertificateOption,
    CertificatesOption,
    ChainOption,
    IdentityOption,
    IssuerOption,
    KeyOption,
    PublicKeyOption,
    StagingOption,
    TrustConfigOption,
    key_signer,
    trusted_by,
)
from edgerecover.commands.outputs import require_free, require_new_folder
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from edgerecover.bundle.verify import Verified

app = typer.Typer(no_args_is_help=True, help="Verify, show, pack, unpack and sign bundles.")
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle: folder or archive.")]


@app.command("verify")
def bundle_verify(
    bundle: BundleArgument,
    public_key: PublicKeyOption = None,
    certificates: CertificatesOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trust_config: TrustConfigOption = None,
    staging: StagingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Verify BUNDLE: its manifest, every file, and its signature if a trusted signer is given."""
    from edgerecover.bundle.verify import BundleDiffersError, verify_bundle

    trusted = trusted_by(public_key, certificates, identity, issuer, trust_config, staging)
    try:
        verified = verify_bundle(bundle, trusted)
    except BundleDiffersError as error:
        if as_json:
            differences = [{"kind": one.kind, "path": one.path, "detail": one.detail} for one in error.differences]
            print_json({"verified": False, "differences": differences})
        raise
    _show_verified(verified, as_json)


@app.command("show")
def bundle_show(
    bundle: BundleArgument,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write the report to this HTML file instead of showing it.", rich_help_panel=OUTPUT
        ),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Verify BUNDLE and show the report inside it."""
    from edgerecover.artifacts import to_json
    from edgerecover.bundle.verify import read_report, verify_bundle

    if html is not None:
        require_free("--html", html, force=force)
    verified = verify_bundle(bundle)
    report = read_report(verified)
    if html is not None:
        write_page(html, page_of(verified, report))
    if as_json:
        print_json(to_json(report))
    elif html is None:
        from edgerecover.report.terminal import print_report

        with drawing(str(bundle)):
            print_report(stdout(), report, str(bundle))


@app.command("pack")
def bundle_pack(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Archive to write. Default: BUNDLE.tar.", rich_help_panel=OUTPUT)
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write BUNDLE as a single archive; the same files give the same bytes."""
    from edgerecover.bundle.carry import archive_path, pack_bundle

    path = out or archive_path(bundle)
    require_free("--out", path, force=force)
    _show_verified(pack_bundle(bundle, path), as_json)


@app.command("unpack")
def bundle_unpack(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="Archive of a bundle.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write. Default: ARCHIVE without .tar.", rich_help_panel=OUTPUT),
    ] = None,
    public_key: PublicKeyOption = None,
    certificates: CertificatesOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trust_config: TrustConfigOption = None,
    staging: StagingOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Verify ARCHIVE, then write the bundle's folder."""
    from edgerecover.bundle.carry import archive_stem, unpack_bundle

    folder = out or archive.with_name(archive_stem(archive))
    if folder == archive:
        raise BadInputError(f"{archive} does not end in .tar", hint="name the folder to write with --out")
    require_new_folder("--out", folder, force=force)
    trusted = trusted_by(public_key, certificates, identity, issuer, trust_config, staging)
    _show_verified(unpack_bundle(archive, folder, trusted), as_json)


@app.command("sign")
def bundle_sign(
    bundle: BundleArgument,
    key: KeyOption = None,
    certificate: CertificateOption = None,
    chain: ChainOption = None,
    keyless: Annotated[
        bool,
        switch(
            "--keyless", help="Sign with your (or this job's) Sigstore identity; needs network access.", panel=SIGNATURE
        ),
    ] = False,
    identity_token: Annotated[
        str | None,
        typer.Option(
            "--identity-token",
            help="OpenID Connect token for --keyless. Default: this job's.",
            rich_help_panel=SIGNATURE,
        ),
    ] = None,
    trust_config: TrustConfigOption = None,
    staging: StagingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Verify BUNDLE and sign it with a key file or keyless, replacing any earlier signature."""
    from edgerecover.bundle.carry import sign_bundle
    from edgerecover.bundle.signature import KeylessSigner

    if keyless == (key is not None):
        raise BadInputError(
            "bundle sign: exactly one of --key and --keyless is needed", hint="give --key FILE or --keyless"
        )
    signer = KeylessSigner(identity_token, trust_config, staging) if keyless else key_signer(key, certificate, chain)
    _show_verified(sign_bundle(bundle, signer), as_json)


def _show_verified(verified: Verified, as_json: bool) -> None:
    from edgerecover.bundle.verify import Signed, signature_words

    if as_json:
        print_json(
            {
                "verified": True,
                "bundle": str(verified.path),
                "schema_version": verified.manifest.schema_version,
                "manifest_sha256": verified.manifest_sha256,
                "signature": verified.signed.value,
                "signer": verified.signer,
                "files": sorted(verified.files),
            }
        )
        return
    words = signature_words(verified.signed, verified.signer)
    typer.echo(f"{verified.path}: {len(verified.files)} files match the manifest; {words}")
    if verified.signed is Signed.ABSENT:
        typer.echo("it is not signed: nothing proves who made it", err=True)

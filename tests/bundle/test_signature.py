"""Signatures made and checked by model-signing itself, with keys and certificates made here. No network."""

import base64
import datetime
import json
import subprocess
import sys

import pytest

pytest.importorskip("model_signing", reason="signatures need the extra edgerecover[signing]")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgerecover.bundle.carry import pack_bundle, sign_bundle, unpack_bundle
from edgerecover.bundle.manifest import Manifest, Measurements
from edgerecover.bundle.signature import (
    Certificates,
    CertificateSigner,
    Identity,
    KeylessSigner,
    KeySigner,
    PublicKey,
    require_signer,
)
from edgerecover.bundle.verify import BundleDiffersError, Signed, signature_digest, verify_bundle
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import BadInputError, MissingError, VerificationError

PLAIN = serialization.NoEncryption()


def write_key(folder, name, key, encryption=PLAIN):
    pem = serialization.Encoding.PEM
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    ours = write_key(folder, "ours", ec.generate_private_key(ec.SECP256R1()))
    theirs = write_key(folder, "theirs", ec.generate_private_key(ec.SECP384R1()))
    return ours, theirs


@pytest.fixture
def bundle(tmp_path):
    return write_bundle({"model.onnx": b"onnx", "a/b": b"1"}, tmp_path / "b", {}, {"report.md": b"text"}, {})


@pytest.fixture
def signed(bundle, keys):
    assert sign_bundle(bundle, KeySigner(keys[0][0])).signed is Signed.NOT_CHECKED
    return bundle


def test_a_signature_by_a_key(signed, keys):
    (_, public), (_, other) = keys
    verified = verify_bundle(signed, PublicKey(public))
    assert (verified.signed, verified.signer) == (Signed.VERIFIED, "the key of ours.pub")
    assert verified.files == verify_bundle(signed).files
    with pytest.raises(VerificationError, match=r"not a signature by the key of theirs\.pub") as caught:
        verify_bundle(signed, PublicKey(other))
    assert caught.value.exit_code == 4


def test_an_unsigned_bundle_is_not_what_was_asked_for(bundle, keys):
    with pytest.raises(VerificationError, match="is not signed"):
        verify_bundle(bundle, PublicKey(keys[0][1]))


def test_the_signature_is_in_the_archive_too(signed, keys, tmp_path):
    trusted = PublicKey(keys[0][1])
    archive = pack_bundle(signed, tmp_path / "b.tar").path
    assert verify_bundle(archive, trusted).signed is Signed.VERIFIED
    assert unpack_bundle(archive, tmp_path / "again", trusted).signed is Signed.VERIFIED
    with pytest.raises(VerificationError):
        unpack_bundle(archive, tmp_path / "never", PublicKey(keys[1][1]))
    assert not (tmp_path / "never").exists()


def test_an_archive_is_signed_in_place(bundle, keys, tmp_path):
    archive = pack_bundle(bundle, tmp_path / "b.tar").path
    sign_bundle(archive, KeySigner(keys[0][0]))
    assert verify_bundle(archive, PublicKey(keys[0][1])).signed is Signed.VERIFIED
    assert verify_bundle(bundle).signed is Signed.ABSENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.tar"]


def test_a_second_signature_replaces_the_first(signed, keys):
    sign_bundle(signed, KeySigner(keys[1][0]))
    assert verify_bundle(signed, PublicKey(keys[1][1])).signed is Signed.VERIFIED
    with pytest.raises(VerificationError, match="not a signature by"):
        verify_bundle(signed, PublicKey(keys[0][1]))


def test_the_signature_is_checked_before_anything_is_parsed(signed, keys):
    """Whoever rewrites files, manifest and measurements so that all fits is stopped by the signature alone."""
    (signed / "model.onnx").write_bytes(b"evil")
    (signed / "manifest.json").write_bytes(b"not even JSON")
    (signed / "extra").write_bytes(b"")
    (signed / "report.md").unlink()
    with pytest.raises(BundleDiffersError, match=r"is not what the key of ours\.pub signed") as caught:
        verify_bundle(signed, PublicKey(keys[0][1]))
    assert [(one.kind, one.path) for one in caught.value.differences] == [
        ("extra", "extra"),
        ("changed", "manifest.json"),
        ("changed", "model.onnx"),
        ("missing", "report.md"),
    ]


def test_a_rewritten_bundle_passes_only_where_nobody_is_trusted(signed, keys, tmp_path):
    evil = write_bundle({"model.onnx": b"evil", "a/b": b"1"}, tmp_path / "evil", {}, {"report.md": b"text"}, {})
    for name in ("signature.json", "signature.sha256"):
        (evil / name).write_bytes((signed / name).read_bytes())
    assert verify_bundle(evil).signed is Signed.NOT_CHECKED
    with pytest.raises(BundleDiffersError, match="signed"):
        verify_bundle(evil, PublicKey(keys[0][1]))


def test_each_byte_of_the_signature_counts(signed, keys):
    file = signed / "signature.json"
    whole = file.read_bytes()
    for place in range(0, len(whole), 40):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(VerificationError):
            verify_bundle(signed, PublicKey(keys[0][1]))
        with pytest.raises(VerificationError):
            verify_bundle(signed)


def test_a_signature_with_something_else_inside(signed, keys):
    """Signed content that was exchanged, with its own digest made to fit."""
    document = json.loads((signed / "signature.json").read_bytes())
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    forged = json.dumps(document).encode()
    (signed / "signature.json").write_bytes(forged)
    (signed / "signature.sha256").write_bytes(signature_digest(forged))
    with pytest.raises(VerificationError, match="not a signature by"):
        verify_bundle(signed, PublicKey(keys[0][1]))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"verificationMaterial": {}}', b"[" * 100_000])
def test_a_signature_that_is_none(bundle, keys, content):
    (bundle / "signature.json").write_bytes(content)
    (bundle / "signature.sha256").write_bytes(signature_digest(content))
    with pytest.raises(VerificationError, match="not a signature by"):
        verify_bundle(bundle, PublicKey(keys[0][1]))


def test_a_signature_that_leaves_files_out(bundle, keys):
    """The library passes over paths that a signature says to ignore; here every file must be signed."""
    from model_signing import hashing, signing

    config = signing.Config().use_elliptic_key_signer(private_key=keys[0][0])
    ignored = [bundle / name for name in ("model.onnx", "signature.json", "signature.sha256")]
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=ignored))
    config.sign(bundle, bundle / "signature.json")
    (bundle / "signature.sha256").write_bytes(signature_digest((bundle / "signature.json").read_bytes()))
    with pytest.raises(BundleDiffersError, match=r"extra: model\.onnx"):
        verify_bundle(bundle, PublicKey(keys[0][1]))


def test_the_librarys_own_tool_checks_it(signed, keys):
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed)]
    command += ["--signature", str(signed / "signature.json"), "--public_key"]
    done = subprocess.run([*command, str(keys[0][1])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (signed / "model.onnx").write_bytes(b"evil")
    done = subprocess.run([*command, str(keys[0][1])], capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_a_damaged_bundle_is_not_signed(bundle, keys):
    (bundle / "model.onnx").write_bytes(b"evil")
    with pytest.raises(VerificationError):
        sign_bundle(bundle, KeySigner(keys[0][0]))
    assert not (bundle / "signature.json").exists()


def test_a_bundle_of_an_older_version_is_not_signed(bundle, keys):
    verified = verify_bundle(bundle)
    files = {path: {"sha256": e.sha256, "size_bytes": e.size_bytes} for path, e in verified.files.items()}
    (bundle / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": files}))
    (bundle / "measurements.json").unlink()
    with pytest.raises(BadInputError, match="schema version 1, which has no signature"):
        sign_bundle(bundle, KeySigner(keys[0][0]))


# --- keys ---------------------------------------------------------------------------------------------------


def test_keys_that_cannot_be_used(bundle, keys, tmp_path):
    locked, _ = write_key(
        tmp_path, "locked", ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"secret")
    )
    other, other_public = write_key(tmp_path, "other", ed25519.Ed25519PrivateKey.generate())
    (tmp_path / "text.pem").write_text("hello")
    for key, password in ((locked, None), (locked, "wrong"), (other, None), (tmp_path / "text.pem", None)):
        for act in (lambda signer: sign_bundle(bundle, signer), require_signer):
            with pytest.raises(BadInputError, match="cannot be used to sign"):
                act(KeySigner(key, password))
    with pytest.raises(BadInputError, match="No such file"):
        require_signer(KeySigner(tmp_path / "nothing.pem"))
    sign_bundle(bundle, KeySigner(locked, "secret"))
    for key in (other_public, tmp_path / "text.pem"):
        with pytest.raises(BadInputError, match="cannot be used to verify"):
            verify_bundle(bundle, PublicKey(key))
    with pytest.raises(BadInputError, match="No such file"):
        verify_bundle(bundle, PublicKey(tmp_path / "nothing.pub"))


def test_without_the_library(bundle, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingError, match="need the package model-signing") as caught:
        sign_bundle(bundle, KeySigner(keys[0][0]))
    assert "edgerecover[signing]" in caught.value.hint
    verify_bundle(bundle)


# --- certificates -------------------------------------------------------------------------------------------


def certificate(key, name, issuer=None, issuer_key=None, *, may_sign=True):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    is_root = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if is_root else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or key).public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(may_sign and not is_root, *[False] * 4, is_root, is_root, False, False), critical=True
        )
    )
    if not is_root and may_sign:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def test_a_signature_by_a_certificate(bundle, tmp_path):
    root_key, leaf_key, other_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = certificate(root_key, "root")
    leaf, other = certificate(leaf_key, "release", root, root_key), certificate(other_key, "other root")
    for name, one in (("root", root), ("leaf", leaf), ("other", other)):
        (tmp_path / f"{name}.crt").write_bytes(one.public_bytes(serialization.Encoding.PEM))
    key, _ = write_key(tmp_path, "leaf", leaf_key)
    sign_bundle(bundle, CertificateSigner(key, tmp_path / "leaf.crt", (tmp_path / "root.crt",)))
    verified = verify_bundle(bundle, Certificates((tmp_path / "root.crt",)))
    assert (verified.signed, verified.signer) == (Signed.VERIFIED, "a certificate that leads to root.crt")
    with pytest.raises(VerificationError, match=r"not a signature by a certificate that leads to other\.crt"):
        verify_bundle(bundle, Certificates((tmp_path / "other.crt",)))
    wrong, _ = write_key(tmp_path, "wrong", other_key)
    with pytest.raises(BadInputError, match="cannot be used to sign"):
        sign_bundle(bundle, CertificateSigner(wrong, tmp_path / "leaf.crt"))


# --- Sigstore -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    """Sigstore's client fetches its trust root first; with nothing to connect to it fails there."""
    import socket

    def refuse(*arguments, **named):
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_keyless_without_a_network(bundle, signed, no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(MissingError, match="Sigstore could not be used") as caught:
        sign_bundle(bundle, KeylessSigner(identity_token="x.y.z"))
    assert "--key" in caught.value.hint
    with pytest.raises(MissingError, match="Sigstore could not be used"):
        verify_bundle(signed, Identity("me@example.org", "https://accounts.example.org"))


def test_a_trust_config_that_is_none(signed, tmp_path):
    (tmp_path / "trust.json").write_text("{}")
    with pytest.raises(MissingError, match="Sigstore could not be used"):
        verify_bundle(signed, Identity("me", "https://x.example.org", tmp_path / "trust.json"))


def test_files_of_the_bundle_belong_together(signed):
    """What the signature covers and what manifest and measurements list is the same set of files."""
    document = json.loads((signed / "signature.json").read_bytes())
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    names = {resource["name"] for resource in payload["predicate"]["resources"]}
    manifest = Manifest.parse((signed / "manifest.json").read_bytes())
    measurements = Measurements.parse((signed / "measurements.json").read_bytes())
    assert names == {*manifest.files, *measurements.files, "manifest.json", "measurements.json"}

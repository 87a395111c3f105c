"""`edgerecover bundle`: exit codes, messages and results, on a bundle that was released."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from edgerecover.cli import main

RELEASED = Path(__file__).parents[1] / "bundle" / "released"


def edgerecover(cwd, *arguments):
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["edgerecover", *map(str, arguments)])
        patch.setenv("NO_COLOR", "1")
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def folder(tmp_path):
    """A folder with a bundle, net.bundle, that is not signed, and its archive."""
    bundle = shutil.copytree(RELEASED / "v2", tmp_path / "net.bundle")
    for name in ("signature.json", "signature.sha256"):
        (bundle / name).unlink(missing_ok=True)
    packed = edgerecover(tmp_path, "bundle", "pack", "net.bundle")
    assert packed.returncode == 0, packed.stderr
    assert "net.bundle.tar: " in packed.stdout
    return tmp_path


@pytest.mark.parametrize("bundle", ["net.bundle", "net.bundle.tar"])
def test_verify_and_show(folder, bundle):
    done = edgerecover(folder, "bundle", "verify", bundle)
    assert done.returncode == 0
    num_files = sum(path.is_file() for path in (folder / "net.bundle").rglob("*")) - 2
    assert done.stdout == f"{bundle}: {num_files} files match the manifest; not signed\n"
    assert "nothing proves who made it" in done.stderr
    facts = json.loads(edgerecover(folder, "bundle", "verify", bundle, "--json").stdout)
    assert (facts["verified"], facts["schema_version"], facts["signature"]) == (True, 2, "absent")
    assert "Verdict" in edgerecover(folder, "bundle", "show", bundle).stdout
    assert json.loads(edgerecover(folder, "bundle", "show", bundle, "--json").stdout)["target"] == "onnx-generic"


def test_an_older_bundle_is_shown(tmp_path):
    done = edgerecover(tmp_path, "bundle", "show", RELEASED / "v1")
    assert done.returncode == 0, done.stderr
    assert "Verdict" in done.stdout


def test_unpack(folder):
    done = edgerecover(folder, "bundle", "unpack", "net.bundle.tar", "--out", "again")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "again").iterdir()) == sorted(
        path.name for path in (folder / "net.bundle").iterdir()
    )
    (folder / "renamed").write_bytes((folder / "net.bundle.tar").read_bytes())
    refused = edgerecover(folder, "bundle", "unpack", "renamed")
    assert (refused.returncode, "does not end in .tar" in refused.stderr) == (2, True)


def test_what_differs_is_named_and_exit_4(folder):
    (folder / "net.bundle" / "model.onnx").write_bytes(b"x")
    (folder / "net.bundle" / "more").write_bytes(b"x")
    for command in (["verify"], ["show"], ["pack", "--force"]):
        done = edgerecover(folder, "bundle", *command, "net.bundle")
        assert done.returncode == 4
        assert "changed: model.onnx (size 1 instead of" in done.stderr
        assert "extra: more" in done.stderr
        assert not done.stdout
    done = edgerecover(folder, "bundle", "verify", "net.bundle", "--json")
    assert done.returncode == 4
    assert [one["path"] for one in json.loads(done.stdout)["differences"]] == ["model.onnx", "more"]


def test_a_hostile_archive_is_exit_4_and_writes_nothing(folder):
    with tarfile.open(folder / "evil.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("../evil")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    before = sorted(folder.rglob("*"))
    for command in ("verify", "show", "unpack"):
        done = edgerecover(folder, "bundle", command, "evil.tar")
        assert done.returncode == 4
        assert "'../evil' is not a plain relative path" in done.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sign", "net.bundle"], "exactly one of --key and --keyless"),
        (["sign", "net.bundle", "--keyless", "--key", "k"], "exactly one of --key and --keyless"),
        (["sign", "net.bundle", "--key", "k", "--chain", "c"], "--certificate needs --key"),
        (["sign", "net.bundle", "--key", "nothing.pem"], "nothing.pem cannot be read"),
        (["verify", "net.bundle", "--public-key", "k", "--certificates", "c"], "several trusted signers were given"),
        (["verify", "net.bundle", "--identity", "me"], "must be given together"),
        (["verify", "nothing"], "does not exist"),
        (["unpack", "net.bundle"], "does not end in .tar"),
        (["pack", "net.bundle", "--out", "net.bundle"], "is a folder"),
    ],
)
def test_wrong_use_is_exit_2(folder, arguments, says):
    if arguments[0] == "sign":
        pytest.importorskip("model_signing")
    done = edgerecover(folder, "bundle", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert not done.stdout


def test_an_archive_is_not_benchmarked_but_explained(folder):
    done = edgerecover(folder, "bench", "net.bundle.tar")
    assert done.returncode == 2
    assert "bundle unpack" in done.stderr


def test_signing(folder):
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    assert edgerecover(folder, "bundle", "sign", "net.bundle", "--key", "key.pem").returncode == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGERECOVER_KEY_PASSWORD", "secret")
        signed = edgerecover(folder, "bundle", "sign", "net.bundle", "--key", "key.pem")
    assert signed.returncode == 0, signed.stderr
    assert "the signature was not checked" in signed.stdout
    verified = edgerecover(folder, "bundle", "verify", "net.bundle", "--public-key", "key.pub")
    assert "signed by the key of key.pub" in verified.stdout
    unsigned = edgerecover(folder, "bundle", "verify", "net.bundle.tar", "--public-key", "key.pub")
    assert (unsigned.returncode, "is not signed" in unsigned.stderr) == (4, True)

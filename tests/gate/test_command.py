"""`edgerecover gate` as it is typed: exit codes, what goes where, and nothing half-written."""

import inspect
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from edgerecover.cli import main
from edgerecover.cli.gate import gate as command
from edgerecover.gate.duel import MAX_RACES, SECONDS


@pytest.fixture
def gate(tmp_path):
    """The command line in this process, without running the model."""

    def gate(*arguments, measure=False):
        stdout, stderr = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
            patch.chdir(tmp_path)
            patch.setenv("NO_COLOR", "1")
            patch.setenv("COLUMNS", "80")
            rest = [] if measure else ["--no-measure"]
            patch.setattr(sys, "argv", ["edgerecover", "gate", *map(str, arguments), *rest])
            with pytest.raises(SystemExit) as ended:
                main()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, stdout.getvalue(), stderr.getvalue())

    return gate


def good(hits):
    return {"digits": "1" * hits + "0" * (100 - hits)}


@pytest.mark.parametrize(("hits", "code"), [(90, 0), (20, 1), (52, 5)])
def test_the_exit_code_is_the_verdict(gate, make_release, hits, code):
    bundle = make_release("a.bundle", **good(hits))
    done = gate(bundle)
    assert done.returncode == code
    assert {0: "PASS", 1: "FAIL", 5: "INCONCLUSIVE"}[code] in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert gate(bundle, "--exit-zero").returncode == 0


def test_stdout_is_the_report_or_pure_json_and_files_are_written_whatever_the_verdict(gate, make_release, tmp_path):
    bundle = make_release("a.bundle", **good(20))
    done = gate(
        bundle, "--json", "--github", "--exit-zero", "--junit", "g.xml", "--summary", "g.md", "--result", "g.json"
    )
    found = json.loads(done.stdout)
    assert found["verdict"] == "fail"
    assert found == json.loads((tmp_path / "g.json").read_text())
    assert "::error title=edgerecover gate%3A agreement fail::" in done.stderr
    assert 'failures="2"' in (tmp_path / "g.xml").read_text()
    assert (tmp_path / "g.md").read_text().startswith("## ❌ FAIL")
    shown = gate(bundle).stdout
    assert "FAIL  agreement with the teacher 20.0 %" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_summary_is_added_to(gate, make_release, tmp_path):
    (tmp_path / "g.md").write_text("# before\n")
    gate(make_release("a.bundle"), "--summary", "g.md")
    assert (tmp_path / "g.md").read_text().startswith("# before\n## ✅ PASS")


def test_limits_come_from_a_file_and_flags(gate, make_release, tmp_path):
    (tmp_path / "strict.toml").write_text("min_agreement = 0.95\nmax_latency_regression = 0.01\n")
    bundle = make_release("a.bundle")
    done = gate(bundle, "--baseline", bundle, "--limits", "strict.toml", "--max-latency-regression", "9", "--json")
    sources = {one["name"]: (one["source"], one["limit"]) for one in json.loads(done.stdout)["gates"]}
    assert sources["agreement"] == ("limits strict.toml", 95.0)
    assert sources["latency_regression"] == ("--max-latency-regression", 900.0)
    assert sources["size_regression"] == ("profile toy", 5.0)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("min_agreemnt = 0.9", "did you mean 'min_agreement'?"),
        ("min_agreement = 1.5", "strict.toml:1: min_agreement"),
        ("max_p99_ms = inf", "max_p99_ms"),
        ("max_size_regression = nan", "max_size_regression"),
        ("max_size_regression = -0.1", "max_size_regression"),
        ("[gates]\nmin_agreement = 0.9", "unknown key 'gates'"),
        ("min_agreement =", "is not valid TOML"),
    ],
)
def test_wrong_limits_are_refused_with_what_was_found(gate, make_release, tmp_path, written, named):
    (tmp_path / "strict.toml").write_text(written)
    done = gate(make_release("a.bundle"), "--limits", "strict.toml", "--junit", "g.xml", "--github")
    assert done.returncode == 2
    assert named in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert 'errors="1"' in (tmp_path / "g.xml").read_text()


@pytest.mark.parametrize("flags", [["--max-latency-regression", "nan"], ["--max-size-regression", "inf"],
                                   ["--max-size-regression", "-1"], ["--seconds", "nan"], ["--races", "0"],
                                   ["--cores", "x"], ["--update-baseline"], ["--profile", "nothing"]])  # fmt: skip
def test_flags_that_make_no_sense_are_refused(gate, make_release, flags):
    done = gate(make_release("a.bundle"), *flags)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_bundle_is_4_whatever_was_asked(gate, make_release):
    bundle = make_release("a.bundle")
    (bundle / "model.onnx").write_bytes(b"another")
    assert gate(bundle, "--exit-zero").returncode == 4


def test_a_place_that_cannot_be_written_is_2(gate, make_release):
    done = gate(make_release("a.bundle"), "--junit", "nowhere/g.xml")
    assert done.returncode == 2
    assert "nowhere/g.xml cannot be written" in done.stderr


def test_the_model_is_run_here_unless_told_not_to(gate, make_release):
    done = gate(make_release("a.bundle"), "--seconds", "0", "--json", measure=True)
    found = json.loads(done.stdout)
    assert found["latency"]["samples_ms"]
    assert "golden" in [one["name"] for one in found["gates"]]


def test_only_a_bundle_that_is_signed_by_whom_is_trusted_passes(gate, make_release, tmp_path):
    pytest.importorskip("model_signing", reason="signatures need the extra edgerecover[signing]")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from edgerecover.bundle.carry import sign_bundle
    from edgerecover.bundle.signature import KeySigner

    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    plain, subject = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(pem, subject))
    bundle, unsigned = make_release("a.bundle"), make_release("b.bundle")
    sign_bundle(bundle, KeySigner(tmp_path / "key.pem"))
    assert gate(bundle, "--public-key", "key.pub").returncode == 0
    assert gate(unsigned, "--public-key", "key.pub").returncode == 4
    assert gate(bundle, "--public-key", "key.pub", "--baseline", unsigned).returncode == 4


def test_the_defaults_are_those_that_were_measured():
    parameters = inspect.signature(command).parameters
    assert (parameters["seconds"].default, parameters["races"].default) == (SECONDS, MAX_RACES)

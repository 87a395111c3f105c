"""`bundle show --html` and `compare`: what is written, exit codes, and bundles that are not what they were."""

import dataclasses
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from PIL import Image

from edgerecover.artifacts import (
    Exported,
    Fidelity,
    Gate,
    GateStatus,
    Host,
    Latency,
    LayerSparsity,
    ModelFacts,
    Pattern,
    Proportion,
    Report,
    Sheet,
    Sparsity,
    SyntheticFacts,
    to_json,
)
from edgerecover.bundle.write import write_bundle
from edgerecover.cli import main
from edgerecover.cli.console import write_nearest
from edgerecover.cli.reports import drawing
from edgerecover.errors import BadInputError
from edgerecover.validation.limits import Limits

ZEROS = Sparsity((LayerSparsity("fc.weight", (4, 4), 16, 8, Pattern.UNSTRUCTURED),), Pattern.UNSTRUCTURED)
MODEL = ModelFacts(
    "model.pt", "3f" * 32, 1000, "state_dict", "models.py:net", "--arch", 20, 1, 2, False, False, ZEROS, None, ""
)
LATENCY = Latency(
    "one call", "onnxruntime 1.31.1", "CPUExecutionProvider", {}, 1, 1, Host("x86_64", "CPU", 2, "Linux"), False,
    (1.0,), (1.0, 1.1, 1.2), 1.0, 0, 1_000_000,
)  # fmt: skip
REPORT = Report(
    "0.1.0", "2026-03-01T09:30:00+00:00", 0, "cpu", "none", "toy", "a toy", "toy", MODEL, MODEL, ZEROS,
    SyntheticFacts(8, 4, 4, None, 1.0, reused=False), (),
    Exported("model.onnx", "0c" * 32, 400, 18, "dynamo", 1, 16, 8),
    None, Fidelity(None, None, Proportion(3, 4)), LATENCY, None, "zeros are zeros",
    (Gate("agreement", GateStatus.PASS, 75.0, 50.0, "at least", "%", "profile toy", "agrees"),), (), (), {},
    sheet=Sheet("dreams.png", 1, 8, 8, 2, (0, 1)),
)  # fmt: skip
LIMITS = Limits("toy", 0.5, 0.9, 0.01, 3.0, "toy", "CPUExecutionProvider")


def edgerecover(cwd, *arguments):
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["edgerecover", *map(str, arguments)])
        patch.setenv("NO_COLOR", "1")
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(arguments, ended.value.code or 0, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def bundle(tmp_path):
    def bundle(name, report=REPORT, data=None):
        sheet = io.BytesIO()
        Image.new("RGB", (12, 22), "teal").save(sheet, "PNG")
        made = {"model.onnx": b"onnx", "limits.json": json.dumps(to_json(LIMITS)), "dreams.png": sheet.getvalue()}
        measured = {"report.json": json.dumps(data or to_json(report))}
        return write_bundle(made, tmp_path / name, {"target": "toy"}, measured, {})

    return bundle


def test_a_page_is_drawn_from_a_bundle(bundle, tmp_path):
    path = bundle("a.bundle")
    done = edgerecover(tmp_path, "bundle", "show", "a.bundle", "--html", "page.html")
    assert (done.returncode, done.stdout) == (0, "")
    assert "page.html: 0.0" in done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("data:image/png;base64,") == 2
    manifest = subprocess.run(["sha256sum", path / "manifest.json"], capture_output=True, text=True, check=True).stdout
    assert manifest.split()[0] in page


def test_a_page_that_cannot_be_written_is_bad_input(bundle, tmp_path):
    bundle("a.bundle")
    done = edgerecover(tmp_path, "bundle", "show", "a.bundle", "--html", "no/such/folder/page.html")
    assert done.returncode == 2
    assert "--html no/such/folder/page.html: No such file or directory" in done.stderr


def test_numbers_that_nothing_can_be_drawn_of_are_bad_input(bundle, tmp_path):
    bundle("empty.bundle", dataclasses.replace(REPORT, latency=dataclasses.replace(LATENCY, samples_ms=())))
    wrong = dataclasses.replace(REPORT, sheet=dataclasses.replace(REPORT.sheet, columns=7))
    bundle("wrong.bundle", wrong)
    for arguments in (["empty.bundle"], ["empty.bundle", "--html", "x.html"], ["wrong.bundle", "--html", "x.html"]):
        done = edgerecover(tmp_path, "bundle", "show", *arguments)
        assert done.returncode == 2, done.stderr
        assert "its report cannot be shown" in done.stderr
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    "error", [StopIteration(), ZeroDivisionError("by zero"), IndexError("index"), ValueError("no")]
)
def test_whatever_goes_wrong_in_drawing_is_the_reports_fault(error):
    with pytest.raises(BadInputError, match=r"x\.bundle: its report cannot be shown"), drawing("x.bundle"):
        raise error


def test_two_bundles_side_by_side(bundle, tmp_path):
    bundle("a.bundle")
    bundle(
        "b.bundle", dataclasses.replace(REPORT, seed=1, exported=dataclasses.replace(REPORT.exported, size_bytes=800))
    )
    done = edgerecover(tmp_path, "compare", "a.bundle", "b.bundle")
    assert done.returncode == 0, done.stderr
    assert "seed" in done.stdout
    assert "+100.0 %" in done.stdout
    done = edgerecover(tmp_path, "compare", "a.bundle", "b.bundle", "--json", "--html", "both.html")
    data = json.loads(done.stdout)
    assert {one["name"]: one["verdict"] for one in data["measures"]}["file"] == "worse"
    assert "Two bundles side by side" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_both_are_verified_first(bundle, tmp_path):
    bundle("a.bundle")
    (bundle("b.bundle") / "dreams.png").write_bytes(b"other")
    for pair in (("a.bundle", "b.bundle"), ("b.bundle", "a.bundle")):
        done = edgerecover(tmp_path, "compare", *pair, "--html", "both.html")
        assert done.returncode == 4
        assert "dreams.png" in done.stderr
    assert not (tmp_path / "both.html").exists()
    assert edgerecover(tmp_path, "compare", "a.bundle", "nothing").returncode == 2


def test_an_old_report_is_shown_without_what_it_lacks(bundle, tmp_path):
    """As it was written before pictures, curves and classes were kept."""
    data = to_json(REPORT)
    for name in ("classes", "sheet", "engines", "race", "variants", "precision_loss", "lineage"):
        del data[name]
    for name in ("by_class", "decisions"):
        del data["fidelity"][name]
    bundle("old.bundle", data=data)
    done = edgerecover(tmp_path, "bundle", "show", "old.bundle", "--html", "old.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "old.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "By class" not in page


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", "###..  99.5 % (98.5-99.8) 2x -> 1.0 ~ 0.2 'x' ?"),
        ("cp1252", "###..  99.5 % (98.5–99.8) 2× -> 1.0 ± 0.2 “x” ?"),
        ("utf-8", "███░░  99.5 % (98.5–99.8) 2× → 1.0 ± 0.2 “x” 猫"),
    ],
)
def test_a_terminal_gets_what_comes_nearest(encoding, written):
    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding=encoding)
    write_nearest(stream)
    stream.write("███░░  99.5 % (98.5–99.8) 2× → 1.0 ± 0.2 “x” 猫")
    stream.flush()
    assert file.getvalue().decode(encoding) == written.replace("->", ">")

"""The command itself, in environments that lack things: real interpreters with a few packages each."""

import importlib.util
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED_BY_THE_COMMAND_LINE = (
    *("typer", "rich", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
    *("packaging", "click", "shellingham", "markdown_it", "mdurl", "pygments", "annotated_doc", "tomli"),
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An interpreter that sees edgerecover, what its command line needs, and a folder for more."""
    folder = tmp_path_factory.mktemp("doctor")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = next(p for p in (folder / "venv/bin/python", folder / "venv/Scripts/python.exe") if p.exists())
    packages, more = folder / "packages", folder / "more"
    packages.mkdir()
    more.mkdir()
    for name in NEEDED_BY_THE_COMMAND_LINE:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found = Path(spec.origin)
            found = found.parent if found.name == "__init__.py" else found
            (packages / found.name).symlink_to(found)
    for name in ("edgerecover", "targets"):
        (packages / name).symlink_to(ROOT / name)
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    Path(site, "paths.pth").write_text(f"{packages}\n{more}\n", encoding="utf-8")
    return python, more


def run(python, *arguments):
    return subprocess.run(
        [python, "-m", "edgerecover", "doctor", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=python.parent,
        env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONUTF8": "1"},
    )


def test_an_environment_without_anything(environment):
    done = run(environment[0], "--json")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert not report["ready"]
    for name in ("torch", "onnxruntime"):
        assert (found[name]["status"], found[name]["found"]) == ("missing", "not installed")
        assert found[name]["fix"].endswith(("install torch torchvision", "install 'onnxruntime>=1.22,<2'"))
    assert "onnx-generic" in report["targets_here"]


def test_a_broken_pair_is_told_in_one_line_at_80_columns(environment):
    python, more = environment
    (more / "torch.py").write_text(
        "__version__ = '2.15.0+cpu'\n"
        "class version: cuda = None\n"
        "class cuda: is_available = staticmethod(lambda: False)\n"
        "class ones(list):\n    def __init__(self, n): self.n = n\n    def sum(self): return self.n\n"
    )
    (more / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    try:
        done = run(python)
    finally:
        (more / "torch.py").unlink()
        (more / "torchvision.py").unlink()
    assert done.returncode == 3, done.stderr
    assert "examine this machine" in done.stderr
    lines = done.stdout.splitlines()
    fixes = [line for line in lines if line.startswith(" " * 9) and " pip " in line]
    line = "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
    assert any(fix.endswith(line) for fix in fixes)
    assert max(len(line) for line in lines if line not in fixes) <= 80
    assert "does not fit torch 2.15.0+cpu: RuntimeError: operator torchvision::nms does not exist" in " ".join(
        done.stdout.split()
    )


@pytest.mark.slow
def test_this_environment_is_ready():
    done = run(Path(sys.executable), "--json")
    report = json.loads(done.stdout)
    bad = {finding["name"] for finding in report["findings"] if finding["status"] in ("missing", "wrong")}
    assert not bad - {"disk", "packages", "packaging"}
    assert done.returncode == (3 if bad else 0)


def test_an_unknown_target_is_bad_input():
    done = run(Path(sys.executable), "--target", "jetson-orinn")
    assert done.returncode == 2
    assert "did you mean 'jetson-orin'?" in done.stderr

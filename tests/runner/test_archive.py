"""runner.pyz, run as a device runs it: from the bundle, by an interpreter that has nothing of ours."""

import ast
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from edgerecover.runner.archive import runner_modules, runner_pyz
from edgerecover.runtime.engine.mnn_file import convert

FORBIDDEN = ("torch", "torchvision", "onnx", "pydantic", "rich", "typer", "platformdirs", "psutil", "safetensors")


def bare(folder, *packages):
    """An interpreter with these packages alone, for the processes that the runner starts too."""
    venv.create(folder, with_pip=False, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for package in packages:
        origin = Path(importlib.util.find_spec(package).origin)
        home = origin.parent if origin.name == "__init__.py" else origin
        for found in (home, home.parent / f"{package}.libs", home.parent / "mnn.libs"):
            if found.exists() and not (site_packages / found.name).exists():
                (site_packages / found.name).symlink_to(found)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    return bare(tmp_path_factory.mktemp("bare") / "venv", "numpy", "onnxruntime")


@pytest.fixture
def pyz(tmp_path):
    path = tmp_path / "runner.pyz"
    path.write_bytes(runner_pyz())
    return path


def run(*command, cwd, **environment):
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def test_the_same_modules_give_the_same_bytes():
    again = runner_pyz.__wrapped__()
    assert again == runner_pyz()
    assert len(again) < 220_000
    assert again.startswith(b"#!/usr/bin/env python3\n")
    names = zipfile.ZipFile(io.BytesIO(again)).namelist()
    assert names == sorted(names)


def test_it_holds_what_it_needs_and_nothing_of_the_desk():
    modules = set(runner_modules())
    assert {"edgerecover.runner.main", "edgerecover.bundle.verify", "edgerecover.runtime.machine.fresh"} <= modules
    assert "edgerecover.runner.answers" in modules
    assert not {
        module for module in modules if module.split(".")[1:2] in (["models"], ["cli"], ["config"], ["recover"])
    }


def test_every_module_is_written_for_python_3_10():
    archive = zipfile.ZipFile(io.BytesIO(runner_pyz()))
    for name in archive.namelist():
        ast.parse(archive.read(name), name, feature_version=(3, 10))


def test_it_runs_with_numpy_and_onnxruntime_alone(make_bundle, bare_python, pyz, tmp_path):
    for name in (*FORBIDDEN, "edgerecover"):
        assert run(bare_python, "-c", f"import {name}", cwd=tmp_path).returncode != 0
    done = run(bare_python, pyz, make_bundle(), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verdict"] == "pass"
    assert result["tried"][0]["latency"]["samples_ms"]
    assert json.loads((tmp_path / "result.json").read_text())["manifest_sha256"] == result["manifest_sha256"]


def test_it_runs_with_numpy_and_mnn_alone(make_bundle, pyz, tmp_path):
    pytest.importorskip("_mnncengine", reason="MNN is an extra")
    bare_python = bare(tmp_path / "venv", "numpy", "MNN", "_mnncengine", "_tools")
    for name in ("onnxruntime", "edgerecover"):
        assert run(bare_python, "-c", f"import {name}", cwd=tmp_path).returncode != 0
    onnx, mnn = tmp_path / "net.onnx", tmp_path / "net.mnn"
    bundle = make_bundle(task={"also_runtimes": ["mnn"]})
    onnx.write_bytes((bundle / "model.onnx").read_bytes())
    convert(onnx, mnn)
    bundle = make_bundle("with mnn.bundle", task={"also_runtimes": ["mnn"]}, mnn__fp32_mnn=mnn)
    done = run(bare_python, pyz, bundle, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (absent, ran) = result["tried"]
    assert "onnxruntime cannot be imported" in absent["error"]
    assert (ran["path"], ran["runtime"], ran["golden"]["same_decisions"]) == ("mnn/fp32.mnn", "mnn", 8)
    assert ran["latency"]["samples_ms"]
    assert result["fastest"] == 1


def test_another_edgerecover_that_is_installed_is_not_used(make_bundle, pyz, tmp_path):
    """Neither by the runner nor by the processes that it starts."""
    other = tmp_path / "other" / "edgerecover"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the installed one was imported')\n")
    done = run(sys.executable, pyz, make_bundle(), "--quiet", cwd=tmp_path, PYTHONPATH=str(other.parent))
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout


def test_a_read_only_bundle_in_the_current_folder(make_bundle, tmp_path):
    bundle = make_bundle()
    files = [bundle, *bundle.rglob("*")]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = run(sys.executable, "runner.pyz", ".", "--out", tmp_path / "r.json", cwd=bundle)
    finally:
        for path in files:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "\x1b" not in done.stdout
    from edgerecover.bundle.verify import verify_bundle

    verify_bundle(bundle)


def test_python_without_numpy_is_told_what_to_install(make_bundle, pyz, tmp_path):
    done = run(sys.executable, "-S", pyz, make_bundle(), cwd=tmp_path)
    assert done.returncode == 3
    assert "numpy" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.9"])
def test_an_old_python_gets_a_message(pyz, tmp_path, version):
    found = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), *Path("/usr/bin").glob(f"python{version}")]
    if not found:
        pytest.skip(f"there is no Python {version} here")
    done = run(found[0], pyz, "bundle", cwd=tmp_path)
    assert done.returncode == 3
    assert f"this is Python {version}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_bare_python_3_10_with_numpy_and_onnxruntime_alone(make_bundle, tmp_path):
    """As on JetPack 6. Wheels come from the package index."""
    pythons = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python"))
    python = pythons[-1] if pythons else shutil.which("python3.10") or sys.executable
    made = run(python, "-m", "venv", tmp_path / "bare", cwd=tmp_path)
    if made.returncode:
        pytest.skip(f"{python} makes no environment: {made.stderr.strip()[-200:]}")
    bare = tmp_path / "bare" / "bin" / "python"
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "HOME"}
    got = run(bare, "-m", "pip", "install", "--quiet", "numpy", "onnxruntime", cwd=tmp_path, **settings)
    if got.returncode:
        pytest.skip(f"pip could not get the wheels: {got.stderr.strip()[-200:]}")
    bundle = make_bundle()
    done = run(bare, bundle / "runner.pyz", bundle, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"
    listed = run(bare, "-m", "pip", "list", "--format=freeze", cwd=tmp_path).stdout.lower()
    assert not {line.split("==")[0] for line in listed.split()} & set(FORBIDDEN)

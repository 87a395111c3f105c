"""Architecture, proved where it matters: what `--help` loads, and what a device needs."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgerecover"
HEAVY = ("torch", "torchvision", "numpy", "onnx", "onnxruntime")  # Typer itself brings pydantic
DEVICE_SIDE = ("artifacts", "errors.py", "progress.py", "runtime", "bundle", "validation/gates.py")


def run_python(code: str, *, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from edgerecover.cli import main
sys.argv = ["edgerecover", *{arguments!r}]
try:
    main()
except SystemExit:
    pass
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
sys.exit(f"loaded {{loaded}}" if loaded else 0)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "edgerecover" in done.stdout.lower()


def modules_of(parts: tuple[str, ...]) -> list[str]:
    files = [
        f for part in parts for f in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).rglob("*.py"))
    ]
    names = [f.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".") for f in sorted(files)]
    return [name.removesuffix(".__init__") for name in names]


def test_device_side_imports_in_a_bare_environment(tmp_path: Path) -> None:
    """No package at all is installed there: anything beyond the standard library must be imported inside functions."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    bare = next(p for p in (tmp_path / "bare/bin/python", tmp_path / "bare/Scripts/python.exe") if p.exists())
    names = modules_of(DEVICE_SIDE)
    assert len(names) > 8
    done = run_python(f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)", python=str(bare))
    assert done.returncode == 0, done.stderr


def test_onnxruntime_reports_to_nobody(tmp_path: Path) -> None:
    """Its reporter keeps a session file among the temporary files, and an identifier in the home folder."""
    code = f"""
import os, sys
os.environ.update(TMPDIR={str(tmp_path)!r}, HOME={str(tmp_path)!r}, XDG_CACHE_HOME={str(tmp_path)!r})
for name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.pop(name, None)
from edgerecover.runtime.session.onnxruntime import import_onnxruntime
import_onnxruntime()
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())

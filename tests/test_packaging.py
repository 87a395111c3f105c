"""What a plain `pip install .` brings: the wheel carries targets, profiles, the demo and nothing of the workshop."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("edgerecover", "targets", "profiles"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_carries_what_a_run_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("targets", "profiles"):
        shipped = {f"edgerecover/_shipped/{folder}/{path.name}" for path in (REPOSITORY / folder).glob("*.toml")}
        assert shipped <= names
    package = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "edgerecover").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package <= names
    assert {name.split("/")[0] for name in names} <= {
        "edgerecover",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }


def test_an_installed_wheel_finds_its_targets_without_the_repository(wheel, tmp_path):
    """Unpacked elsewhere, as pip does; run with a Python that does not see this checkout's package first."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from edgerecover.config import load_profile, load_target, shipped_folder\n"
        "print(shipped_folder('targets')); load_target('jetson-orin'); load_profile('balanced')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "edgerecover/_shipped/targets")

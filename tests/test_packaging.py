"""What a plain `pip install .` brings: the wheel carries targets, profiles, the demo and nothing of the workshop."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

from tests.documentation import PAGES

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("edgerecover", "targets", "profiles", "docs"):
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
    pages = {
        f"edgerecover/_shipped/{path.relative_to(REPOSITORY).as_posix()}" for path in PAGES if path.stem != "index"
    }
    assert pages <= names
    assert not [name for name in names if name.startswith("edgerecover/_shipped/docs/images/")]
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
        "print(shipped_folder('targets')); load_target('jetson-orin'); load_profile('balanced')\n"
        "from edgerecover.cli import app; app(['help', 'words'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    folder, _, words = done.stdout.partition("\n")
    assert folder == str(tmp_path / "edgerecover/_shipped/targets")
    assert words.startswith("## Words\n")


# --- the container ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dockerfile():
    """The Dockerfile's instructions in order, each with its words."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def words_after(dockerfile, instruction):
    return [rest for first, *rest in dockerfile if first == instruction]


def test_the_container_has_a_python_that_the_package_allows(dockerfile, project):
    ((image,),) = words_after(dockerfile, "FROM")
    (version,) = re.fullmatch(r"python:(\d+\.\d+)-slim", image).groups()
    assert SpecifierSet(project["project"]["requires-python"]).contains(version)


def test_the_container_copies_what_the_wheel_is_built_from(dockerfile, project):
    copied = {source for *sources, _ in words_after(dockerfile, "COPY") for source in sources}
    wheel_settings = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    metadata = project["project"]
    assert copied == {
        "pyproject.toml", metadata["readme"], *metadata["license-files"],
        *wheel_settings["packages"], *(path.split("/")[0] for path in wheel_settings["force-include"]),
    }  # fmt: skip
    assert all((REPOSITORY / name).exists() for name in copied)
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_container_runs_the_command_and_not_as_root(dockerfile, project):
    ((entry,),) = words_after(dockerfile, "ENTRYPOINT")
    assert set(json.loads(entry)) <= project["project"]["scripts"].keys()
    ((user,),) = words_after(dockerfile, "USER")
    assert user != "root"
    assert ["useradd", "--create-home", user] in [words[:3] for words in words_after(dockerfile, "RUN")]


def test_the_page_lists_every_extra(project):
    page = (REPOSITORY / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == {
        *project["project"]["optional-dependencies"]
    } - {"dev", "docs"}

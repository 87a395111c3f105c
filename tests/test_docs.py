"""The documentation is a test subject: its commands run, its output is what they print, its tables are complete."""

import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edgerecover import errors
from edgerecover.bundle.manifest import OWN_NAMES
from edgerecover.config import Profile, Settings, WithoutNorms, load_profile, shipped_names
from edgerecover.demo import demo_files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
TUTORIAL = DOCS / "tutorial.md"
PAGES = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def first_cells(page):
    """Code in the first cell of every table row of a page, with the row's other cells."""
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {cell: [part.strip() for part in rest.split(" | ")] for cell, rest in rows}


# --- the pages and the way between them ---------------------------------------------------------------------


def anchors(page):
    """As GitHub makes them: lower case, without punctuation, dashes for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def local_links(page):
    """Resolved file and anchor of every link of a page that is not an address."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            yield link, (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_every_link_leads_somewhere(page):
    for link, target, anchor in local_links(page):
        assert target.exists(), f"{link}: no such file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_page_is_reachable_from_the_index():
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [target for _, target, _ in local_links(page) if target in PAGES]
    assert not set(PAGES) - reached


# --- reference ----------------------------------------------------------------------------------------------


def test_cli_reference_is_up_to_date():
    generated = script("generate_cli_reference").reference()
    assert (REFERENCE / "cli.md").read_text(encoding="utf-8") == generated, "run scripts/generate_cli_reference.py"


@pytest.mark.parametrize("name", ["profiles.md", "targets.md", "model-toml.md"])
def test_the_tables_of_keys_are_up_to_date(name):
    generated = script("generate_key_tables").pages()[name]
    assert (REFERENCE / name).read_text(encoding="utf-8") == generated, "run scripts/generate_key_tables.py"


def test_every_key_has_a_meaning():
    for name in ("profiles.md", "targets.md", "model-toml.md"):
        assert not re.findall(r"^\| `[\w.]+` \|.*\| \|$", (REFERENCE / name).read_text(encoding="utf-8"), re.MULTILINE)


def test_cli_reference_documents_every_command_and_option():
    import typer

    from edgerecover.cli import app

    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")

    def check(command, name):
        names = [*getattr(command, "commands", {})]
        assert names or f"## {name}\n" in page, name
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for option in command.params if section else []:
            if option.param_type_name == "option" and "completion" not in option.name:
                written = [re.search(rf"`{re.escape(spelling)}[`/]", section) for spelling in option.opts]
                assert all(written), f"{name} {option.opts}"
        for inner in names:
            check(command.commands[inner], f"{name} {inner}")

    check(typer.main.get_command(app), "edgerecover")


def keys_of(schema, prefix=""):
    """Dotted name and field of every key that a file may hold."""
    for name, field in schema.model_fields.items():
        if field.annotation == WithoutNorms | None:
            yield f"{prefix}{name}", field  # its keys are those of the tables that it changes
            continue
        tables = [t for t in (field.annotation, *get_args(field.annotation)) if is_table(t)]
        for table in tables:
            yield from keys_of(table, f"{prefix}{name}.")
        if not tables or not field.is_required():
            yield f"{prefix}{name}", field


def is_table(annotation):
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def as_written(default):
    if default is None:
        return "–"
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_profile_reference_has_every_key_with_its_default():
    rows = first_cells(REFERENCE / "profiles.md")
    keys = dict(keys_of(Profile))
    assert rows.keys() - set(shipped_names("profiles")) == {*keys, "extends"}
    for key, field in keys.items():
        default = "required" if field.is_required() else as_written(field.default)
        assert rows[key][1].strip('`"') == default, key


def test_profile_reference_lists_the_shipped_profiles():
    rows = first_cells(REFERENCE / "profiles.md")
    for name in shipped_names("profiles"):
        profile = load_profile(name)
        assert rows[name][:4] == [
            f"{profile.synthesis.num_train:,}",
            str(profile.synthesis.num_steps),
            f"{profile.recovery.num_steps:,}",
            f"{100 * profile.gates.min_agreement:g} %",
        ]


def test_exit_code_reference_lists_every_code():
    codes = {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert first_cells(REFERENCE / "exit-codes.md").keys() == codes


# --- tutorial -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One command of the tutorial and what it shows of the output."""

    command: str
    exact: str
    """Printed below the command: compared but for white space."""
    sample: str = ""
    """In text blocks further down: compared but for numbers and bars too, which differ from machine to machine."""
    exit_code: int = 0
    """What `echo $?` after it shows."""


def steps_of(page):
    steps = []
    for kind, body in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if kind == "text":
            steps[-1] = replace(steps[-1], sample=f"{steps[-1].sample}...{body}")
        if kind == "console":
            steps += steps_in(body)
    return steps


def steps_in(console):
    """The commands of one block, with what stands below each."""
    steps = []
    for piece in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, output = piece.partition("\n")
        if command == "echo $?":
            steps[-1] = replace(steps[-1], exit_code=int(output))
        else:
            steps.append(Step(command, output))
    return steps


def without_numbers(text):
    text = re.sub(r"\d+ (?:min \d+ s|h \d+ min)", "0 s", text)
    return re.sub(r"[█░─]+", "", re.sub(r"-?\d+(?:[.,]\d+)*(?:e-\d+)?", "#", text))


def shows(expected, output):
    """Whether the pieces between `...` stand in the output in this order; white space does not count."""
    position, output = 0, " ".join(output.split())
    for piece in expected.split("..."):
        wanted = " ".join(piece.split())
        position = output.find(wanted, position)
        if position < 0:
            return False
        position += len(wanted)
    return True


@pytest.fixture(scope="module")
def tutorial_folder(tmp_path_factory):
    """Where all commands of the tutorial have run, in order, each with the exit code and output that it shows."""
    if shutil.which("bash") is None:
        pytest.skip("the tutorial's commands are written for bash")
    folder = tmp_path_factory.mktemp("tutorial")
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "EDGERECOVER_TRUST_FILE": str(folder / "trusted.json"),
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
    for step in steps_of(TUTORIAL):
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=folder,
            env=environment,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        printed = f"{step.command}\nended with {done.returncode} and printed:\n{done.stdout}"
        assert done.returncode == step.exit_code, printed
        assert shows(step.exact, done.stdout), f"{printed}\ninstead of:\n{step.exact}"
        assert shows(without_numbers(step.sample), without_numbers(done.stdout)), f"{printed}\nnot like:\n{step.sample}"
    return folder


@pytest.mark.slow
def test_tutorial_runs_and_prints_what_it_shows(tutorial_folder):
    assert (tutorial_folder / "own" / "model.jetson-orin.bundle").is_dir()


@pytest.mark.slow
def test_bundle_reference_has_every_file_and_manifest_field(tutorial_folder):
    bundle = tutorial_folder / "own" / "model.jetson-orin.bundle"
    manifest, measurements = (
        json.loads((bundle / name).read_text()) for name in ("manifest.json", "measurements.json")
    )
    rows = first_cells(REFERENCE / "bundle.md").keys()
    files = [*manifest["files"], *measurements["files"]]
    found = {name.partition("/")[0] + "/" if name.startswith("variants/") else name for name in files}
    text = (REFERENCE / "bundle.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in manifest["lineage"])
    lineage = {row for row in rows if f"| `{row}`" in text.partition("### Lineage")[2].partition("\n## ")[0]}
    # Engines are built for RTX targets alone, and the demo is not signed.
    known = {*OWN_NAMES, "engines/", *found, *manifest, *measurements}
    assert rows - lineage == known - lineage


@pytest.mark.slow
def test_report_reference_has_every_gate_and_section(tutorial_folder):
    bundle = tutorial_folder / "own" / "model.jetson-orin.bundle"
    report = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    rows = first_cells(REFERENCE / "report.md").keys()
    assert rows >= {gate["name"] for gate in report["gates"]}
    page = (REFERENCE / "report.md").read_text(encoding="utf-8")
    for title in ("Stages", "Recovery", "Accuracy", "Exported file", "Latency", "Gates", "Warnings", "Verdict"):
        assert f"\n## {title}\n" in page


# --- commands of all other pages ----------------------------------------------------------------------------
#
# A command is a `bash` or `console` block. All of a page's run in one folder, the scene, which holds what such pages
# speak of: a pruned network and its dense one, exported files, bundles, labelled images. They run as they are written,
# but for the profile, which is `smoke`, and the precision, which is fp32: the whole way takes seconds. A command that
# stands on several pages runs once.

WITH_COMMANDS = sorted({*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"} - {TUTORIAL})

NOT_RUN = {
    "CONTRIBUTING.md": ["it installs from the package index", "it runs this very test"],
    "README.md": ["it installs from the package index", "it runs this very test"],
    "docs/explanation/benchmarks.md": ["it takes hours, and files that you have to bring"] * 4,
    "docs/how-to/add-a-target.md": ["it asks the device"],
    "docs/how-to/build-an-engine.md": ["it installs from the package index", "it needs a Jetson"],
    "docs/how-to/run-on-the-device.md": ["it needs a Jetson", "it needs a device to connect to"],
}
"""Blocks that stand under `<!-- not run: REASON -->`: all there are, so that none is added in silence."""

STAND_INS = {
    "3,224,224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": "1,8,8 --mean 0.3052 --std 0.3757",
    "--cores 0,1,2,3": "--cores 0",
}
"""Of what the pages say and the scene has not: it is small, and so may be the machine."""

_BLOCK = re.compile(r"((?:^ *<!-- [^\n]* -->\n)*)^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
_TAKES_PROFILE = ("run", "validate", "synthesize", "bench")


def named(page):
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    not_run: str = ""


def blocks_of(page):
    """All fenced blocks that are commands, and why some are not run."""
    found = []
    for comments, kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind in ("bash", "console"):
            reason = _NOT_RUN.search(comments)
            for said, meant in STAND_INS.items():
                text = text.replace(said, meant)
            found.append(Block(kind, textwrap.dedent(text), reason[1] if reason else ""))
    return found


def test_all_that_is_not_run_is_known():
    found = {
        named(page): [block.not_run for block in blocks_of(page) if block.not_run]
        for page in [*WITH_COMMANDS, TUTORIAL]
    }
    assert {page: reasons for page, reasons in found.items() if reasons} == NOT_RUN


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page.name != "cli.md"], ids=named)
def test_a_command_stands_in_a_block_of_commands(page):
    """Else nobody would run it. The command line reference has usages in blocks without a language."""
    for _, kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind not in ("bash", "console", "yaml"):
            assert not re.search(r"^\$? ?(edgerecover|pip|python3?) [a-z./-]", text, re.MULTILINE), text


# --- the scene ----------------------------------------------------------------------------------------------

_MODEL_TOML = """\
architecture = "nets.py:net"
teacher = "dense.pt"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[input]
shape = [1, 8, 8]
mean = [0.3052]
std = [0.3757]
"""


def edgerecover(arguments, folder, patch):
    """The command line in this process, as quick as it can be. Returns exit code and all that it printed."""
    from edgerecover.cli import main

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), patch.context() as inside:
        inside.chdir(folder)
        inside.setattr(sys, "argv", ["edgerecover", *quick(arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code or 0, printed.getvalue()


def quick(arguments):
    if arguments[0] not in _TAKES_PROFILE:
        return arguments
    without = [a for i, a in enumerate(arguments) if "--profile" not in (a, arguments[i - 1] if i else "")]
    one_file = ["--precision", "fp32"] if arguments[0] == "run" else []
    return [*without, "--profile", "smoke", *one_file]


@pytest.fixture(scope="module")
def patch(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"NO_COLOR": "1", "COLUMNS": "80", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}.items():
            patched.setenv(name, value)
        patched.setenv("EDGERECOVER_TRUST_FILE", str(tmp_path_factory.mktemp("trust") / "trusted.json"))
        yield pytest.MonkeyPatch


@pytest.fixture(scope="module")
def scene(tmp_path_factory, patch):
    """A user's folder after a run: made once, copied for each page."""
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("scene")
    files = demo_files()
    torch.save(load_file(files.pruned), folder / "model.pt")
    torch.save(load_file(files.dense), folder / "dense.pt")
    shutil.copy(folder / "model.pt", folder / "pruned.pt")
    (folder / "nets.py").write_text("from edgerecover.demo.network import digits_net as net\n")
    (folder / "model.toml").write_text(_MODEL_TOML)
    for other in ("dense.toml", "pruned.toml"):
        (folder / other).write_text(_MODEL_TOML)
    with np.load(files.test_images) as data:
        images, labels = data["images"], data["labels"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "images" / str(int(label)) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(image)).save(path)
    for line in ("trust .", "run model.pt --target jetson-orin --batch 0"):
        code, printed = edgerecover(shlex.split(line), folder, patch)
        assert code == 0, printed
    bundle = folder / "model.jetson-orin.bundle"
    for name in ("new.bundle", "old.bundle"):
        shutil.copytree(bundle, folder / name)
    for name in ("model.onnx", "dense.onnx"):
        shutil.copy(bundle / "model.onnx", folder / name)
    shutil.copy(bundle / "runner.pyz", folder / "runner.pyz")
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Folder of what stands for `edgerecover`, and for a user's own `ship`, where a shell is needed."""
    folder = tmp_path_factory.mktemp("bin")
    wrapper = folder / "edgerecover"
    wrapper.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom edgerecover.cli import main\n"
        f"if sys.argv[1] in {_TAKES_PROFILE!r}:\n    sys.argv += ['--profile', 'smoke']\nmain()\n"
    )
    wrapper.chmod(0o755)
    ship = folder / "ship"
    ship.write_text('#!/bin/sh\ntest -d "$1"\n')
    ship.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def already_run():
    """Commands that have run in a scene as every page finds it."""
    return set()


def simple_commands(text):
    """The lines of a block as arguments, where each is a command of edgerecover and nothing that a shell must read.

    Where the result goes (`> FILE` at the end) does not count.
    """
    text = re.sub(r" > [\w.-]+$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    commands = [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]
    is_simple = all(words[0] == "edgerecover" for words in commands) and not re.search(r"[|<>;&$`*]", text)
    return [words[1:] for words in commands] if is_simple else None


def in_a_shell(command, folder, programs):
    environment = os.environ | {
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment, encoding="utf-8", check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in WITH_COMMANDS if any(not block.not_run for block in blocks_of(page))], ids=named
)
def test_every_command_runs(page, scene, programs, patch, tmp_path, already_run):
    if shutil.which("bash") is None:
        pytest.skip("commands are written for bash")
    folder = tmp_path / "scene"
    shutil.copytree(scene, folder)
    own_files = files_in(page)
    for name, content in own_files.items():
        (folder / name).write_text(content, encoding="utf-8")
    edgerecover(["trust", "."], folder, patch)  # the copy is another folder
    for line in python_in(page):
        code, printed = in_a_shell(f"python - <<'END'\n{line}END", folder, programs)
        assert code == 0, printed
    for block in blocks_of(page):
        if block.not_run:
            continue
        if block.kind == "console":
            for step in steps_in(block.text):
                code, printed = in_a_shell(step.command, folder, programs)
                assert code == step.exit_code, f"{step.command}\n{printed}"
                assert shows(step.exact, printed), f"{step.command}\n{printed}\ninstead of:\n{step.exact}"
            continue
        commands = simple_commands(block.text)
        if commands is None:
            code, printed = in_a_shell(block.text, folder, programs)
            assert code == 0, f"{block.text}\n{printed}"
        for arguments in commands or ():
            if not own_files and tuple(arguments) in already_run:
                continue
            already_run.add(tuple(arguments))
            code, printed = edgerecover(arguments, folder, patch)
            assert code == 0, f"{shlex.join(arguments)}\n{printed}"


_LENETS = """\
from torch import nn

def net(width):
    return nn.Sequential(
        nn.Conv2d(1, width, 5), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(),
        nn.Linear(36 * width, 10),
    )

def lenet():
    return net(6)

def half():
    return net(3)
"""


def files_in(page):
    """What the page tells its reader to save, by name, and what else it takes for granted."""
    text = page.read_text(encoding="utf-8")
    saved = re.findall(
        r"Save (?:this|it) as `([\w.-]+\.toml)`.*?\n\n```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    if page.name == "distil-into-a-smaller-network.md":
        (model_toml, *_) = re.findall(r"^  ```toml\n(.*?)^  ```$", text, re.MULTILINE | re.DOTALL)
        return {"models.py": _LENETS, "model.toml": textwrap.dedent(model_toml)}
    if page.name == "add-a-target.md":
        example = (REFERENCE / "targets.md").read_text(encoding="utf-8")
        (own,) = re.findall(r"Save this as `door-camera.toml`.*?```toml\n(.*?)^```$", example, re.MULTILINE | re.DOTALL)
        return {"my-device.toml": own}
    return dict(saved)


def python_in(page):
    """Programs of the page that make what its commands need."""
    if page.name != "distil-into-a-smaller-network.md":
        return []
    text = page.read_text(encoding="utf-8")
    teacher = 'import torch\nfrom models import lenet\ntorch.save(lenet().state_dict(), "dense.pth")\n'
    return [teacher, *map(textwrap.dedent, re.findall(r"^  ```python\n(.*?)^  ```$", text, re.MULTILINE | re.DOTALL))]

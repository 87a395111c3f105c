"""The documentation is a test subject: its commands run, its output is what they print, its tables are complete."""

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from edgerecover import errors
from edgerecover.bundle.manifest import OWN_NAMES
from edgerecover.config import LimitsFile, Profile, ProfileGates, Settings, WithoutNorms, load_profile, shipped_names
from edgerecover.validation.limits import Limits
from tests.documentation import DOCS, FROM_NOTHING, PAGES, REFERENCE, ROOT, TUTORIAL, shows, steps_of, without_numbers
from tests.test_english import MODULES, text_of

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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_stand_where_the_page_says(page):
    """A path with a folder: from the top of the repository, or of the package."""
    named = re.findall(r"`((?:[\w.-]+/)+\w+\.py)`", page.read_text(encoding="utf-8"))
    missing = {path for path in named if not any((top / path).is_file() for top in (ROOT, ROOT / "edgerecover"))}
    assert missing <= OF_THE_READERS


OF_THE_READERS = {"own/network.py"}
"""Modules that pages speak of as a user's."""


# --- reference ----------------------------------------------------------------------------------------------


def test_cli_reference_is_up_to_date():
    generated = script("generate_cli_reference").reference()
    assert (REFERENCE / "cli.md").read_text(encoding="utf-8") == generated, "run scripts/generate_cli_reference.py"


def test_api_reference_is_up_to_date():
    generated = script("generate_api_reference").reference()
    assert (REFERENCE / "api.md").read_text(encoding="utf-8") == generated, "run scripts/generate_api_reference.py"


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


def test_gate_reference_has_every_limit():
    rows = first_cells(REFERENCE / "gate.md")
    assert rows.keys() >= set(LimitsFile.model_fields)


def test_a_limit_has_one_name_everywhere():
    of_profile, of_target = set(ProfileGates.model_fields), {"max_p99_ms", "max_file_mb", "max_memory_mb"}
    assert set(LimitsFile.model_fields) == of_profile | of_target
    assert set(LimitsFile.model_fields) <= {field.name for field in dataclasses.fields(Limits)}


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


PRINTED = ".printed.json"
"""Where the outputs of the tutorial's commands are kept, out of the sight of `ls`."""


@pytest.fixture(scope="module")
def tutorial_folder(tmp_path_factory):
    """Where all commands of the tutorial have run."""
    folder = tmp_path_factory.mktemp("tutorial")
    run_steps(TUTORIAL, folder)
    return folder


def run_steps(page, folder):
    """Run all commands of a page, in order, and check the exit code and output that it shows of each."""
    if shutil.which("bash") is None:
        pytest.skip("the commands are written for bash")
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "EDGERECOVER_TRUST_FILE": str(folder / "trusted.json"),
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
    printed_by = {}
    for step in steps_of(page):
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=folder,
            env=environment,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        printed_by[step.command] = done.stdout
        printed = f"{step.command}\nended with {done.returncode} and printed:\n{done.stdout}"
        assert done.returncode == step.exit_code, printed
        assert shows(step.exact, done.stdout), f"{printed}\ninstead of:\n{step.exact}"
        assert shows(without_numbers(step.sample), without_numbers(done.stdout)), f"{printed}\nnot like:\n{step.sample}"
    (folder / PRINTED).write_text(json.dumps(printed_by), encoding="utf-8")


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_prints(tutorial_folder):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- report -->\n```text\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    printed = json.loads((tutorial_folder / PRINTED).read_text(encoding="utf-8"))["edgerecover demo --out digits"]
    printed = printed.replace("digits/digits.", "edgerecover-demo/digits.")
    # Where it was computed, and in which arithmetic, is the machine's.
    shown, printed = (without_numbers(re.sub(r"cpu\s\([^)]*\)", "cpu", text)) for text in (shown, printed))
    assert shows(shown, printed), printed


@pytest.mark.slow
def test_tutorial_runs_and_prints_what_it_shows(tutorial_folder):
    assert (tutorial_folder / "own" / "model.jetson-orin.bundle").is_dir()


@pytest.mark.slow
def test_how_to_sign_and_verify(tmp_path):
    pytest.importorskip("model_signing", reason="signatures need the extra edgerecover[signing]")
    if shutil.which("openssl") is None:
        pytest.skip("the keys of the page are made with OpenSSL")
    run_steps(FROM_NOTHING[1], tmp_path)
    assert (tmp_path / "received" / "model.onnx").is_file()


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
    # Engines are built for RTX targets and NPUs alone, MNN's file where a target names it; the demo is not signed.
    known = {*OWN_NAMES, "engines/", "mnn/fp32.mnn", *found, *manifest, *measurements}
    assert rows - lineage == known - lineage


@pytest.mark.slow
def test_report_reference_has_every_gate_and_section(tutorial_folder):
    bundle = tutorial_folder / "own" / "model.jetson-orin.bundle"
    report = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    rows = first_cells(REFERENCE / "report.md").keys()
    assert rows >= {gate["name"] for gate in report["gates"]}
    page = (REFERENCE / "report.md").read_text(encoding="utf-8")
    for title in (
        "Stages",
        "From dense to deployed",
        "Accuracy",
        "Exported file",
        "Latency",
        "Gates",
        "Warnings",
        "Verdict",
    ):
        assert f"\n## {title}\n" in page


# --- troubleshooting ----------------------------------------------------------------------------------------

OF_THE_SYSTEM = {"No space left on device"}
"""Messages on the page that the operating system words."""


def test_messages_to_look_up_are_the_programs():
    page = (DOCS / "how-to" / "troubleshoot.md").read_text(encoding="utf-8")
    messages = [
        message
        for cell in re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", cell)
    ]
    source = "\n".join(text_of(module) for module in MODULES)
    source = re.sub(r"\{WORDS\[runtime\]\}", "TensorRT", " ".join(source.split()))
    pieces = {piece.strip() for message in messages for piece in message.split("…")} - {"", *OF_THE_SYSTEM}
    assert len(messages) >= 25
    assert not [piece for piece in pieces if piece not in source and piece.lower() not in source]


# --- choosing -----------------------------------------------------------------------------------------------


def test_numbers_to_choose_by_are_those_of_the_benchmarks():
    page = (DOCS / "how-to" / "choose-a-profile-pattern-and-sparsity.md").read_text(encoding="utf-8")
    benchmarks = (DOCS / "explanation" / "benchmarks.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- from benchmarks -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)", page)
    cells = [cell for table in tables for row in table.splitlines() for cell in row.split("|")[2:]]
    numbers = [number for cell in cells for number in re.findall(r"[\d.]+(?: ± [\d.]+|–[\d.]+)?", cell)]
    assert len(tables) == page.count("<!-- from benchmarks -->")
    assert len(numbers) >= 40
    assert not [number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", benchmarks)]


# --- words --------------------------------------------------------------------------------------------------

OF_OTHER_COMMANDS = {"archive", "build engine", "copy", "examine this machine", "record", "sign", "sweep"}
"""Tasks outside the stages of a report."""


def test_every_task_of_a_stage_is_explained():
    source = "\n".join(text_of(module) for module in MODULES)
    named = re.findall(r'\btask\(\s*"([^"]+)"', source) + re.findall(r'\btitle(?:: str)? ?= ?"(distil[^"]*)"', source)
    section = (REFERENCE / "report.md").read_text(encoding="utf-8").partition("\n## Words\n")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert set(explained) == {*named} - OF_OTHER_COMMANDS

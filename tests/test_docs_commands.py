"""Every command of the documentation runs, in the order of its page; what cannot be run here says why.

A command is a `bash` or `console` block. All of a page's run in one folder, the scene, which holds what such pages
speak of: a pruned network and its dense one, exported files, bundles, labelled images. They run as they are written,
but for the profile, which is `smoke`, and the precision, which is fp32: the whole way takes seconds. A command that
stands on several pages runs once. Pages that begin with nothing are the subject of
test_docs.py.
"""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgerecover.demo import demo_files
from tests import task_pages
from tests.documentation import FROM_NOTHING, PAGES, REFERENCE, ROOT, shows, steps_in

WITH_COMMANDS = sorted({*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"})

NOT_RUN = {
    "CONTRIBUTING.md": ["it installs from the package index", "it runs this very test", "it needs QEMU"],
    "README.md": [
        "it installs from the package index",
        "it needs a Jetson",
        "eight processes are too many for a test; docs/how-to/sweep.md runs a sweep",
        "it runs this very test",
    ],
    "docs/explanation/benchmarks.md": [
        *["it takes hours, and files that you have to bring"] * 4,
        "it takes an hour, and files that you have to bring",
        "it takes hours, and files that you have to bring",
        "minutes, and packages that you have to bring",
        "it takes QEMU, and packages for another processor",
        "it takes half an hour, and runtimes that are installed apart",
        "it takes hours, packages and images that you have to bring",
        "minutes, and files that you have to bring",
        "it takes packages and files that you have to bring",
        "minutes, and an idle core",
        "1,451 networks take hours",
        "50 runs and what follows them take half an hour of one core",
        "50,000 images of 224×224 are 7.5 GB on disk and half an hour",
    ],
    "docs/how-to/add-a-target.md": ["it asks the device"],
    "docs/how-to/build-an-engine.md": ["it installs from the package index", "it needs a Jetson"],
    "docs/how-to/from-torchvision-to-a-jetson.md": ["it downloads weights", *["it needs a Jetson"] * 2],
    "docs/how-to/install.md": [*["it installs from the package index"] * 3, *["it needs Docker"] * 2],
    "docs/how-to/many-gpus.md": [
        "it installs from the package index, and eight processes are too many for a test",
        "it needs two nodes",
        "it needs Slurm",
    ],
    "docs/how-to/recover-a-detector.md": ["there is no dense.pt of a detector here"],
    "docs/how-to/run-on-the-device.md": ["it needs a Jetson", "it needs a device to connect to"],
    "docs/how-to/sign-and-verify.md": [
        "it installs from the package index",
        "it needs the certificates of an authority",
        "it needs a network, and somebody who vouches for an identity",
    ],
    "docs/how-to/sweep.md": ["it needs Slurm", "it installs from the package index"],
}
"""Blocks that stand under `<!-- not run: REASON -->`: all there are, so that none is added in silence."""

STAND_INS = {
    "3,224,224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": "1,8,8 --mean 0.3052 --std 0.3757",
    "--cores 0,1,2,3": "--cores 0",
    "--sparsity 0.5,0.75,0.9": "--sparsity 0.5",
    "--pattern unstructured,2:4,channel": "--pattern unstructured",
    "--step 2": "--step 0",
    "--teacher resnet18.pth": "--teacher resnet18.pth --input-shape 3,32,32",
    "--target x86-cpu": "--target ./busy.toml",
}
"""Of what the pages say and the scene has not: it is small, and so may be the machine, or busy."""

_BLOCK = re.compile(r"((?:^ *<!-- [^\n]* -->\n)*)^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
UNHURRIED = ("--no-measure", "--exit-zero")
"""Of the gate: what a race on a busy machine comes to is not what these pages are about."""
_TAKES_PROFILE = ("run", "sweep", "validate", "synthesize", "bench")


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
    found = {named(page): [block.not_run for block in blocks_of(page) if block.not_run] for page in WITH_COMMANDS}
    assert {page: reasons for page, reasons in found.items() if reasons} == NOT_RUN


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page.name != "cli.md"], ids=named)
def test_a_command_stands_in_a_block_of_commands(page):
    """Else nobody would run it. The command line reference has usages in blocks without a language."""
    for _, kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind not in ("bash", "console", "yaml"):
            assert not re.search(r"^\$? ?(edgerecover|pip|python3?) [a-z./-]", text, re.MULTILINE), text


THE_RUN = ("run", "--target", "jetson-orin", "model.pt")
"""What the scene is made with; pages that say it have nothing to add."""

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


_BUSY_TOML = """\
extends = "x86-cpu"
name = "x86-cpu"
description = "This machine, whatever it is busy with besides"
[max_p99_ms]
value = 60000
source = "choice: how fast this machine is, is not what the pages are about"
"""


ROOMY_DISK = shutil.disk_usage("/")._replace(free=10**12)


def edgerecover(arguments, folder, patch):
    """The command line in this process, as quick as it can be. Returns exit code and all that it printed."""
    from edgerecover.cli import main

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), patch.context() as inside:
        inside.chdir(folder)
        inside.setattr(sys, "argv", ["edgerecover", *quick(arguments)])
        inside.setattr(shutil, "disk_usage", lambda path: ROOMY_DISK)  # `doctor` is not asked about the tests' machine
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code or 0, printed.getvalue()


def quick(arguments):
    if arguments[0] == "gate":
        return [*arguments, *UNHURRIED]
    if arguments[0] not in _TAKES_PROFILE:
        return arguments
    without = [a for i, a in enumerate(arguments) if "--profile" not in (a, arguments[i - 1] if i else "")]
    one_file = ["--precision", "fp32"] if arguments[0] in ("run", "sweep") else []
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
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
    from PIL import Image
    from safetensors.torch import load_file

    from edgerecover.artifacts import InputSpec
    from edgerecover.demo.network import digits_net
    from edgerecover.export.onnx import export

    folder = tmp_path_factory.mktemp("scene")
    files = demo_files()
    torch.save(load_file(files.pruned), folder / "model.pt")
    torch.save(load_file(files.dense), folder / "dense.pt")
    shutil.copy(folder / "model.pt", folder / "pruned.pt")
    (folder / "nets.py").write_text("from edgerecover.demo.network import digits_net as net\n")
    (folder / "model.toml").write_text(_MODEL_TOML)
    (folder / "busy.toml").write_text(_BUSY_TOML)
    for other in ("dense.toml", "pruned.toml"):
        (folder / other).write_text(_MODEL_TOML)
    with np.load(files.test_images) as data:
        images, labels = data["images"], data["labels"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "photos" / str(int(label)) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(image)).save(path)
    for arguments in (["trust", "."], list(THE_RUN)):
        code, printed = edgerecover(arguments, folder, patch)
        assert code == 0, printed
    bundle = folder / "model.jetson-orin.bundle"
    for name in ("new.bundle", "old.bundle", "releases/last.bundle", "digits.onnx-generic.bundle", "other.bundle"):
        shutil.copytree(bundle, folder / name)
    for name in ("model.onnx", "dense.onnx"):
        shutil.copy(bundle / "model.onnx", folder / name)
    shutil.copy(bundle / "runner.pyz", folder / "runner.pyz")
    key = generate_private_key(SECP256R1())
    network = digits_net()
    network.load_state_dict(load_file(files.dense))
    export(network.eval(), InputSpec((1, 8, 8), (0.3052,), (0.3757,)), folder / "open-batch.onnx", opset=18, batch=None)
    (folder / "release.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    (folder / "release.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Folder of what stands for `edgerecover` where a shell is needed."""
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
    return {THE_RUN}


def simple_commands(text):
    """The lines of a block as arguments, where each is a command of edgerecover and nothing that a shell must read.

    Where the result goes at the end (`> FILE`, `&& ship BUNDLE`) does not count.
    """
    text = re.sub(r" (>|&& ship) [\w.-]+$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
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


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page.name == "README.md" else pytest.mark.slow)
        for page in WITH_COMMANDS
        if page not in FROM_NOTHING and any(not block.not_run for block in blocks_of(page))
    ],
    ids=named,
)
def test_every_command_runs(page, scene, programs, patch, tmp_path, already_run):
    if shutil.which("bash") is None:
        pytest.skip("commands are written for bash")
    folder = tmp_path / "scene"
    shutil.copytree(scene, folder)
    own_files = files_in(page)
    for name, content in own_files.items():
        (folder / name).unlink() if content is None else (folder / name).write_text(content, encoding="utf-8")
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


_TASK_NETWORKS = """\
from tests.task_pages import Card as card, Defects as defects, DigitsNet as faces, Gauge as gauge, Parts as parts
from tests.task_pages import Street as street, Tags as tags
"""
_DIGITS_INPUT = "[input]\nshape = [1, 8, 8]\nmean = [0.3052]\nstd = [0.3757]\n"


def files_in(page):
    """What the page tells its reader to save, by name, and what else it takes for granted; None is not there."""
    text = page.read_text(encoding="utf-8")
    saved = re.findall(
        r"Save (?:this|it) as `([\w.-]+\.toml)`.*?\n\n```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    if page.name == "distil-into-a-smaller-network.md":
        (model_toml, *_) = re.findall(r"^  ```toml\n(.*?)^  ```$", text, re.MULTILINE | re.DOTALL)
        return {"models.py": _LENETS, "model.toml": textwrap.dedent(model_toml), "dense.toml": None}
    if page.name == "from-torchvision-to-a-jetson.md":
        return {"model.toml": None}
    if page.name == "add-a-target.md":
        example = (REFERENCE / "targets.md").read_text(encoding="utf-8")
        (own,) = re.findall(r"Save this as `door-camera.toml`.*?```toml\n(.*?)^```$", example, re.MULTILINE | re.DOTALL)
        return {"my-device.toml": own}
    if page.name in task_pages.PAGES:
        model_toml = re.sub(r"\[input\].*", _DIGITS_INPUT, dict(saved)["model.toml"], flags=re.DOTALL)
        return {"nets.py": _TASK_NETWORKS, "model.toml": model_toml, "dense.toml": None}
    return dict(saved)


def python_in(page):
    """Programs of the page that make what its commands need, and of what it downloads."""
    if page.name == "from-torchvision-to-a-jetson.md":
        # Recognised like any other, and recovered in a tenth of the time.
        made = "torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), 'resnet18.pth')"
        return [f"import torch, torchvision\ntorch.manual_seed(0)\n{made}\n"]
    if page.name in task_pages.PAGES:
        return [f"from tests.task_pages import write_real_images\nwrite_real_images({page.name!r})\n"]
    if page.name != "distil-into-a-smaller-network.md":
        return []
    text = page.read_text(encoding="utf-8")
    teacher = 'import torch\nfrom models import lenet\ntorch.save(lenet().state_dict(), "dense.pth")\n'
    return [teacher, *map(textwrap.dedent, re.findall(r"^  ```python\n(.*?)^  ```$", text, re.MULTILINE | re.DOTALL))]

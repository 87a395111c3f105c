"""Mistakes at every command, and what is said about each: in the user's words, with what to do next."""

import io
import os
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file

from edgerecover.cli import app, main
from edgerecover.demo import demo_files
from edgerecover.errors import (
    pip_line,
    unwritable_hint,
)

FILES = {
    "text.txt": "hello",
    "bad.onnx": "hello" * 10,
    "kind.toml": 'extends = "balanced"\n[synthesis]\nnum_train = "many"\nsource = "dreams"\nlr = -1\n',
    "lists.toml": 'extends = "balanced"\n[synthesis]\nbetas = [0.1, 0.2, 0.3]\nclamp = "x"\n'
    '[recovery]\nflip = "maybe"\n',
    "parent.toml": 'extends = "balancd"\n',
    "number.toml": "extends = 3\n",
    "table.toml": 'extends = "balanced"\nsynthesis = 3\n',
    "name.toml": 'extends = "balanced"\nname = "Big Name"\n',
    "little.toml": 'name = "x"\n',
    "fact.toml": 'extends = "jetson-orin"\nopset = 17\n',
    "facts.toml": 'extends = "jetson-orin"\nopset = { value = 99, source = "short" }\n'
    'precisions = { value = ["fp8"], source = "somewhere" }\n',
    "limits.toml": 'min_agreement = "high"\n',
    "sides/model.toml": "[input]\nshape = [3, 224]\n",
    "batch/model.toml": "[input]\nshape = [1, 3, 224, 224]\n",
    "channels/model.toml": "[input]\nshape = [1, 8, 8]\nmean = [0.1, 0.2]\n",
    "range/model.toml": "[input]\nshape = [1, 8, 8]\nrange = [1, 0]\n",
    "text/model.toml": 'classes = "ten"\n[input]\nshape = "1,8,8"\n',
}
NET = "--arch edgerecover.demo.network:digits_net --input-shape 1,8,8"
SCALED = f"{NET} --mean 0.3052 --std 0.3757"
RUN = "run -t x86-cpu model.pt"

MISTAKES = {
    "run model.pt": ("--target is missing", "targets list"),
    "run -t": ("requires an argument",),
    "run -t jetson-orinn model.pt": ("did you mean 'jetson-orin'?", "targets list"),
    "run -t jetson model.pt": ("unknown target 'jetson'", "one of jetson-nano, jetson-orin,"),
    "run -t zzz model.pt": ("one of android-cpu,",),
    "run -t x86-cpu -p quick model.pt": ("unknown profile 'quick' next:", "one of balanced, demo, fast,"),
    "run -t x86-cpu -p balancd model.pt": ("did you mean 'balanced'?",),
    "run -t x86-cpu -p nothere.toml model.pt": ("nothere.toml does not exist",),
    "run -t x86-cpu -p kind.toml model.pt": (
        "kind.toml:3: synthesis.num_train: expected a whole number (found 'many')",
        "kind.toml:4: synthesis.source: expected 'dream', 'shapes', 'fractal' or 'noise' (found 'dreams')",
        "kind.toml:5: synthesis.lr: must be more than 0 (found -1) next:",
        "profiles show balanced",
    ),
    "run -t x86-cpu -p lists.toml model.pt": (
        "synthesis.betas: expected at most 2 values (found [0.1, 0.2, 0.3])",
        "synthesis.clamp: expected 'pixel-range' or a number (found 'x')",
        "recovery.flip: expected true or false or 'auto' (found 'maybe')",
    ),
    "run -t x86-cpu -p parent.toml model.pt": ("did you mean 'balanced'?",),
    "run -t x86-cpu -p number.toml model.pt": ('extends = "balanced"',),
    "run -t x86-cpu -p table.toml model.pt": ("synthesis: expected a table of keys (found 3) next:",),
    "run -t x86-cpu -p name.toml model.pt": ("name: expected small letters",),
    "run -t x86-cpu -p little.toml model.pt": ("key 'description' is missing",),
    "run -t fact.toml model.pt": ("fact.toml:2: opset: expected a value with its source: opset = { value =",),
    "run -t facts.toml model.pt": (
        "opset.value: must be at most 28 (found 99)",
        "opset.source: expected at least 8 characters (found 'short')",
        "precisions.value.0: expected 'fp32', 'fp16' or 'int8' (found 'fp8') next:",
    ),
    "run -t x86-cpu nothere.pt": ("nothere.pt does not exist",),
    "run -t x86-cpu bad.onnx": ("edgerecover validate",),
    "run -t x86-cpu text.txt": ("torch.save(model.state_dict()",),
    "run -t x86-cpu .": ("give the path of one of them",),
    f"{RUN} --input-shape a,b,c": ("whole numbers C,H,W", "--input-shape 3,224,224"),
    f"{RUN} --input-shape 3x224x224": ("whole numbers C,H,W", "--input-shape 3,224,224"),
    f"{RUN} --input-shape 3,224": ("three numbers C,H,W", "found 2"),
    f"{RUN} --input-shape 1,3,224,224": ("no batch", "found 4"),
    f"{RUN} --input-shape 3,0,224": ("at least 1",),
    f"{RUN} --input-shape 3,224,224 --mean 0.5,0.5": ("each of 3 channels, found 2", "--mean 0.485,0.456,0.406"),
    f"{RUN} --input-shape 3,224,224 --mean nan,0,0": ("finite",),
    f"{RUN} --input-shape 3,224,224 --std 0,1,1": ("above 0", "--std 0.229,0.224,0.225"),
    f"{RUN} --input-shape 3,224,224 --pixel-range 255": ("lowest and the highest", "--pixel-range 0,255"),
    f"{RUN} --input-shape 3,224,224 --pixel-range 255,0": ("before the highest",),
    f"{RUN} --mean 0.5": ("need --input-shape",),
    f"{RUN} --batch two": ("--batch: expected a whole number (found 'two')",),
    f"{RUN} --batch -1": ("--batch: must be at least 0",),
    f"{RUN} --precision int4": ("--precision: 'int4' is not one of 'fp32', 'fp16', 'int8'",),
    f"{RUN} --task regresion": ("--task: 'regresion' is not one of", "did you mean regression?"),
    f"{RUN} --task tracking": ("--task: 'tracking' is not one of 'one-label', 'binary', 'multi-label'",),
    f"{RUN} --task age=binary,age=regression": ("output 'age' is named twice", "name each output once"),
    f"{RUN} --device gpu": ("--device: 'gpu' is not one of",),
    f"{RUN} --shape 3,224,224": ("no such option: --shape; did you mean --input-shape?",),
    f"{RUN} --force yes": ("not expected: (yes)",),
    f"{RUN} --sparsity half": ("--sparsity: expected a number",),
    f"{RUN} --sparsity 75": ("between 0 and 1",),
    f"{RUN} --pattern 4:2": ("is not one of",),
    f"{RUN} --pattern channel": ("--sparsity 0.75",),
    f"{RUN} --arch resnet50": ("did you mean torchvision:resnet50?",),
    f"{RUN} --arch torchvision:resnet99 --teacher dense.pt": ("did you mean 'resnet",),
    f"{RUN} --arch edgerecover.demo.network:digits_net": ("input is not known", "--input-shape"),
    f"{RUN} --arch resnet50 --input-shape 1,8,8 --teacher dense.pt": ("torchvision:resnet50",),
    f"{RUN} --arch nothere.py:net --input-shape 1,8,8 --teacher dense.pt": ("nothere.py",),
    f"{RUN} {NET} --teacher nothere.pt": ("nothere.pt",),
    f"{RUN} {SCALED} --teacher dense.pt --record text.txt": ("edgerecover record TEACHER"),
    f"{RUN} --on user@host": ("ssh://user@host",),
    f"{RUN} --on ssh://h --ssh-config nothere": ("nothere does not exist",),
    f"{RUN} --sign-key nothere.pem": ("nothere.pem",),
    "run -t x86-cpu sides/model.pt": ("input.shape: too few values (found [3, 224])", "shape = [3, 224, 224]"),
    "run -t x86-cpu batch/model.pt": ("input.shape: expected at most 3 values",),
    "run -t x86-cpu channels/model.pt": ("mean has 2 values for 1 channel",),
    "run -t x86-cpu range/model.pt": ("the lowest pixel must come before the highest",),
    "run -t x86-cpu text/model.pt": ("classes: expected a list in square brackets (found 'ten')",),
    "runn model.pt": ("Did you mean 'run'",),
    "sweep": ("MODEL is missing",),
    "sweep model.pt": ("--target is missing", "targets list"),
    "sweep model.pt -t x86-cpu --sparsity 0.5,high": ("--sparsity 0.5,0.75",),
    "sweep model.pt -t x86-cpu --pattern random --sparsity 0.5": ("one of unstructured,",),
    "sweep model.pt -t x86-cpu --pattern ,": ("--pattern unstructured,2:4",),
    "sweep model.pt -t x86-cpu -p smoke,": ("--profile fast,balanced",),
    "sweep --collect nothere": ("edgerecover sweep --out",),
    "validate model.pt -t x86-cpu": ("is not an ONNX file",),
    "validate bad.onnx -t x86-cpu --on ssh://me@board": ("--out",),
    "synthesize nothere.pt -o images": ("does not exist",),
    "synthesize dense.pt -o images --set test": ("'held-back'",),
    "synthesize dense.pt": ("--out is missing",),
    "inspect": ("MODEL is missing",),
    "targets show": ("NAME is missing",),
    "gate": ("BUNDLE is missing",),
    "compare a.bundle": ("B is missing",),
    "prune dense.pt -o out.onnx --sparsity 0.5": ("--out out.safetensors",),
    "prune dense.pt -o dense.pt --sparsity 0.5": ("--force",),
    "prune dense.pt -o out.pt": ("--sparsity 0.75",),
    f"prune dense.pt -o no/out.pt --sparsity 0.5 {NET}": ("a folder that is there",),
    "record dense.pt --data text.txt --out a.pt": ("--out a.safetensors",),
    f"{RUN} --arch edgerecover.demo.network:digits_net --input-shape 28,28,1 --teacher dense.pt": (
        "--input-shape 1,28,28",
    ),
    f"{RUN} {NET} --mean 77 --std 96": ("--mean 77 is far from every pixel", "--pixel-range 0,255"),
    f"record dense.pt --data text.txt {SCALED}": ("text.txt",),
    "bench nothere.onnx": ("does not exist",),
    "bench model.pt": ("is a checkpoint", "edgerecover run"),
    "bench bad.onnx --threads many": ("--threads 1,2",),
    "bench bad.onnx --runtime tensorflow": ("one of onnxruntime,",),
    "bench bad.onnx --input-shape 3,224": ("--input-shape 3,224,224",),
    "gate nothere": ("a bundle is",),
    "gate . --limits limits.toml": ("min_agreement: expected a number (found 'high')",),
    f"record dense.pt --data no --out no/a.safetensors {SCALED}": ("no",),
    "gate . --junit no/junit.xml": ("a bundle is",),
    "gate . --seconds 100": ("--seconds: must be at most 60",),
    "gate . --identity a": ("given together",),
    "compare nothere alsonot": ("a bundle is",),
    "inspect text.txt": ("torch.save",),
    "bundle verify text.txt": ("a bundle is",),
    "bundle sign .": ("--keyless",),
    "bundle unpack text.txt": ("--out",),
    "engine build nothere.onnx -t rtx-40": ("nothere.onnx",),
    "engine show text.txt": ("engine build",),
    "targets show jetson": ("one of jetson-nano",),
    "profiles show quick": ("one of balanced",),
    "trust nothere": ("is not a folder",),
    "doctor -t jetson": ("one of jetson-nano",),
    "demo -o text.txt": ("a part of that path is a file",),
}
FORBIDDEN = (
    *("Input should", "Tuple should", "String should", "Value error", "valid dictionary", "Fact[", "FieldInfo"),
    *("literal[", "constrained", "pydantic", "Traceback", "internal error", "free some space", "ModelProto"),
)


def flags_of(command):
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from flags_of(inner)


FLAGS = set(flags_of(typer.main.get_command(app))) | {"--help", "--install-completion", "--show-completion"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("mistakes")
    torch.save(load_file(demo_files().pruned), made / "model.pt")
    torch.save(load_file(demo_files().dense), made / "dense.pt")
    for name, text in FILES.items():
        path = made / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.name == "model.toml":
            shutil.copy(made / "model.pt", path.parent)
    return made


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_told_in_the_users_words(line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["edgerecover", *line.split()])
    before = sorted(folder.rglob("*"))
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr), pytest.raises(SystemExit) as ended:
        main()
    said = " ".join(stderr.getvalue().split())
    assert ended.value.code == 2, said
    assert stdout.getvalue() == ""
    assert "error: " in said
    assert "next: " in said
    for words in MISTAKES[line]:
        assert words in said
    for words in FORBIDDEN:
        assert words not in said
    assert set(re.findall(r"--[a-z][a-z0-9-]*", said)) <= FLAGS | set(line.split()), "a flag that there is not"
    assert sorted(folder.rglob("*")) == before


def test_what_to_install_names_this_python(monkeypatch, tmp_path):
    here = tmp_path.resolve() / "env" / "bin" / "python"
    here.parent.mkdir(parents=True)
    here.touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(here))
    monkeypatch.setenv("PATH", str(here.parent))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert pip_line("install numpy") == "python -m pip install numpy"
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pip_line("install numpy") == f"{here} -m pip install numpy"
    monkeypatch.chdir(here.parent.parent)
    assert pip_line("install numpy") == f"{here.relative_to(Path.cwd())} -m pip install numpy"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/uv" if name == "uv" else None)
    assert pip_line("install numpy") == f"uv pip install --python {here.relative_to(Path.cwd())} numpy"


@pytest.mark.parametrize(
    ("name", "words"),
    [("ENOSPC", "free some space"), ("EROFS", "may not write"), ("EACCES", "may not write"), ("ENOTDIR", "is a file")],
)
def test_a_hint_about_writing_fits_its_cause(name, words):
    import errno

    hint = unwritable_hint(OSError(getattr(errno, name), os.strerror(getattr(errno, name))), "write elsewhere")
    assert words in hint
    assert hint.endswith("write elsewhere")

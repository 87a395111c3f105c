"""The names that `edgerecover` exports: light to import, typed, and the same as the command line's."""

import inspect as introspection
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import edgerecover
from edgerecover import api
from edgerecover.cli import app

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    edgerecover.recover: "run",
    edgerecover.validate: "validate",
    edgerecover.inspect: "inspect",
    edgerecover.prune: "prune",
    edgerecover.dream: "synthesize",
}
RENAMED = {"run_folder": "work", "student": "model", "num_images": "", "masks": "", "classes": "", "progress": ""}
"""Parameters that are called otherwise than the flag, or have none."""
ONLY_ON_THE_COMMAND_LINE = {
    "run": {"on", "ssh_config", "device_python", "sign_key", "archive", "dry_run"},
    "validate": {"on", "ssh_config", "device_python"},
    "inspect": set(),
    "prune": {"out", "force"},
    "synthesize": {"out", "sets"},
}
"""A flag that is missing in Python is missing on purpose: devices, signatures and estimates have their commands."""
ABOUT_PRINTING = {"as_json", "events", "quiet"}


def options_of(command):
    return {parameter.name: parameter for parameter in typer.main.get_command(app).commands[command].params}


@pytest.mark.parametrize("function", COMMANDS, ids=lambda function: function.__name__)
def test_parameters_and_defaults_are_the_command_lines(function):
    options = options_of(COMMANDS[function])
    seen = ABOUT_PRINTING | ONLY_ON_THE_COMMAND_LINE[COMMANDS[function]]
    for name, parameter in introspection.signature(function).parameters.items():
        flag = name if name in options else RENAMED[name]
        if not flag:
            continue
        seen.add(flag)
        option, default = options[flag], parameter.default
        if option.required:
            assert default in (parameter.empty, None), name
        elif flag != "force":
            assert (default or None) == (option.default or None), name
    assert set(options) - {"help"} - seen == set(), "a parameter is missing in Python, or stands in no list here"


@pytest.mark.parametrize("function", COMMANDS, ids=lambda function: function.__name__)
def test_every_parameter_is_explained(function):
    explained = function.__doc__.partition("Args:")[2].partition("Raises:")[0]
    for name in introspection.signature(function).parameters:
        assert f"        {name}: " in explained, name
    assert "EdgeRecoverError: " in function.__doc__.partition("Raises:")[2]


def test_names_are_found_by_completion():
    assert set(edgerecover.__all__) <= set(dir(edgerecover))
    assert sorted({*api.__all__, "__version__"}) == sorted(edgerecover.__all__)
    assert edgerecover.recover is api.recover
    assert edgerecover.EdgeRecoverError.__module__ == "edgerecover.errors"
    with pytest.raises(AttributeError, match="has no attribute 'recovr'"):
        _ = edgerecover.recovr


def test_nothing_heavy_is_loaded_before_it_is_needed():
    code = """
import sys
import edgerecover
edgerecover.recover, edgerecover.open_bundle, edgerecover.Report
print(sorted({"torch", "numpy", "onnx", "onnxruntime", "rich", "pydantic", "typer", "IPython"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_package_of_ours_hides_a_function():
    """A package `edgerecover.recover` would take the function's place as soon as anything imported it."""
    for name in edgerecover.__all__:
        assert not (ROOT / "edgerecover" / name).exists()
        assert not (ROOT / "edgerecover" / f"{name}.py").exists()


TYPED = """
import torch
from torch import nn
import edgerecover
from edgerecover import EdgeRecoverError, RecoveryReport

def use(net: nn.Module) -> None:
    report: RecoveryReport = edgerecover.recover(net, "dense.pt", target="onnx-generic", input_shape=(3, 32, 32))
    network: nn.Module = report.model
    passed: bool = report.passed
    images: torch.Tensor = edgerecover.dream(net, 8).images
    reveal_type(edgerecover.open_bundle("a.bundle").signature)
"""
MISTYPED = """
edgerecover.recover(net, target="onnx-generic", profil="fast")
edgerecover.recover(net)
edgerecover.recovr(net)
edgerecover.prune(net, pattern="rows")
edgerecover.open_bundle("a.bundle").model
"""


@pytest.mark.slow
def test_type_checkers_see_the_signatures(tmp_path):
    typed, mistyped = tmp_path / "typed.py", tmp_path / "mistyped.py"
    typed.write_text(TYPED)
    mistyped.write_text(f"import edgerecover\nfrom torch import nn\nnet: nn.Module\n{MISTYPED}")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", typed, mistyped],
        cwd=tmp_path, env={"MYPYPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "error:" in line]
    assert all(line.startswith("mistyped.py") for line in lines), done.stdout + done.stderr
    assert [line.split("[")[-1] for line in lines] == [
        "call-arg]", "call-arg]", "attr-defined]", "arg-type]", "attr-defined]",
    ], done.stdout  # fmt: skip
    assert 'Revealed type is "str"' in done.stdout.replace("builtins.", "")

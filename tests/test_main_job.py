"""The whole job as users type it, each command a process of its own: two checkpoints in, a gated bundle out."""

import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgerecover.demo import demo_files

ROOT = Path(__file__).resolve().parents[1]
MODEL_TOML = """\
architecture = "nets.py:net"
teacher = "dense.pt"
[input]
shape = [1, 8, 8]
mean = [0.3052]
std = [0.3757]
"""
UNHURRIED = """\
extends = "{target}"
name = "{target}"
description = "Whatever this machine is busy with besides"
[max_p99_ms]
value = 60000
source = "choice: how fast this machine is, is not what is tested"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's: a pruned network, its dense one, their code, and what says how they belong together."""
    folder = tmp_path_factory.mktemp("project")
    torch.save(load_file(demo_files().pruned), folder / "model.pt")
    torch.save(load_file(demo_files().dense), folder / "dense.pt")
    (folder / "nets.py").write_text("from edgerecover.demo.network import digits_net as net\n")
    (folder / "model.toml").write_text(MODEL_TOML)
    return folder


def edgerecover(folder, *arguments, codes=(0,)):
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "EDGERECOVER_TRUST_FILE": str(folder / "trusted.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgerecover", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in codes, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.tensorrt
def test_from_two_checkpoints_to_a_gated_bundle(folder):
    """With an engine in every precision; without TensorRT-RTX, for a target that runs ONNX files."""
    has_rtx = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
    target, precisions = ("rtx-40", {"fp32", "fp16", "int8"}) if has_rtx else ("x86-cpu", {"fp32", "int8"})
    bundle = f"model.{target}.bundle"
    (folder / "unhurried.toml").write_text(UNHURRIED.format(target=target))
    edgerecover(folder, "trust", ".")
    images = str(demo_files().test_images)
    report = json.loads(
        edgerecover(folder, "run", "-t", "./unhurried.toml", "model.pt", "-p", "smoke", "--eval-data", images, "--json")
    )
    assert report["data_used"] == "eval-only"
    assert [stage["stage"] for stage in report["stages"] if not stage["reused"]] == [
        "load", "synthesize", "recover", "export", "precision", *(["engine"] if has_rtx else []), "race", "validate"
    ]  # fmt: skip
    assert report["accuracy"]["exported"]["hits"] > 2 * report["accuracy"]["pruned"]["hits"]
    given, recovered = (facts["layers"] for facts in (report["student"]["sparsity"], report["recovered_sparsity"]))
    assert [layer["num_zeros"] for layer in recovered] == [layer["num_zeros"] for layer in given]
    assert {runner["precision"] for runner in report["race"]["runners"]} >= precisions

    edgerecover(folder, "bundle", "verify", bundle)
    files = {path.relative_to(folder / bundle).as_posix() for path in (folder / bundle).rglob("*")}
    assert {"model.onnx", "runner.pyz", "golden/inputs.npy", "report.md", "manifest.json"} <= files
    assert ({f"engines/{precision}.engine" for precision in precisions} <= files) == has_rtx

    # Beside itself a bundle is no worse; 32 images and one race may leave open by how much (exit code 5).
    gate = ("gate", bundle, "--baseline", bundle, "--no-measure", "--junit", "gate.xml")
    edgerecover(folder, *gate, codes=(0, 5))
    verdicts = {case.get("name"): case for case in ET.parse(folder / "gate.xml").iter("testcase")}
    assert verdicts.keys() >= {"agreement", "mask_kept", "parity_top1", "size_regression", "latency_regression"}
    assert not [name for name, case in verdicts.items() if case.find("failure") is not None]
    (folder / "limits.toml").write_text("max_file_mb = 0.001\n")
    edgerecover(folder, *gate, "--limits", "limits.toml", codes=(1,))

"""The same run twice, each from nothing, gives the same manifest, and with it the same files.

Where the race decides alike, that is: which precision is shipped is measured. So the races here are held, and then told
by a stopwatch of the test's, which a busy machine cannot disturb.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from edgerecover.artifacts import sha256_of
from edgerecover.bundle.carry import pack_bundle
from edgerecover.bundle.verify import verify_bundle
from edgerecover.config import load_profile, load_target
from edgerecover.models.name.flags import ModelFlags
from edgerecover.stages import race as race_stage

NETWORK = """
from torch import nn
def tiny():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )
"""
STATED = """
architecture = "net.py:tiny"
teacher = "dense.pt"
licence = "Apache-2.0"
[input]
shape = [1, 8, 8]
mean = [0.0]
std = [1.0]
[card]
name = "tiny"
limitations = ["Untrained."]
"""
PROFILE = """
name = "tiny"
description = "As little as a run can do"
extends = "smoke"
[latency]
num_warmup = 1
min_queries = 5
min_duration_s = 0.01
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dense and a pruned network, and what is stated of them."""
    import torch
    from torch import nn

    folder = tmp_path_factory.mktemp("reproducible")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(NETWORK, made := {})
        network = made["tiny"]().train()
        for _ in range(3):
            network(torch.randn(64, 1, 8, 8))
        nn.init.normal_(network[5].weight)
    torch.save(network.state_dict(), folder / "dense.pt")
    weight = network.state_dict()["0.weight"]
    weight[weight.abs() < weight.abs().median()] = 0
    torch.save(network.state_dict(), folder / "model.pt")
    (folder / "net.py").write_text(NETWORK)
    (folder / "model.toml").write_text(STATED)
    (folder / "tiny.toml").write_text(PROFILE)
    return folder


def run(place: Path, out: Path, work: Path | None = None) -> Path:
    from edgerecover.commands.run import run as run_pipeline
    from edgerecover.stages.request import Request

    request = Request(
        flags=ModelFlags(trust_code=True),
        model_path=place / "model.pt",
        target=load_target("jetson-orin"),
        profile=load_profile(str(place / "tiny.toml")),
        out=out / "out.bundle",
        work=work or out / "work",
        device="cpu",
        seed=3,
    )
    out.mkdir()
    run_pipeline(request)
    return request.out


FASTER_WHEN_LOWER = {"fp32": 3.0, "fp16": 2.0, "int8": 1.0}
SLOWER_WHEN_LOWER = {"fp32": 1.0, "fp16": 2.0, "int8": 3.0}


def set_stopwatch(patch, median_ms):
    """Each precision takes the milliseconds given here, whatever it took."""
    hold = race_stage.race

    def told(raced):
        (ms,) = [ms for precision, ms in median_ms.items() if raced.name.startswith(precision)] or [4.0]
        samples_ms = (ms,) * len(raced.latency_or_error().samples_ms)
        return dataclasses.replace(raced, latency=dataclasses.replace(raced.latency, samples_ms=samples_ms))

    patch.setattr(race_stage, "race", lambda *args, **options: tuple(map(told, hold(*args, **options))))


@pytest.mark.slow
def test_the_same_run_twice(place, tmp_path, monkeypatch):
    """In other folders and at other times, with nothing reused; three precisions, of which a race ships one."""
    set_stopwatch(monkeypatch, FASTER_WHEN_LOWER)
    moved = Path(shutil.copytree(place, tmp_path / "moved"))
    first = run(place, tmp_path / "first")
    set_stopwatch(monkeypatch, {precision: 1.5 * ms for precision, ms in FASTER_WHEN_LOWER.items()})
    bundles = [first, run(moved, tmp_path / "second")]
    one, other = (verify_bundle(bundle) for bundle in bundles)
    assert one.manifest.files == other.manifest.files
    assert one.manifest_sha256 == other.manifest_sha256
    assert {path for path in one.files if path.endswith(".onnx")} == {
        "model.onnx",
        "variants/fp32.onnx",
        "variants/fp16.onnx",
    }
    assert one.measurements.files.keys() >= {"report.json", "report.md"}
    check_lineage(one)
    check_statements(bundles[0])
    reusing = verify_bundle(run(place, tmp_path / "third", work=tmp_path / "first" / "work"))
    assert reusing.manifest_sha256 == one.manifest_sha256, "what was kept is as what is made"
    archives = [pack_bundle(bundle, bundle.with_suffix(".tar")).path for bundle in bundles]
    assert verify_bundle(archives[0]).manifest_sha256 == verify_bundle(archives[1]).manifest_sha256
    check_another_winner(one, place, tmp_path, monkeypatch)


def check_another_winner(one, place, tmp_path, monkeypatch):
    """The same networks and images under other names: what differs tells which of the files is the model."""
    set_stopwatch(monkeypatch, SLOWER_WHEN_LOWER)
    other = verify_bundle(run(place, tmp_path / "fourth", work=tmp_path / "first" / "work"))
    (one_files, other_files) = ({name: entry.sha256 for name, entry in v.manifest.files.items()} for v in (one, other))
    assert one_files.keys() - other_files.keys() == {"variants/fp32.onnx"}
    assert other_files.keys() - one_files.keys() == {"variants/int8.onnx"}
    assert onnx_files(one_files) == onnx_files(other_files)
    differ = {name for name in one_files.keys() & other_files.keys() if one_files[name] != other_files[name]}
    told = {"bom.cdx.json", "model-card.md", "recipe.json", "runner.json"}
    assert differ == {"model.onnx", "golden/outputs.npy", *told}


def onnx_files(digests):
    return {sha256 for name, sha256 in digests.items() if name.endswith(".onnx")}


def check_lineage(verified):
    """Every parent is named, and every digest of a file that is in the bundle is that file's."""
    lineage = verified.fields["lineage"] | verified.manifest.fields["lineage"]
    for origin in lineage.values():
        assert set(origin["parents"]) <= lineage.keys()
        if origin["file"]:
            assert verified.files[origin["file"]].sha256 == origin["sha256"]
    shipped = next(name for name, origin in lineage.items() if origin["file"] == "model.onnx")
    ancestors, waiting = set(), [shipped]
    while waiting:
        name = waiting.pop()
        ancestors.add(name)
        waiting += lineage[name]["parents"]
    assert ancestors >= {"dense", "pruned", "recovered", "dreams/train", "dreams/calibration"}
    assert all(path in {origin["file"] for origin in lineage.values()} for path in ("model.onnx", "variants/fp16.onnx"))


def check_statements(bundle):
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert (manifest["licence"], manifest["card"]) == ("Apache-2.0", {"name": "tiny", "limitations": ["Untrained."]})
    assert manifest["data_used"] == "none"
    assert manifest["lineage"]["dense"]["sha256"] == sha256_of(bundle.parents[1] / "moved" / "dense.pt")
    assert "Untrained." in (bundle / "model-card.md").read_text(encoding="utf-8")
    bill = json.loads((bundle / "bom.cdx.json").read_bytes())
    assert bill["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": manifest["files"]["model.onnx"]["sha256"]}
    ]
    jsonschema = pytest.importorskip("jsonschema")
    schemas = Path(__file__).parents[2] / "edgerecover" / "bundle" / "schemas"
    for file, schema in (("manifest.json", "manifest-2.json"), ("measurements.json", "measurements-1.json")):
        document = json.loads((bundle / file).read_bytes())
        jsonschema.Draft202012Validator(json.loads((schemas / schema).read_text())).validate(document)
        assert document.keys() == json.loads((schemas / schema).read_text())["properties"].keys()

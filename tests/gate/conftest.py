import dataclasses
import json

import pytest

from edgerecover.artifacts import (
    Decisions,
    Exported,
    Fidelity,
    Fingerprint,
    Gate,
    GateStatus,
    Host,
    InputSpec,
    Latency,
    LayerSparsity,
    ModelFacts,
    Parity,
    Pattern,
    Proportion,
    Report,
    Rung,
    Sparsity,
    StageTime,
    SyntheticFacts,
    sha256_of,
    to_json,
)

CPU = "CPUExecutionProvider"
DREAMS = 100
LAYERS = Sparsity((LayerSparsity("conv.weight", (8, 3, 3, 3), 216, 108, Pattern.UNSTRUCTURED),), Pattern.UNSTRUCTURED)
MODEL = ModelFacts(
    "model.pt", "3f" * 32, 1000, "state_dict", "models.py:net", "model.toml", 261, 1, 5, False, False, LAYERS,
    InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3), "model.toml",
)  # fmt: skip
LATENCY = Latency(
    scope="one onnxruntime call",
    runtime="onnxruntime 1.31.1",
    provider=CPU,
    nodes_by_provider={CPU: 5},
    num_threads=1,
    batch=1,
    host=Host("x86_64", "AMD EPYC", 2, "Linux 6.8"),
    host_is_target=False,
    warmup_ms=(3.0,),
    samples_ms=(2.0, 2.01) * 60,
    load_ms=1.0,
    memory_before_bytes=50_000_000,
    memory_peak_bytes=60_000_000,
    round_sizes=(4,) * 30,
    fingerprint=Fingerprint({"cpu": "AMD EPYC", "cores": "2"}),
)


@pytest.fixture
def latency():
    """Of the reports that `make_report` makes."""
    return LATENCY


@pytest.fixture
def make_report():
    def make_report(
        *, digits="1" * 90 + "0" * 10, images="11" * 32, size_bytes=10_000, latency=LATENCY, sha256="0c" * 32, **other
    ):
        agreement = Proportion(digits.count("1"), len(digits))
        decisions = Decisions(images, digits) if images else None
        return Report(**{
            "edgerecover_version": "0.1.0",
            "created_utc": "2026-03-01T09:30:00+00:00",
            "seed": 0,
            "device": "cpu",
            "data_used": "none",
            "target": "toy",
            "target_description": "a toy",
            "profile": "toy",
            "student": MODEL,
            "teacher": dataclasses.replace(MODEL, path="dense.pt", sha256="a0" * 32),
            "recovered_sparsity": LAYERS,
            "synthetic": SyntheticFacts(64, DREAMS, DREAMS, 0.9, 8.0, reused=False),
            "rungs": (Rung("pruned", 0.4, 2.0, 0.0), Rung("distillation", 0.9, 0.2, 5.0, chosen=True)),
            "exported": Exported("model.onnx", sha256, size_bytes, 18, "dynamo", 1, 256, 128),
            "parity": Parity(DREAMS, 1e-6, 1e-7, 3.0, 1.0),
            "fidelity": Fidelity(Proportion(40, DREAMS), agreement, agreement, decisions=decisions),
            "latency": latency,
            "accuracy": None,
            "sparsity_verdict": "no speed-up",
            "gates": (
                Gate("agreement", GateStatus.PASS, 90.0, 50.0, "at least", "%", "profile toy", "as it was packed"),
                Gate("mask_kept", GateStatus.PASS, 0, 0, "at most", "", "edgerecover", "every pruned weight is zero"),
            ),
            "stages": (StageTime("validate", 1.0),),
            "warnings": (),
            "tool_versions": {},
            **other,
        })  # fmt: skip

    return make_report


@pytest.fixture
def make_release(make_bundle, make_report, write_onnx, tmp_path):
    """Packs a small classifier with a whole report, as `edgerecover run` does."""

    def make_release(name, *, limits=None, task=None, **report):
        model = write_onnx(tmp_path / "measured.onnx")
        made = make_report(**{"sha256": sha256_of(model), **report})
        return make_bundle(name, limits=limits, task=task, report_json=json.dumps(to_json(made)))

    return make_release

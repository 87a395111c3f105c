"""A student that is another network than its teacher, from a checkpoint to a verified bundle."""

import json

import numpy as np
import pytest
import torch

from edgerecover.bundle.verify import verify_bundle
from edgerecover.commands.run import run
from edgerecover.config import load_profile, load_target
from edgerecover.models.name.flags import ModelFlags
from edgerecover.pruning import Pruning, apply_masks, global_magnitude_masks
from edgerecover.stages.request import Request

NETS = """
from torch import nn

def block(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )

def teacher(num_classes=4):
    return nn.Sequential(
        *block(3, 16, 1), *block(16, 16, 2), *block(16, 16, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )

class Student(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.features = nn.Sequential(block(3, 8, 1), block(8, 8, 2))
        self.classifier = nn.Linear(8 * 16, num_classes)

    def forward(self, images_NCHW):
        return self.classifier(self.features(images_NCHW).flatten(1))
"""
TOML = """
architecture = "nets.py:Student"
teacher = "dense.pt"
teacher_architecture = "nets.py:teacher"
[input]
shape = [3, 8, 8]
mean = [0.45, 0.5, 0.55]
std = [0.2, 0.25, 0.3]
"""


@pytest.fixture
def profile(synthesis, recovery):
    smoke = load_profile("smoke")
    quick = smoke.latency.model_copy(update={"num_warmup": 1, "min_queries": 2, "min_duration_s": 0.0})
    recovery = recovery.model_copy(update={"num_steps": 80, "layerwise": True})
    return smoke.model_copy(update={"synthesis": synthesis, "recovery": recovery, "latency": quick})


@pytest.fixture
def folder(tmp_path, teacher):
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "model.toml").write_text(TOML)
    torch.save(teacher.state_dict(), tmp_path / "dense.pt")
    return tmp_path


@pytest.fixture
def from_scratch(folder):
    namespace = {}
    exec(NETS, namespace)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return namespace["Student"]()


@pytest.fixture
def report_of(folder, profile, real_images):
    """The report of a run on a student, judged on real images; the bundle is verified."""
    images_NCHW, labels_N = real_images
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.45, 0.5, 0.55), (0.2, 0.25, 0.3)))
    pixels = ((images_NCHW * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    np.savez(folder / "real.npz", images=pixels.permute(0, 2, 3, 1).numpy(), labels=labels_N.numpy())

    def report_of(student, **options):
        torch.save(student.state_dict(), folder / "model.pt")
        request = Request(
            folder / "model.pt",
            load_target("onnx-generic"),
            profile,
            folder / "out.bundle",
            folder / "work",
            flags=ModelFlags(trust_code=True),
            eval_data=folder / "real.npz",
            device="cpu",
            **options,
        )
        report = run(request)
        verify_bundle(folder / "out.bundle")
        return report

    return report_of


def test_a_smaller_network_from_scratch_learns_what_the_teacher_knows(from_scratch, report_of, folder):
    report = report_of(from_scratch)
    assert not report.same_architecture
    assert [rung.name for rung in report.rungs] == ["as it came", "statistics repair", "distillation"]
    accuracy = report.accuracy
    assert accuracy.teacher.value > 0.95
    assert accuracy.pruned.value < 0.5
    assert accuracy.exported.value > 0.8
    assert report.fidelity.predicted is None
    written = (folder / "out.bundle" / "report.md").read_text(encoding="utf-8")
    assert "nets.py:Student" in written
    assert "nets.py:teacher" in written
    assert "pruned input" not in written
    manifest = json.loads((folder / "out.bundle" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["architecture"], manifest["teacher_architecture"]) == ("nets.py:Student", "nets.py:teacher")
    warnings = " ".join(report.warnings)
    assert "of another architecture than its teacher (nets.py:teacher, model.toml)" in warnings
    assert "nothing was pruned" not in warnings
    assert "the pruned student" not in warnings


def test_its_zeros_stay_zero(from_scratch, report_of):
    apply_masks(from_scratch, global_magnitude_masks(from_scratch, 0.5))
    report = report_of(from_scratch)
    assert report.recovered_sparsity.num_zeros == report.student.sparsity.num_zeros > 0
    assert next(gate for gate in report.gates if gate.name == "mask_kept").measured == 0
    assert report.accuracy.exported.value > report.accuracy.pruned.value


@pytest.mark.slow
def test_it_can_be_pruned_first(from_scratch, report_of):
    """The teacher given stays the teacher: the dense student knows nothing."""
    report = report_of(from_scratch, pruning=Pruning("channel", 0.47))
    assert report.teacher.architecture == "nets.py:teacher"
    assert 0.3 < report.student.macs_kept < 0.6
    assert report.accuracy.exported.value > report.accuracy.pruned.value

"""torchvision's detectors through a whole run: what is exported, and what is returned to their makers' code."""

import numpy as np
import onnxruntime
import pytest
import torch
from torchvision import models

import edgerecover
from edgerecover.artifacts import TaskKind
from tests.detectors import MAKERS, MEAN, STD, draw

pytestmark = pytest.mark.slow


def recovered(network, tmp_path, **options):
    return edgerecover.recover(
        network, target="onnx-generic", profile="smoke", run_folder=tmp_path / "run", out=tmp_path / "a.bundle",
        progress=False, device="cpu", **options,
    )  # fmt: skip


def check(report, network):
    """The file gives what the recovered network has before suppression, which is of its makers' class."""
    assert report.details.teacher.output.task is TaskKind.DETECTION
    assert report.details.teacher.input_source
    assert any("without what surrounds it" in warning for warning in report.details.warnings)
    assert type(report.model) is type(network)
    network.load_state_dict(report.model.state_dict())
    session = onnxruntime.InferenceSession(report.bundle / "model.onnx", providers=["CPUExecutionProvider"])
    mean, std = (np.array(one, np.float32).reshape(1, -1, 1, 1) for one in (MEAN, STD))
    pixels = np.random.default_rng(0).random(session.get_inputs()[0].shape, np.float32)
    (outputs_NAV,) = session.run(None, {"input": (pixels - mean) / std})
    surest = float(1 / (1 + np.exp(-outputs_NAV[..., 4:].max())))
    with torch.no_grad():
        (found,) = network.eval()([torch.from_numpy(pixels[0])])
    assert surest == pytest.approx(float(found["scores"].max()), abs=1e-3)


@pytest.mark.parametrize("name", ["ssd", "fcos"])
def test_a_pruned_detector_is_recovered_and_exported(name, tmp_path):
    report = recovered(draw(MAKERS[name]()), tmp_path, sparsity=0.5)
    check(report, MAKERS[name]())


def test_channels_of_a_detector_with_frozen_batch_norm_are_pruned(tmp_path):
    dense = draw(MAKERS["frozen"]())
    report = recovered(dense, tmp_path, pattern="channel", sparsity=0.3)
    assert report.details.student.macs_kept == pytest.approx(0.7, abs=0.03)
    assert sum(one.numel() for one in report.model.parameters()) < sum(one.numel() for one in dense.parameters())


def test_ssdlite_is_recognised_and_goes_through(tmp_path):
    torch.manual_seed(0)
    network = models.detection.ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=3)
    torch.save(draw(network).state_dict(), tmp_path / "model.pt")
    report = recovered(tmp_path / "model.pt", tmp_path, sparsity=0.5, input_shape=(3, 64, 64))
    assert report.details.teacher.architecture == "torchvision:ssdlite320_mobilenet_v3_large"
    assert report.details.teacher.num_classes == 2
    assert report.details.teacher.input.mean == (0.5, 0.5, 0.5)
    again = models.detection.ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=3)
    again.load_state_dict(report.model.state_dict())

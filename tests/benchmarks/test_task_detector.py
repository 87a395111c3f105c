"""The benchmark's detector and its images, and a detector through a whole run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import task_detector
import torch
from task_training import TASKS, prepare
from task_truth import mean_box_f1

import edgerecover
from edgerecover.artifacts import InputSpec, TaskKind
from edgerecover.models.build.outputs import find_output
from edgerecover.models.name.spec import ModelSpec
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.truth import truth_of

INPUT = InputSpec((3, 64, 64), (0.5,) * 3, (0.2,) * 3)


def outputs_at(truth_NM5):
    """Outputs (N, 7, 64) whose cells see the true boxes."""
    outputs = np.zeros((len(truth_NM5), 7, 64), np.float32)
    outputs[:, 2:4] = 1
    for values_VA, boxes_M5 in zip(outputs, truth_NM5, strict=True):
        for label, left, top, right, bottom in boxes_M5[boxes_M5[:, 0] >= 0]:
            x, y = (left + right) / 2, (top + bottom) / 2
            cell = 8 * int(y // 8) + int(x // 8)
            values_VA[:4, cell] = x, y, right - left, bottom - top
            values_VA[4 + int(label), cell] = 0.9
    return outputs.reshape(len(outputs), -1)


def test_images_have_exact_boxes_and_the_network_can_give_them_all():
    images, boxes = task_detector.boxed_shapes(40, "test")
    again, _ = task_detector.boxed_shapes(40, "test")
    assert np.array_equal(images, again)
    assert not np.array_equal(images, task_detector.boxed_shapes(40, "train")[0])
    assert images.shape == (40, 64, 64, 3)
    torch.manual_seed(0)
    spec = ModelSpec("nets.py:detection", "--arch", Path(), None, INPUT, "--input-shape", None)
    output = find_output(task_detector.detection().eval(), INPUT, spec)
    assert output.task is TaskKind.DETECTION
    measure = measure_of(output)
    truth = truth_of("here", boxes, 40, output, None)
    assert measure.share_of_truth(measure.read(outputs_at(boxes)), truth).tolist() == [1] * 40
    assert set(boxes[..., 0].ravel().tolist()) == {-1, 0, 1, 2}


def test_boxes_hold_what_was_drawn(monkeypatch):
    monkeypatch.setattr(task_detector, "_surface", lambda random: np.full((64, 64, 3), 0.5))
    images, boxes = task_detector.boxed_shapes(20, "test")
    for image, rows in zip(images.astype(float), boxes, strict=True):
        is_drawn = np.zeros((64, 64), bool)
        for left, top, right, bottom in rows[rows[:, 0] >= 0, 1:].astype(int):
            is_drawn[top:bottom, left:right] = True
        assert np.abs(image[~is_drawn] - 127.5).max() < 40  # grain alone


def test_box_f1_reads_probabilities_and_logits_alike():
    _, boxes = task_detector.boxed_shapes(6, "test")
    outputs_NVA = outputs_at(boxes).reshape(6, 7, 64)
    assert mean_box_f1(outputs_NVA, boxes) == 1
    probabilities = np.clip(outputs_NVA[:, 4:], 1e-6, None)
    logits_NVA = np.concatenate([outputs_NVA[:, :4], np.log(probabilities / (1 - probabilities))], 1)
    assert mean_box_f1(logits_NVA.reshape(6, -1), boxes) == 1
    outputs_NVA[:3, 4:] = 0
    assert mean_box_f1(outputs_NVA, boxes) == 0.5


@pytest.mark.slow
def test_a_detector_goes_through_a_whole_run(tmp_path, monkeypatch):
    few = replace(TASKS["detection"], num_train=1500, num_test=100, num_steps=250)
    monkeypatch.setitem(TASKS, "detection", few)
    prepare("detection", Path(), tmp_path)
    report = edgerecover.recover(
        tmp_path / "dense.pt", target="onnx-generic", profile="smoke", sparsity=0.5, trust_code=True,
        eval_data=tmp_path / "test.npz", out=tmp_path / "a.bundle", progress=False,
    )  # fmt: skip
    assert report.details.teacher.num_classes == 3
    accuracy = report.details.accuracy
    assert accuracy.num_images == 100
    assert accuracy.teacher.value > 0.15  # it has learnt something
    assert accuracy.exported.value >= accuracy.pruned.value > 0
    assert report.details.fidelity.exported.value > 0
    (output,) = onnx.load(report.bundle / "model.onnx").graph.output
    assert [axis.dim_value for axis in output.type.tensor_type.shape.dim] == [1, 7, 64]
    assert "F1" in str(report)

"""A file from elsewhere and its teacher, opened."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.config import load_profile, load_target
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
from edgerecover.models.name.flags import ModelFlags
from edgerecover.stages.load_file import load_file
from edgerecover.stages.request import FileRequest

INPUT = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3)


class Mask(nn.Module):
    """One mask without an axis of classes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, images_NCHW):
        return self.conv(images_NCHW).squeeze(1)


@pytest.mark.parametrize(
    ("network", "task", "shape"),
    [(nn.Conv2d(3, 4, 1), None, (4, 8, 8)), (Mask(), TaskKind.SEGMENTATION, (1, 8, 8))],
)
def test_an_onnx_teacher_of_maps_is_read_as_such_and_its_report_too(network, task, shape, tmp_path):
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) + number)
    path = tmp_path / "net.onnx"
    export(network, INPUT, path, opset=18)
    flags = ModelFlags(input=INPUT, task=task)
    request = FileRequest(path, load_target("onnx-generic"), load_profile("smoke"), tmp_path, teacher=path, flags=flags)
    loaded = load_file(request)
    assert loaded.teacher.output == OutputSpec(TaskKind.SEGMENTATION, shape)
    assert loaded.teacher.facts.output == loaded.teacher.output


def test_an_onnx_teacher_from_images_to_images_is_asked_about(tmp_path):
    path = tmp_path / "net.onnx"
    export(nn.Conv2d(3, 3, 3, padding=1), INPUT, path, opset=18)
    target, profile = load_target("onnx-generic"), load_profile("smoke")
    request = FileRequest(path, target, profile, tmp_path, teacher=path, flags=ModelFlags(input=INPUT))
    with pytest.raises(BadInputError, match="which may be another image") as caught:
        load_file(request)
    assert "--task regression" in caught.value.hint
    named = replace(request, flags=ModelFlags(input=INPUT, task=TaskKind.REGRESSION))
    assert load_file(named).teacher.output == OutputSpec(TaskKind.REGRESSION, INPUT.shape)

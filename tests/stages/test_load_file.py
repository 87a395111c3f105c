"""A file from elsewhere and its teacher, opened."""

from dataclasses import replace

import numpy as np
import onnx
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
    assert (loaded.teacher.facts.input, loaded.teacher.facts.input_source) == (INPUT, "--input-shape")


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


HEADS = """
<ir_version: 8, opset_import: ["" : 17]>
heads (float[1, 3, 8, 8] input) => (OUTPUTS)
<float[3, 4] to_digit, float[3, 1] to_age>
{
    pooled = GlobalAveragePool(input)
    features = Flatten(pooled)
    digit = MatMul(features, to_digit)
    prob = Softmax(digit)
    top = ArgMax<axis = 1>(digit)
    age = MatMul(features, to_age)
}
"""
FLAGS = ModelFlags(input=INPUT)
STATED = {
    "digit": "float[1, 4]", "prob": "float[1, 4]", "top": "int64[1, 1]", "age": "float[1, 1]", "features": "float[1, 3]"
}  # fmt: skip


def judged(folder, outputs, flags=FLAGS, toml=""):
    """A file of these outputs beside itself as the teacher."""
    model = onnx.parser.parse_model(HEADS.replace("OUTPUTS", ", ".join(f"{STATED[name]} {name}" for name in outputs)))
    rng = np.random.default_rng(0)
    for tensor, shape in zip(("to_digit", "to_age"), ((3, 4), (3, 1)), strict=True):
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, tensor))
    path = folder / "net.onnx"
    onnx.save(model, path)
    path.with_name("model.toml").write_text(toml)
    target, profile = load_target("onnx-generic"), load_profile("smoke")
    return load_file(FileRequest(path, target, profile, folder, teacher=path, flags=flags))


@pytest.mark.parametrize("outputs", [("digit",), ("digit", "prob"), ("prob", "top", "digit"), ("top", "digit")])
def test_the_only_classifier_among_outputs_is_judged(tmp_path, outputs):
    loaded = judged(tmp_path, outputs)
    assert loaded.teacher.output == OutputSpec.one_label(4)


def test_outputs_that_may_all_be_meant_are_asked_about(tmp_path):
    with pytest.raises(BadInputError, match=r"several outputs, digit \(1, 4\), age \(1, 1\), .* is not said") as caught:
        judged(tmp_path, ("digit", "age"))
    assert "--task digit=TASK,age=TASK" in caught.value.hint
    with pytest.raises(BadInputError, match=r"features .* is not said"):
        judged(tmp_path, ("features", "digit"))
    of_one = ModelFlags(input=INPUT, task=TaskKind.BINARY)
    assert judged(tmp_path, ("digit", "age"), of_one).teacher.output == OutputSpec(TaskKind.BINARY, (1,))


def test_named_outputs_of_an_onnx_teacher_are_judged_together(tmp_path):
    tasks = {"age": TaskKind.REGRESSION, "digit": TaskKind.ONE_LABEL}
    toml = "[outputs.digit]\nweight = 2.0\nclasses = ['a', 'b', 'c', 'd']\n"
    loaded = judged(tmp_path, ("features", "digit", "age"), ModelFlags(input=INPUT, tasks=tasks), toml)
    output = loaded.teacher.output
    assert [(part.name, part.output.task, part.weight) for part in output.parts] == [
        ("digit", TaskKind.ONE_LABEL, 2.0),
        ("age", TaskKind.REGRESSION, 1.0),
    ]
    assert output.parts[0].classes == tuple("abcd")
    images_NCHW = np.random.default_rng(0).normal(size=(2, *INPUT.shape)).astype(np.float32)
    assert loaded.teacher.score(images_NCHW).shape == (2, 5)
    assert (loaded.session.run(images_NCHW) == loaded.teacher.score(images_NCHW)).all()


def test_an_output_that_is_left_out_is_not_found_for_its_size(tmp_path):
    loaded = judged(tmp_path, ("features", "digit"), toml="[outputs.features]\nweight = 0\n")
    assert loaded.teacher.output == replace(OutputSpec.one_label(4), name="digit")
    assert loaded.session.num_values == 4


def test_one_named_output_is_found_by_its_name(tmp_path):
    tasks = {"prob": TaskKind.ONE_LABEL}
    loaded = judged(tmp_path, ("digit", "prob"), ModelFlags(input=INPUT, tasks=tasks))
    assert loaded.teacher.output == replace(OutputSpec.one_label(4), name="prob")
    assert [loaded.session.outputs[index] for index in loaded.session.output_indices] == ["prob"]


@pytest.mark.parametrize(
    ("tasks", "toml", "message"),
    [
        ({"size": TaskKind.BINARY}, "", r"output 'size' is named, and its outputs are digit \(1, 4\), top integers"),
        ({"top": TaskKind.ONE_LABEL}, "", r"output top: it states integers \(1, 1\), which does not fit one-label"),
        ({}, "[outputs.age]\nweight = 2.0\n", r"output age: no task is named, and \(1, 1\) may be of several"),
        ({}, "[outputs.digit]\nclasses = ['a']\n", r"it gives 4 classes, but \[outputs.digit\] names 1"),
        ({}, "[outputs.digit]\nweight = 0\n[outputs.age]\nweight = 0\n", "none is left that can be judged"),
        ({}, "[outputs.digit]\nweight = 0\n", "output age: no task is named"),
        (
            {"digit": TaskKind.ONE_LABEL, "age": TaskKind.BINARY},
            "classes = ['a', 'b', 'c', 'd']\n",
            "several outputs, digit, age, .* names classes, but not of which",
        ),
    ],
)
def test_what_is_said_of_outputs_that_does_not_fit_is_refused(tmp_path, tasks, toml, message):
    with pytest.raises(BadInputError, match=message):
        judged(tmp_path, ("digit", "top", "age"), ModelFlags(input=INPUT, tasks=tasks), toml)

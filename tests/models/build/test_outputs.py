"""What a network gives is found from a few images; what fits no task, or two, is named."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import Activation, InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.outputs import find_output, with_classes
from edgerecover.models.name.flags import Said
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.network.outputs import as_it_is, as_rows, read_as_logits
from edgerecover.models.network.several_outputs import return_task_outputs

INPUT = InputSpec((3, 8, 16), (0.5,) * 3, (0.25,) * 3)


class Ending(nn.Module):
    """A convolution, pooled or not, and what comes last."""

    def __init__(self, last, num_outputs=8, *, pooled=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, num_outputs, 3, padding=1)
        self.last, self.pooled = last, pooled

    def forward(self, images_NCHW):
        maps_NCHW = self.conv(images_NCHW)
        return self.last(maps_NCHW.mean((2, 3)) if self.pooled else maps_NCHW)


def found(network, task=None, outputs=None, classes=None, classes_source="unknown"):
    spec = ModelSpec(
        "nets.py:make",
        "model.toml",
        base_dir=Path(),
        teacher_path=None,
        input=INPUT,
        input_source="model.toml",
        classes=classes,
        classes_source=classes_source,
        task=task,
        outputs=outputs or {},
    )
    return find_output(network.eval(), INPUT, spec)


def test_one_mask_may_lack_the_axis_of_its_classes():
    squeezed = Ending(lambda maps_N1HW: maps_N1HW.squeeze(1).sigmoid(), 1, pooled=False)
    expected = OutputSpec(TaskKind.SEGMENTATION, (1, 8, 16), Activation.SIGMOID)
    assert found(squeezed, TaskKind.SEGMENTATION) == expected
    with pytest.raises(BadInputError, match="one mask, points, or a sequence of vectors"):
        found(squeezed)


def test_vectors_of_length_one_are_embeddings():
    assert found(Ending(F.normalize)).task is TaskKind.EMBEDDING
    assert found(Ending(lambda logits_NK: logits_NK)).task is TaskKind.ONE_LABEL
    sure = Ending(lambda logits_NK: (1000 * logits_NK).softmax(1))
    assert found(sure).task is TaskKind.ONE_LABEL


def test_interpolated_sigmoids_are_sigmoids():
    mask = Ending(lambda maps_N1HW: F.interpolate(maps_N1HW.sigmoid(), scale_factor=2.0), 1, pooled=False)
    assert found(mask, TaskKind.SEGMENTATION).activation is Activation.SIGMOID


@pytest.mark.parametrize(
    ("last", "num_outputs", "message"),
    [
        (F.logsigmoid, 8, "LogSigmoid comes last, after which no score is above 0, so that every answer would be no"),
        (F.relu, 8, "Relu comes last, after which no score is below 0"),
        (lambda logits_NK: logits_NK.softmax(1), 8, "Softmax comes last"),
        (lambda logits_NK: logits_NK.softmax(1)[:, 1:], 8, "Softmax comes last"),
        (lambda logits_NK: 0.2 + 0.5 * logits_NK.sigmoid(), 8, "as probabilities do, but no sigmoid comes last"),
    ],
)
def test_scores_on_one_side_of_the_threshold_are_refused(last, num_outputs, message):
    with pytest.raises(BadInputError, match=message):
        found(Ending(last, num_outputs), TaskKind.MULTI_LABEL)


def test_scores_that_come_last_are_refused():
    with pytest.raises(BadInputError, match="height and width before the scores") as caught:
        found(Ending(lambda maps_NCHW: maps_NCHW.permute(0, 2, 3, 1), pooled=False))
    assert "permute(0, 3, 1, 2)" in caught.value.hint


def test_answers_are_told_from_scores():
    with pytest.raises(BadInputError, match=r"found int64 \[2, 8, 16\]") as caught:
        found(Ending(lambda maps_NCHW: maps_NCHW.argmax(1), pooled=False), TaskKind.SEGMENTATION)
    assert "before argmax" in caught.value.hint


HEADS = Ending(
    lambda logits_NK: {"digit": logits_NK[:, :5], "sick": logits_NK[:, 5].sigmoid(), "age": logits_NK[:, 6:7]}
)


def heads(**said):
    network = copy.deepcopy(HEADS)
    return_task_outputs(network.eval(), torch.rand(2, *INPUT.shape))
    return network, {name: Said(*one) for name, one in said.items()}


def test_each_of_several_outputs_has_its_task():
    network, said = heads(age=(TaskKind.REGRESSION, 2.0))
    output = found(network, outputs=said)
    assert [(part.name, part.output.task, part.weight) for part in output.parts] == [
        ("digit", TaskKind.ONE_LABEL, 1.0),
        ("sick", TaskKind.BINARY, 1.0),
        ("age", TaskKind.REGRESSION, 2.0),
    ]
    assert output.parts[1].output.activation is Activation.SIGMOID
    assert (output.task, output.shape, output.names) == (TaskKind.SEVERAL, (7,), ("digit", "sick", "age"))


def test_each_of_several_outputs_has_its_classes():
    network, said = heads(age=(TaskKind.REGRESSION,), digit=(None, 1.0, tuple("abcde")))
    output = found(network, outputs=said)
    assert [part.classes for part in output.parts] == [tuple("abcde"), None, None]
    assert output.description.startswith("digit: image classification, 5 classes, named; sick: ")
    said["digit"] = Said(classes=("a", "b"))
    with pytest.raises(BadInputError, match=r"digit: it gives 5 classes, but \[outputs.digit\] names 2") as caught:
        found(network, outputs=said)
    assert "`classes` under [outputs.digit] in model.toml" in caught.value.hint


def test_names_of_classes_settle_the_task_of_an_output():
    network = Ending(lambda logits_NK: {"ordered": logits_NK.sort(1).values, "digit": logits_NK}, 40)
    return_task_outputs(network.eval(), torch.rand(2, *INPUT.shape))
    with pytest.raises(BadInputError, match=r"output ordered: it gives 40 numbers .* in order"):
        found(network)
    said = {"ordered": Said(classes=tuple(map(str, range(40))))}
    assert found(network, outputs=said).parts[0].output.task is TaskKind.ONE_LABEL


def test_classes_of_no_output_in_particular_are_refused():
    network, said = heads(age=(TaskKind.REGRESSION,))
    with pytest.raises(BadInputError, match=r"it has several outputs, .* names classes, but not of which") as caught:
        found(network, outputs=said, classes=tuple("abcde"), classes_source="model.toml")
    assert "[outputs.digit]" in caught.value.hint
    output = found(network, outputs=said, classes=tuple("abcde"), classes_source="config.json")
    assert [part.classes for part in output.parts] == [None, None, None]


def test_a_table_names_the_classes_of_the_only_output():
    network = Ending(lambda logits_NK: {"digit": logits_NK[:, :5]})
    return_task_outputs(network.eval(), torch.rand(2, *INPUT.shape))
    spec = ModelSpec(
        "a", "model.toml", Path(), None, INPUT, "model.toml", None, outputs={"digit": Said(classes=("a",))}
    )
    with pytest.raises(BadInputError, match=r"it gives 5 classes, but \[outputs.digit\] names 1"):
        find_output(network, INPUT, spec)
    assert with_classes(spec, OutputSpec(TaskKind.ONE_LABEL, (5,), name="digit")).classes == ("a",)
    assert with_classes(spec, OutputSpec(TaskKind.ONE_LABEL, (5,))).classes is None


def test_an_output_without_a_task_is_named():
    network, _ = heads()
    with pytest.raises(BadInputError, match="output age: it gives one number for each image") as caught:
        found(network)
    assert "--task age=binary, or --task age=regression" in caught.value.hint


def test_one_task_for_several_outputs_is_refused():
    network, _ = heads()
    with pytest.raises(
        BadInputError, match="several outputs, digit, sick, age, and one task is named, binary"
    ) as caught:
        found(network, TaskKind.BINARY)
    assert "--task digit=binary,sick=binary,age=binary" in caught.value.hint


def test_a_task_that_does_not_fit_is_told_with_its_output():
    network, said = heads(age=(TaskKind.REGRESSION,), digit=(TaskKind.SEGMENTATION,))
    with pytest.raises(BadInputError, match=r"output digit: it gives \(N, 5\), which does not fit segmentation"):
        found(network, outputs=said)


def test_the_only_output_of_a_dictionary_keeps_its_name():
    network = Ending(lambda logits_NK: {"digit": logits_NK})
    return_task_outputs(network.eval(), torch.rand(2, *INPUT.shape))
    assert found(network).names == ("digit",)
    assert found(Ending(lambda logits_NK: logits_NK)).names == ("logits",)
    assert found(Ending(F.normalize)).names == ("embedding",)
    assert found(Ending(F.normalize), TaskKind.REGRESSION).names == ("values",)


def test_rows_hold_the_logits_of_all_outputs():
    network, said = heads(age=(TaskKind.REGRESSION,))
    output = found(network, outputs=said)
    images_NCHW = torch.rand(3, *INPUT.shape)
    digit, sick, age = network(images_NCHW)
    read_as_logits(network, output)
    assert torch.allclose(network(images_NCHW), torch.cat([digit, sick.logit()[:, None], age], 1), atol=1e-5)
    assert torch.equal(as_rows(as_it_is(network)(images_NCHW)), torch.cat([digit, sick[:, None], age], 1))


def test_a_name_for_a_tensor_is_refused():
    with pytest.raises(BadInputError, match="one tensor, which has no name, and age is named"):
        found(Ending(lambda logits_NK: logits_NK), outputs={"age": Said(TaskKind.REGRESSION)})


def test_the_only_one_of_a_tuple_is_named_by_its_place_but_not_in_the_file():
    network = Ending(lambda logits_NK: (logits_NK.argmax(1), logits_NK))
    return_task_outputs(network.eval(), torch.rand(2, *INPUT.shape))
    output = found(network, outputs={"output_1": Said(TaskKind.EMBEDDING)})
    assert (output.task, output.names) == (TaskKind.EMBEDDING, ("embedding",))

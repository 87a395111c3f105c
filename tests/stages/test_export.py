import copy
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch

from edgerecover.artifacts import InputSpec, OutputSpec, Pattern
from edgerecover.config import load_target
from edgerecover.errors import BadInputError, MissingError
from edgerecover.export.onnx import export
from edgerecover.progress import SILENT, Silent
from edgerecover.runtime.machine import mnn_module
from edgerecover.stages.export import (
    ALTERNATIVE,
    DENSE,
    check_trial,
    convert_on_trial,
    export_dense,
    export_twins,
    require_converter,
)

INPUT = InputSpec((3, 8, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Notes(Silent):
    """What is said besides tasks."""

    def __init__(self):
        self.notes = []

    def note(self, message, **_numbers):
        self.notes.append(message)


def write(network, input, path):
    return export(network, input, path, opset=18)


def twins(network, pattern, tmp_path, progress=SILENT):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = export_twins(
        export_dense(network, INPUT, tmp_path, write), network, pattern, INPUT, tmp_path, write, progress=progress
    )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    return found


def test_zeros_are_compared_with_fewer_channels(teacher, tmp_path):
    dense, narrow = twins(teacher, Pattern.UNSTRUCTURED, tmp_path)
    assert (dense.name, dense.macs_kept) == (DENSE, 1.0)
    assert narrow.name == ALTERNATIVE
    assert 0.4 < narrow.macs_kept < 0.7
    assert narrow.exported.num_weights < 0.7 * dense.exported.num_weights
    for twin in (dense, narrow):
        onnx.checker.check_model(onnx.load(twin.exported.path))


def test_what_has_fewer_channels_already_is_compared_with_the_dense_one_alone(teacher, tmp_path):
    assert [twin.name for twin in twins(teacher, Pattern.CHANNEL, tmp_path)] == [DENSE]


def test_a_network_that_cannot_be_narrowed_has_no_alternative(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)).eval()
    notes = Notes()
    assert [twin.name for twin in twins(network, Pattern.UNSTRUCTURED, tmp_path, notes)] == [DENSE]
    assert "no network with fewer channels" in notes.notes[0]


def test_a_target_that_runs_mnn_needs_it_and_a_file_that_it_takes(tmp_path, teacher):
    require_converter(load_target("x86-cpu"))
    convert_on_trial(load_target("x86-cpu"), tmp_path / "nothere.onnx")
    target = load_target("android-cpu")
    with pytest.MonkeyPatch.context() as without:
        without.setattr(mnn_module, "PathFinder", SimpleNamespace(find_spec=lambda name, folders: None))
        with pytest.raises(MissingError, match="MNN is not installed") as caught:
            require_converter(target)
    assert "install 'MNN>=3.6.1,<4'" in caught.value.hint
    pytest.importorskip("_mnncengine", reason="MNN is an extra")
    require_converter(target)
    dense = export_dense(teacher, INPUT, tmp_path, write)
    convert_on_trial(target, Path(dense.exported.path))
    assert [path.name for path in tmp_path.iterdir()] == ["dense.onnx"], "it was a trial"
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(BadInputError):
        convert_on_trial(target, tmp_path / "broken.onnx")


OUTPUT = OutputSpec.one_label(4)


class StaysInTraining(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.classify = torch.nn.Linear(192, 4)

    def forward(self, images_NCHW):
        self.norm.train()
        return self.classify(self.norm(images_NCHW).flatten(1))


def test_a_file_that_computes_something_else_is_refused_at_once(tmp_path):
    network = StaysInTraining().eval()
    network.norm.running_mean.fill_(3)
    exported = write(network, INPUT, tmp_path / "dense.onnx")
    network.eval()
    with pytest.raises(BadInputError, match=r"norm \(BatchNorm2d\) is in training mode") as raised:
        check_trial(exported, network, INPUT, OUTPUT)
    assert ".train()" in raised.value.hint


def test_a_file_of_another_network_is_refused(teacher, tmp_path):
    exported = write(teacher, INPUT, tmp_path / "dense.onnx")
    check_trial(exported, teacher, INPUT, OUTPUT)
    other = copy.deepcopy(teacher)
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    with pytest.raises(BadInputError, match=r"differs from it by .* standard deviations of its logits: the exporter"):
        check_trial(exported, other, INPUT, OUTPUT)


@pytest.mark.parametrize("last", [torch.nn.Softmax(1), torch.nn.LogSoftmax(1)])
def test_a_file_of_probabilities_is_compared_as_such(last, teacher, tmp_path):
    network = torch.nn.Sequential(teacher, last).eval()
    check_trial(write(network, INPUT, tmp_path / "dense.onnx"), network, INPUT, OUTPUT)


def test_a_network_that_magnifies_rounding_errors_is_told_from_an_export_that_changed_it(tmp_path):
    class Chaotic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classify = torch.nn.Linear(192, 4)

        def forward(self, images_NCHW):
            return torch.sin(1e7 * self.classify(images_NCHW.flatten(1)))

    torch.manual_seed(0)
    network = Chaotic().eval()
    exported = write(network, INPUT, tmp_path / "dense.onnx")
    network.classify.bias.data += 1e-3  # a difference that no kernel makes, so that the test needs none
    with pytest.raises(BadInputError, match="magnifies rounding errors"):
        check_trial(exported, network, INPUT, OUTPUT)

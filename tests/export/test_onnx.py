import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torchvision
from onnx import numpy_helper
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError, StageError
from edgerecover.export.onnx import _with_ir_version, check_size, count_weights, export, frozen_values
from edgerecover.models.network.several_outputs import names_of_outputs, return_task_outputs
from edgerecover.runtime.session.onnxruntime import CPU, open_session
from edgerecover.runtime.session.opening import open_model

INPUT = InputSpec((3, 8, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class PaddedResidual(nn.Module):
    """A CIFAR ResNet in small: BN, and a parameter-free shortcut that slices and pads (option A)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)
        with torch.no_grad():
            for bn in (self.bn1, self.bn2):
                bn.running_mean.normal_()
                bn.running_var.uniform_(0.5, 2)
            self.conv2.weight[:, :4] = 0

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu(self.bn2(self.conv2(x)) + shortcut)
        return self.fc(x.mean((2, 3)))


class Eigenvalues(nn.Module):
    """No ONNX operator computes these."""

    def forward(self, x):
        return torch.linalg.eigvals(x[:, 0]).real


class DataDependent(PaddedResidual):
    """Only a tracer, which follows one branch, gets through."""

    def forward(self, x):
        return super().forward(x * 2 if x.sum() > 1e9 else x)


class Uncertain(nn.Module):
    """One output is called as a value in the graph is (findings/torch-onnx-output-named-like-an-operator.sh)."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(3, 2) for name in ("mean", "var")})

    def forward(self, x):
        pooled = x.mean((2, 3))
        return {name: head(pooled) for name, head in self.heads.items()}


def logits_of_both(network, path, num_images, shape=(3, 8, 8)):
    images = torch.randn(num_images, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.eval()(images).numpy()
    return expected, open_session(path, [CPU], num_threads=1).run(images.numpy())


def test_the_file_computes_what_pytorch_does(tmp_path):
    network = PaddedResidual()
    exported = export(network, INPUT, tmp_path / "model.onnx", opset=18)
    expected, found = logits_of_both(network, tmp_path / "model.onnx", 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (exported.exporter, exported.opset, exported.batch) == ("dynamo", 18, 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    model = onnx.load(tmp_path / "model.onnx")
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]


def test_a_dynamic_batch_takes_any_number_of_images(tmp_path):
    network = PaddedResidual()
    exported = export(network, INPUT, tmp_path / "model.onnx", opset=18, batch=None)
    assert exported.batch is None
    assert open_session(tmp_path / "model.onnx", [CPU], num_threads=1).batch is None
    for num_images in (1, 7):
        expected, found = logits_of_both(network, tmp_path / "model.onnx", num_images)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_new_opset_that_a_target_asks_for_runs(tmp_path):
    """28 is the newest of onnx 1.23 and runs in onnxruntime 1.32."""
    newest = min(28, onnx.defs.onnx_opset_version())
    network = PaddedResidual()
    exported = export(network, INPUT, tmp_path / "model.onnx", opset=newest)
    assert (exported.opset, exported.exporter) == (newest, "dynamo")
    expected, found = logits_of_both(network, tmp_path / "model.onnx", 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("batch", [4, None])
def test_an_opset_the_dynamo_exporter_cannot_reach_is_written_by_the_other(tmp_path, batch):
    network = PaddedResidual()
    exported = export(network, INPUT, tmp_path / "model.onnx", opset=13, batch=batch)
    assert exported.opset == 13
    assert exported.exporter == "torchscript (dynamo failed: wrote opset 18, 13 was asked)"
    expected, found = logits_of_both(network, tmp_path / "model.onnx", 6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_students_own_state_is_left_as_it_was(tmp_path):
    network = PaddedResidual().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export(network, INPUT, tmp_path / "model.onnx", opset=18)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_zeros_survive_and_are_counted(tmp_path):
    network = PaddedResidual()
    weights = [network.conv1.weight, network.conv2.weight, network.fc.weight]
    exported = export(network, INPUT, tmp_path / "model.onnx", opset=18)
    assert exported.num_weights == sum(weight.numel() for weight in weights)
    assert exported.num_nonzero == sum(int(weight.count_nonzero()) for weight in weights)


def test_a_shared_weight_is_counted_once():
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")
    nodes = [
        onnx.helper.make_node("Identity", ["weight"], ["same"]),
        onnx.helper.make_node("MatMul", ["input", "weight"], ["hidden"]),
        onnx.helper.make_node("MatMul", ["hidden", "same"], ["logits"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [], [weight])
    assert count_weights(onnx.helper.make_model(graph)) == (16, 4)


PROGRAM = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_onnx import INPUT, DataDependent, Eigenvalues, PaddedResidual
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
out = Path(sys.argv[1])
for opset in (18, 13):
    export(PaddedResidual(), INPUT, out / f"{{opset}}.onnx", opset=opset, batch=None)
export(DataDependent(), INPUT, out / "branch.onnx", opset=18)
try:
    export(Eigenvalues(), INPUT, out / "never.onnx", opset=18)
except BadInputError:
    print("refused")
"""


@pytest.mark.slow
def test_other_processes_write_the_same_bytes_silently_and_without_paths(tmp_path):
    program = PROGRAM.format(folder=str(Path(__file__).parent))
    written = []
    for hash_seed in ("1", "2"):
        out = tmp_path / hash_seed
        out.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", program, str(out)],
            env={"PYTHONHASHSEED": hash_seed, "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=True,
        )
        assert (done.stdout, done.stderr) == (b"refused\n", b"")
        written.append([(out / name).read_bytes() for name in ("18.onnx", "13.onnx", "branch.onnx")])
    assert written[0] == written[1]
    for content in written[0]:
        assert b".py" not in content
        assert str(Path(torch.__file__).parent.parent).encode() not in content


def test_nothing_is_printed_when_the_networks_forward_prints(tmp_path, capfd):
    class Loud(PaddedResidual):
        def forward(self, x):
            sys.stdout.write("loud")
            return super().forward(x)

    export(Loud(), INPUT, tmp_path / "model.onnx", opset=18)
    assert capfd.readouterr() == ("", "")


def test_a_network_neither_exporter_can_express(tmp_path):
    with pytest.raises(BadInputError, match=r"dynamo failed: .*linalg.*torchscript failed: .*linalg") as caught:
        export(Eigenvalues(), INPUT, tmp_path / "model.onnx", opset=18)
    assert "opset" not in caught.value.hint
    assert "operators that ONNX has" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_another_opset_is_proposed_where_it_would_help(tmp_path):
    class Upsampled(nn.Module):
        def forward(self, x):
            return F.grid_sample(x, torch.zeros(1, 1, 1, 2), align_corners=False).flatten(1)

    with pytest.raises(BadInputError, match="cannot be exported to ONNX opset 13") as caught:
        export(Upsampled(), INPUT, tmp_path / "model.onnx", opset=13)
    assert caught.value.hint == "opset 16 or later in the target has what the network needs"


def test_an_operator_that_the_opset_does_not_have_yet_is_named(tmp_path):
    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torchvision.ops.DeformConv2d(3, 4, 3)

        def forward(self, x):
            return self.layer(x, torch.zeros(len(x), 18, 6, 6)).mean((2, 3))

    with pytest.raises(BadInputError, match=r"DeformConv was added in version 19") as caught:
        export(Deformed(), INPUT, tmp_path / "model.onnx", opset=18)
    assert caught.value.hint == "opset 19 or later in the target has what the network needs"


def test_what_dynamo_cannot_follow_is_traced_and_says_why(tmp_path):
    exported = export(DataDependent(), INPUT, tmp_path / "model.onnx", opset=18)
    assert exported.exporter.startswith("torchscript (dynamo failed: ")
    assert "data-dependent" in exported.exporter
    assert "holds what they were for one black image" in frozen_values(exported)[0]
    assert not frozen_values(replace(exported, exporter="dynamo"))


def test_a_file_that_the_checker_refuses_is_no_file(tmp_path):
    class Autocast(PaddedResidual):
        def forward(self, x):
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                return super().forward(x).float()

    with pytest.raises(BadInputError, match=r"onnx\.checker refuses the file") as caught:
        export(Autocast(), INPUT, tmp_path / "model.onnx", opset=18)
    assert "let the forward compute in float32" in caught.value.hint


def test_two_outputs_are_refused(tmp_path):
    class TwoHeads(PaddedResidual):
        def forward(self, x):
            logits = super().forward(x)
            return logits, logits.sum(1)

    with pytest.raises(BadInputError, match="1 inputs and gives 2 outputs"):
        export(TwoHeads(), INPUT, tmp_path / "model.onnx", opset=18)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StageError, match="cannot be written"):
        export(PaddedResidual(), INPUT, tmp_path / "file" / "model.onnx", opset=18)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "batch"),
    [("mobilenet_v3_small", 32, None), ("vision_transformer", 16, 2)],
)
def test_torchvision_networks(tmp_path, name, side, batch):
    torch.manual_seed(0)
    network = {
        "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=7),
        "vision_transformer": lambda: torchvision.models.VisionTransformer(side, 8, 2, 2, 16, 32, num_classes=7),
    }[name]()
    spec = InputSpec((3, side, side), (0.0,) * 3, (1.0,) * 3)
    exported = export(network, spec, tmp_path / "model.onnx", opset=18, batch=batch)
    assert exported.exporter == "dynamo"
    expected, found = logits_of_both(network, tmp_path / "model.onnx", 3, spec.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
    kinds = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
    layers = [module for module in network.modules() if isinstance(module, kinds)]
    weights = sum((m.in_proj_weight if isinstance(m, nn.MultiheadAttention) else m.weight).numel() for m in layers)
    assert exported.num_weights == weights


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 7), (17, 8)])
def test_old_readers_get_the_ir_version_that_they_know(tmp_path, opset, ir_version):
    network, images_NCHW = PaddedResidual().eval(), torch.randn(2, 3, 8, 8)
    export(network, INPUT, tmp_path / "model.onnx", opset=opset, ir_version=ir_version)
    model = onnx.load(tmp_path / "model.onnx")
    assert model.ir_version == ir_version
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]
    assert not model.functions
    with torch.no_grad():
        expected = network(images_NCHW).numpy()
    found = open_session(tmp_path / "model.onnx", [CPU], strict=True).run(images_NCHW.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_functions_are_inlined_for_readers_from_before_them():
    twice = onnx.helper.make_function(
        "own", "Twice", ["x"], ["y"], [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        [onnx.helper.make_opsetid("", 13)],
    )  # fmt: skip
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Twice", ["a"], ["b"], domain="own")], "g", value[:1], value[1:]
    )
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("own", 1)]
    model = onnx.helper.make_model(graph, functions=[twice], opset_imports=opsets, ir_version=10)
    lowered = _with_ir_version(model, 7)
    assert (lowered.ir_version, list(lowered.functions)) == (7, [])
    assert [node.op_type for node in lowered.graph.node] == ["Add"]
    assert _with_ir_version(lowered, 8).ir_version == 7


def test_weights_that_no_file_can_hold_are_known_before_there_is_one():
    with torch.device("meta"):
        fits, too_large = nn.Linear(20_000, 26_000), nn.Linear(20_000, 27_000)
    check_size(fits)
    with pytest.raises(BadInputError, match=r"weights take 2\.2 GB in float32; one ONNX file holds at most 2 GB"):
        check_size(too_large)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.age = nn.Conv2d(3, 4, 3), nn.Linear(4, 1)

    def forward(self, images_NCHW):
        maps_NCHW = self.conv(images_NCHW)
        rows_NC = maps_NCHW.mean((2, 3))
        return rows_NC, self.age(rows_NC)[:, 0], maps_NCHW


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_several_outputs_keep_names_and_order(tmp_path, monkeypatch, batch, exporter):
    if exporter == "torchscript":
        monkeypatch.setattr("edgerecover.export.onnx._by_dynamo", lambda *_: 1 / 0)
    network, names = Heads().eval(), ("digit", "age", "mask")
    exported = export(network, INPUT, tmp_path / "model.onnx", opset=18, batch=batch, outputs=names)
    assert exported.exporter.startswith(exporter)
    model = onnx.load(tmp_path / "model.onnx")
    assert tuple(value.name for value in model.graph.output) == names
    images_NCHW = torch.rand(3, *INPUT.shape)
    with torch.no_grad():
        own = network(images_NCHW)
    wanted = {name: one[0].numel() for name, one in zip(names, own, strict=True)}
    session = open_session(tmp_path / "model.onnx", [CPU], num_threads=1, num_values=wanted)
    expected_ND = torch.cat([one.reshape(3, -1) for one in own], 1).numpy()
    np.testing.assert_allclose(session.run(images_NCHW.numpy()), expected_ND, atol=1e-5)
    assert (session.output_indices, session.num_values) == ((0, 1, 2), expected_ND.shape[1])
    turned = open_session(tmp_path / "model.onnx", [CPU], num_threads=1, num_values={"age": 1, "digit": 4})
    np.testing.assert_allclose(turned.run(images_NCHW.numpy()), expected_ND[:, [4, 0, 1, 2, 3]], atol=1e-5)
    for missing in ({"height": 1}, {"digit": 5}):
        with pytest.raises(BadInputError, match=r"an output .* was expected, found digit float32"):
            open_session(tmp_path / "model.onnx", [CPU], num_threads=1, num_values=missing).run(images_NCHW.numpy())


def test_open_axes_of_a_network_that_returns_a_dictionary_need_no_other_exporter(tmp_path):
    network = Named().eval()
    return_task_outputs(network, torch.rand(2, *INPUT.shape))
    names = names_of_outputs(network)
    exported = export(network, INPUT, tmp_path / "model.onnx", opset=18, batch=None, outputs=names)
    assert (names, exported.exporter) == (("digit", "age"), "dynamo")
    for output in onnx.load(tmp_path / "model.onnx").graph.output:
        assert output.type.tensor_type.shape.dim[0].dim_param


class Named(Heads):
    def forward(self, images_NCHW):
        return dict(zip(("digit", "age", "mask"), super().forward(images_NCHW), strict=True))


@pytest.mark.parametrize("runtime", ["openvino", "mnn"])
def test_other_runtimes_find_outputs_by_name(tmp_path, runtime):
    pytest.importorskip({"openvino": "openvino", "mnn": "_mnncengine"}[runtime])
    names = ("digit", "age", "mask")
    path = tmp_path / "model.onnx"
    export(Heads().eval(), INPUT, path, opset=18, outputs=names)
    images_NCHW = torch.rand(3, *INPUT.shape).numpy()
    wanted = {"age": 1, "digit": 4}
    expected_ND = open_session(path, [CPU], num_threads=1, num_values=wanted).run(images_NCHW)
    session = open_model(path, runtime, (CPU,), num_threads=1, shape_CHW=INPUT.shape, num_values=wanted)
    np.testing.assert_allclose(session.run(images_NCHW), expected_ND, atol=1e-4)


def test_an_output_keeps_its_name_where_a_value_of_the_graph_has_it_too(tmp_path):
    network = Uncertain().eval()
    export(network, INPUT, tmp_path / "m.onnx", opset=18, outputs=("mean", "var"))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    images = torch.rand(1, 3, 8, 8)
    given = session.run(["var", "mean"], {"input": images.numpy()})
    expected = network(images)
    for name, output in zip(("var", "mean"), given, strict=True):
        assert np.allclose(output, expected[name].detach(), atol=1e-6)

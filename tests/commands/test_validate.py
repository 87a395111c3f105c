"""Judging an ONNX file that was recovered elsewhere: what there is to compare with decides what is judged."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from edgerecover.artifacts import InputSpec, Int8Sums, Report, from_json
from edgerecover.artifacts.int8 import SCHEMES
from edgerecover.bundle.verify import verify_bundle
from edgerecover.commands.run import run
from edgerecover.commands.validate import validate_file
from edgerecover.config import Fact, load_profile, load_target
from edgerecover.demo import demo_files
from edgerecover.demo.network import digits_net
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
from edgerecover.export.precision.graph import prepare, write
from edgerecover.export.precision.integers import quantize
from edgerecover.export.precision.ranges import scan
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.onnx.file import read_onnx
from edgerecover.stages.request import FileRequest, Request
from tests.export.precision.conftest import ImagesInMemory

TOML = """
architecture = "edgerecover.demo.network:digits_net"
[input]
shape = [1, 8, 8]
mean = [0.3052]
std = [0.3757]
"""
INPUT = InputSpec((1, 8, 8), (0.3052,), (0.3757,))
LIMIT_GATES = {"latency_p99", "memory", "file_size"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What somebody else hands over: the dense network, the pruned one, and an ONNX file made from it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "model.toml").write_text(TOML)
    files = demo_files()
    torch.save(load_file(files.dense), folder / "dense.pt")
    torch.save(load_file(files.pruned), folder / "student.pt")
    for name in ("dense", "student"):
        network = digits_net()
        network.load_state_dict(torch.load(folder / f"{name}.pt"))
        export(network, INPUT, folder / f"{name}.onnx", opset=18, batch=None)
    return folder


@pytest.fixture
def profile():
    """The smallest there is."""
    profile = load_profile("smoke")
    quick = profile.latency.model_copy(update={"num_warmup": 1, "min_queries": 2, "min_duration_s": 0.0})
    return profile.model_copy(update={"latency": quick})


@pytest.fixture
def judge(folder, tmp_path, profile):
    """The report of a validation."""

    def judge(model="student.onnx", teacher="dense.pt", **options):
        request = FileRequest(
            model_path=folder / model,
            target=load_target("jetson-orin"),
            profile=profile,
            work=folder / options.pop("work", "work"),
            teacher=folder / teacher,
            **{key: folder / value if isinstance(value, str) else value for key, value in options.items()},
        )
        return validate_file(request)

    return judge


def gates(report):
    return {gate.name: gate.status.value for gate in report.gates}


def said(report, words):
    return any(words in warning for warning in report.warnings)


def test_with_a_teacher_alone(judge):
    report = judge()
    assert gates(report).keys() == {"agreement", *LIMIT_GATES}
    assert (report.parity, report.fidelity.pruned, report.rungs, report.accuracy) == (None, None, (), None)
    assert report.fidelity.exported.total == load_profile("smoke").synthesis.num_held_back
    assert report.recovered_sparsity.sparsity == pytest.approx(0.8, abs=0.01)
    assert report.data_used == "none"
    assert report.synthetic.source == "dreams"


@pytest.mark.slow
def test_an_int8_file_is_compiled_for_the_npu_and_packed(folder, profile, tmp_path):
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed (Python 3.11 and later, x86-64)")
    network = digits_net()
    network.load_state_dict(torch.load(folder / "dense.pt"))
    float32 = export(network, INPUT, tmp_path / "float.onnx", opset=18, batch=1)
    graph = prepare(tmp_path / "float.onnx")
    images = np.random.default_rng(0).uniform(-1, 2, (16, 1, 8, 8)).astype(np.float32)
    ranges = scan(graph, ImagesInMemory(images), max_images=16, with_histograms=True)
    write(quantize(graph, ranges, SCHEMES["qnn"]), tmp_path / "int8.onnx", float32)
    target = load_target("android-qnn")
    two = target.model_copy(update={"npu_generations": Fact(value=("73", "79"), source="choice: two")})
    report = validate_file(
        FileRequest(
            model_path=tmp_path / "int8.onnx",
            target=two,
            profile=profile,
            work=tmp_path / "work",
            teacher=folder / "dense.pt",
            flags=ModelFlags(arch="edgerecover.demo.network:digits_net", input=INPUT),
            out=tmp_path / "out.bundle",
        )
    )
    assert [made.file for made in report.npu] == ["engines/int8.npu-v73.onnx", "engines/int8.npu-v79.onnx"]
    assert all(made.golden.passed for made in report.npu)
    verified = verify_bundle(tmp_path / "out.bundle")
    assert {made.file for made in report.npu} <= set(verified.files)


def test_the_dreams_are_those_of_a_run(judge, folder, profile):
    """A run made all three sets: the validation finds its own among them, and judges its file as the run did."""
    target, work = load_target("onnx-generic"), folder / "shared-work"
    bundle = folder / "ran.bundle"
    ran = run(Request(folder / "student.pt", target, profile, bundle, work, teacher=folder / "dense.pt"))
    shutil.copy(bundle / "model.onnx", folder / "ran.onnx")
    judged = judge("ran.onnx", work="shared-work")
    assert judged.synthetic.reused
    assert judged.fidelity.exported == ran.fidelity.exported


def test_the_networks_it_came_from_are_compared_where_they_are_known(judge, tmp_path):
    report = judge(student="student.pt", pruned="student.pt", out=tmp_path / "out.bundle")
    assert gates(report) == {
        "agreement": gates(report)["agreement"],
        "not_worse_than_input": "pass",
        "mask_kept": "pass",
        "parity_top1": "pass",
        "parity_logits": "pass",
        **{name: gates(report)[name] for name in LIMIT_GATES},
    }
    assert report.fidelity.pruned == report.fidelity.recovered == report.fidelity.exported


def test_zeros_that_grew_and_another_network_fail(judge):
    dense = judge("dense.onnx", student="student.pt")
    assert gates(dense)["mask_kept"] == "fail"
    assert gates(dense)["parity_top1"] == "fail"
    assert gates(dense)["agreement"] == "pass"
    message = next(gate.message for gate in dense.gates if gate.name == "mask_kept")
    assert "a fault of edgerecover" not in message


def test_the_bundle_is_like_any_other(judge, folder, tmp_path):
    report = judge(out=tmp_path / "out.bundle")
    verify_bundle(tmp_path / "out.bundle")
    assert (tmp_path / "out.bundle" / "model.onnx").read_bytes() == (folder / "student.onnx").read_bytes()
    written = (tmp_path / "out.bundle" / "report.json").read_text(encoding="utf-8")
    assert from_json(Report, json.loads(written)) == report
    assert str(folder) not in written
    inputs, outputs = (np.load(tmp_path / "out.bundle" / "golden" / f"{name}.npy") for name in ("inputs", "outputs"))
    assert (inputs.shape, outputs.shape) == ((16, 1, 8, 8), (16, 10))


def test_weights_beside_the_file_are_packed_with_it(judge, folder, tmp_path):
    model = onnx.load(folder / "student.onnx")
    onnx.save(model, folder / "large.onnx", save_as_external_data=True, location="large.data", size_threshold=1024)
    judge("large.onnx", out=tmp_path / "out.bundle")
    manifest = verify_bundle(tmp_path / "out.bundle")
    assert {"model.onnx", "large.data"} <= manifest.files.keys()
    assert read_onnx(tmp_path / "out.bundle" / "model.onnx").external == ("large.data",)


@pytest.mark.parametrize("name", ["report.json", "model.onnx", "golden/inputs.npy"])
def test_weights_under_a_name_that_a_bundle_has_itself(judge, folder, tmp_path, name):
    (folder / "golden").mkdir(exist_ok=True)
    model = onnx.load(folder / "student.onnx")
    (folder / name).unlink(missing_ok=True)
    onnx.save(model, folder / "clash.onnx", save_as_external_data=True, location=name, size_threshold=1024)
    with pytest.raises(BadInputError, match="a name that bundles reserve"):
        judge("clash.onnx", out=tmp_path / "out.bundle")


def test_real_images_give_accuracy(judge):
    report = judge(eval_data=demo_files().test_images)
    assert report.data_used == "eval-only"
    assert report.accuracy.teacher.value > 0.99
    assert report.accuracy.pruned is None
    assert "accuracy_drop" in gates(report)
    assert "not_worse_on_real" not in gates(report)


def test_an_onnx_teacher_is_less_evidence_and_it_is_said(judge):
    report = judge(teacher="dense.onnx", model="dense.onnx")
    assert report.fidelity.exported.value == 1.0
    assert report.synthetic.source == "fractals"
    assert report.fidelity.predicted is None
    assert said(report, "much weaker evidence")


def test_an_onnx_teacher_with_real_images(judge, tmp_path):
    report = judge(teacher="dense.onnx", eval_data=demo_files().test_images, out=tmp_path / "out.bundle")
    assert report.synthetic.source == "real images"
    assert report.fidelity.exported.total == report.accuracy.num_images
    assert said(report, "real images")
    golden = np.load(tmp_path / "out.bundle" / "golden" / "inputs.npy")
    with np.load(demo_files().test_images) as arrays:
        real = arrays["images"].reshape(-1, 64) / 255.0
    pixels = golden.reshape(-1, 64) * 0.3757 + 0.3052
    distances = np.abs(real[:, None] - pixels[None]).max(axis=2)
    assert distances.min() > 0.05, "a real image went into the bundle"


def test_eight_bits(judge, folder):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            random = np.random.default_rng(0)
            self._batches = iter([{"input": random.standard_normal((8, 1, 8, 8), np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self._batches, None)

    quantize_static(
        folder / "student.onnx", folder / "int8.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True
    )
    report = judge("int8.onnx", student="student.pt")
    assert said(report, "is quantized")
    assert report.int8_sums is Int8Sums.EXACT
    assert report.exported.num_weights == 19_408
    assert report.recovered_sparsity.num_zeros >= read_onnx(folder / "student.onnx").sparsity.num_zeros
    assert gates(report)["mask_kept"] == "pass"
    assert not {"parity_top1", "parity_logits"} & set(gates(report))
    assert report.parity is None
    assert report.precision_loss.changed < 0.1 * report.precision_loss.num_images
    assert report.precision_loss.num_images == report.fidelity.exported.total
    assert "precision_loss" in gates(report)


def test_probabilities_are_judged_as_such(judge, folder):
    model = onnx.load(folder / "student.onnx")
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["probabilities"]))
    model.graph.output[0].name = "probabilities"
    onnx.save(model, folder / "softmax.onnx")
    plain, report = judge(student="student.pt"), judge("softmax.onnx", student="student.pt")
    assert said(report, "probabilities, not logits")
    assert report.fidelity.predicted.kept == pytest.approx(plain.fidelity.predicted.kept, abs=1e-3)
    assert report.parity.max_abs < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher": "nothing.pt"}, "teacher .*nothing.pt: no such file"),
        ({"model": "dense.pt"}, "not an ONNX file"),
        ({"student": "dense.onnx"}, "dense.onnx"),
        ({"model": "odd.onnx"}, r"input \(N, 1, 8, 8\) was expected"),
        ({"model": "own.onnx", "teacher": "dense.onnx"}, r"custom operators: acme\.Shuffle"),
    ],
)
def test_bad_requests_are_refused(judge, folder, write_onnx, tmp_path, options, words):
    write_onnx(folder / "odd.onnx")
    model = onnx.load(folder / "student.onnx")
    model.graph.node[0].domain, model.graph.node[0].op_type = "acme", "Shuffle"
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(model, folder / "own.onnx")
    with pytest.raises(BadInputError, match=words):
        judge(**options, out=tmp_path / "out.bundle")
    assert not (tmp_path / "out.bundle").exists()


def test_an_onnx_teacher_needs_its_preprocessing_said(write_onnx, tmp_path):
    path = write_onnx(tmp_path / "net.onnx")
    request = FileRequest(path, load_target("onnx-generic"), load_profile("smoke"), tmp_path / "work", teacher=path)
    with pytest.raises(BadInputError, match="holds no mean and std"):
        validate_file(request)


def test_the_sheet_is_a_picture(judge, tmp_path):
    judge(out=tmp_path / "out.bundle")
    with Image.open(tmp_path / "out.bundle" / "dreams.png") as sheet:
        assert sheet.size[0] > 100

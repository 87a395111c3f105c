import json
import shutil
import sys

import pytest
import torch
import torch.nn.utils.prune
from safetensors.torch import load_file

import edgerecover
from edgerecover.artifacts import GateStatus
from edgerecover.errors import BadInputError
from tests.api.conftest import INPUT, make_dense, make_pruned, state_of


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_networks_in_memory_are_not_changed(run):
    student, teacher, before, _ = run
    assert equal(state_of(student), before[0])
    assert equal(state_of(teacher), before[1])
    assert student.training
    assert teacher.training
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_recovered_network_is_a_new_one_of_the_same_class(run):
    student, _, _, report = run
    model = report.model
    assert type(model) is type(student)
    assert model is not student
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert bool((model[3].weight[student[3].weight == 0] == 0).all())
    assert equal(load_file(report.bundle / "recovered.safetensors"), state_of(model))


def test_a_report_says_what_was_judged(run):
    *_, report = run
    assert report.verdict in {status.value for status in GateStatus}
    assert report.passed == (report.verdict == "pass")
    assert report.details.student.architecture == "torch.nn.modules.container:Sequential"
    assert report.details.classes == ("a", "b", "c")
    assert report.details.data_used == "eval-only"
    assert report.details.accuracy.num_images == 6
    text = str(report)
    assert "Gates" in text
    assert "student.pt" in text
    assert "\x1b" not in text
    assert repr(report) == f"<RecoveryReport of student.pt: {report.verdict}, bundle {report.bundle}>"


def test_a_notebook_shows_the_page_in_a_frame(run):
    *_, report = run
    shown = report._repr_html_()
    assert shown.startswith("<iframe")
    assert shown.count("<iframe") == 1
    assert "&lt;!doctype html&gt;" in shown.lower()
    assert "about:srcdoc#gates" in shown  # else a click would load the notebook inside the frame
    assert "href=&quot;#" not in shown


def test_nothing_of_this_machine_is_in_the_bundle(run):
    *_, report = run
    for name in ("manifest.json", "config.json", "report.json"):
        assert "/edgerecover-" not in (report.bundle / name).read_text()


def test_a_bundle_is_saved_as_folder_or_archive_and_never_over_another(run, tmp_path):
    *_, report = run
    folder = report.save_bundle(tmp_path / "a.bundle")
    assert (folder / "model.onnx").read_bytes() == (report.bundle / "model.onnx").read_bytes()
    with pytest.raises(BadInputError, match=r"path='.*a.bundle': already exists") as caught:
        report.save_bundle(folder)
    assert "force=" in caught.value.hint
    report.save_bundle(folder, force=True)
    archive = report.save_bundle(str(tmp_path / "a.tar"))
    assert edgerecover.open_bundle(archive).verdict == report.verdict


def test_a_temporary_bundle_lives_as_long_as_its_report(dense, profile, monkeypatch):
    from edgerecover.api.place import place_of

    class Report:
        pass

    report = Report()
    with place_of(None, None, "student") as place:
        place.bundle.mkdir()
        place.inputs.mkdir()
        place.leave_to(report)
    assert place.bundle.is_dir()
    assert not place.inputs.exists()
    del report
    assert not place.scratch.exists()


def test_a_failed_call_leaves_no_folder(dense, pruned, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(edgerecover.EdgeRecoverError):
        edgerecover.recover(pruned, dense, target="onnx-generic", progress=False)
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "no input": ({}, "student.pt: the network's input is not known", "give input_shape="),
    "a batch in the shape": ({"input_shape": (1, 1, 8, 8)}, r"input_shape=\(1, 1, 8, 8\): expected", "(3, 224, 224)"),
    "a number for a shape": ({"input_shape": 8}, "input_shape=8: several numbers", "input_shape=(3, 224, 224)"),
    "a text for a shape": ({"input_shape": "1,8,8"}, "input_shape='1,8,8': several numbers", "(3, 224, 224)"),
    "a number for a mean": (INPUT | {"mean": 0.5}, "mean=0.5: several numbers", "mean=(0.485, 0.456, 0.406)"),
    "half a pixel": ({"input_shape": (1, 8.5, 8)}, "whole numbers", "(3, 224, 224)"),
    "std of 0": (INPUT | {"std": (0.0,)}, r"std=0: expected numbers above 0", "std="),
    "two means": (INPUT | {"mean": (0.5, 0.5)}, r"mean=\(0.5, 0.5\): expected one number", "mean="),
    "device": (INPUT | {"device": "tpu"}, "device='tpu': expected one of 'auto', 'cuda', 'cpu'", "device='auto'"),
    "task": (
        INPUT | {"task": "tracking"},
        "task='tracking': expected one of 'one-label'",
        "task='one-label'",
    ),
    "seed": (INPUT | {"seed": -1}, "seed=-1: expected 0 or more", "seed=0"),
    "batch": (INPUT | {"batch": -1}, "batch=-1: expected 0 or more", "batch=0"),
    "precision": (INPUT | {"precision": ("int4",)}, "precision='int4'", "precision='fp32'"),
    "pattern": (INPUT | {"pattern": "rows"}, "pattern='rows'", "pattern='unstructured'"),
    "sparsity": (INPUT | {"sparsity": 2.0}, "sparsity=2 is not between 0 and 1", "0.75"),
    "no sparsity": (INPUT | {"pattern": "layerwise"}, "pattern='layerwise' needs sparsity=", "sparsity=0.75"),
    "for a runtime": (INPUT | {"for_runtime": "tvm"}, "for_runtime='tvm': unknown runtime", "for_runtime='mnn'"),
    "target": (INPUT | {"target": "jetson-orion"}, "unknown target 'jetson-orion'", "targets list"),
    "profile": (INPUT | {"profile": "balancd"}, "did you mean 'balanced'", "profiles list"),
    "arch": (INPUT | {"arch": "nets.py:net"}, "names the architecture of a file", "leave arch= out"),
    "images": (INPUT | {"eval_data": (1, 2, 3)}, "eval_data=: a path or", ".npz"),
    "record": (INPUT | {"record": "nothere.safetensors"}, "nothere.safetensors", ""),
}


@pytest.mark.parametrize(("arguments", "message", "hint"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_said_in_the_words_of_python(dense, pruned, arguments, message, hint):
    with pytest.raises(BadInputError, match=message) as caught:
        edgerecover.recover(pruned, dense, **{"target": "onnx-generic", "progress": False} | arguments)
    assert hint in caught.value.hint
    assert str(caught.value).endswith(f"next: {caught.value.hint}")
    assert "/edgerecover-" not in str(caught.value)


def test_a_mistyped_path_is_said(dense):
    with pytest.raises(BadInputError, match=r"nothere.pt does not exist"):
        edgerecover.recover("nothere.pt", dense, target="onnx-generic", **INPUT, progress=False)


@pytest.mark.slow
def test_python_and_the_command_line_recover_the_same(profile, tmp_path, monkeypatch):
    """Once from networks in memory, once from their files: byte for byte the same weights, file and verdict."""
    from edgerecover.cli import main

    teacher = make_dense()
    student = make_pruned(teacher)
    options = {"target": "onnx-generic", "profile": profile, "precision": "fp32", "seed": 3, "progress": False}
    report = edgerecover.recover(student, teacher, **options, **INPUT, out=tmp_path / "memory.bundle")

    torch.save(student.state_dict(), tmp_path / "student.pt")
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    from_files = edgerecover.recover(
        tmp_path / "student.pt", teacher, **options, **INPUT, out=tmp_path / "file.bundle", run_folder=tmp_path / "work"
    )
    shutil.copy(__file__.replace("test_runs", "conftest"), tmp_path / "nets.py")
    line = (
        "edgerecover run student.pt --teacher teacher.pt --arch nets.py:make_dense --target onnx-generic --profile "
        f"{profile} --precision fp32 --seed 3 --input-shape 1,8,8 --mean 0.5 --std 0.25 -o line.bundle --quiet"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit) as ended:
        main()
    line_bundle = edgerecover.open_bundle("line.bundle")
    assert ended.value.code == {"pass": 0, "fail": 1, "inconclusive": 5}[report.verdict]
    assert report.verdict == from_files.verdict == line_bundle.verdict
    for name in ("recovered.safetensors", "model.onnx", "golden/inputs.npy", "golden/teacher.npy"):
        contents = {(folder / name).read_bytes() for folder in (report.bundle, from_files.bundle, line_bundle.bundle)}
        assert len(contents) == 1, name
    assert [gate.status for gate in report.details.gates] == [gate.status for gate in line_bundle.details.gates]
    (log,) = (tmp_path / "work" / "logs").iterdir()
    assert "ended with exit code 0" in log.read_text()


@pytest.mark.slow
def test_a_file_from_elsewhere_is_judged_beside_networks_in_memory(run, profile, tmp_path):
    student, teacher, _, recovered = run
    report = edgerecover.validate(
        recovered.bundle / "model.onnx", teacher, student=recovered.model, pruned=student,
        target="onnx-generic", profile=profile, **INPUT, progress=False,
    )  # fmt: skip
    assert {gate.name for gate in report.details.gates} >= {"agreement", "mask_kept"}
    assert json.loads((report.bundle / "config.json").read_text())["student"] == "student.pt"
    assert report.save_bundle(tmp_path / "judged.bundle").is_dir()


@pytest.mark.slow
def test_a_bundle_of_another_network_is_not_replaced(dense, pruned, profile, tmp_path):
    """Every network in memory is called student.pt: they are distinguished by their weights."""
    out = tmp_path / "one.bundle"
    options = {"target": "onnx-generic", "profile": profile, "precision": "fp32", "out": out, "progress": False}
    for _ in range(2):  # the same cell of a notebook, run again
        edgerecover.recover(pruned, dense, **INPUT, **options, run_folder=tmp_path / "work")
    with torch.no_grad():
        pruned[0].weight += 0.125
    with pytest.raises(BadInputError, match=r"out='.*one.bundle': contains the bundle") as caught:
        edgerecover.recover(pruned, dense, **INPUT, **options)
    assert "force=" in caught.value.hint


class Probabilities(torch.nn.Module):
    """Ends in softmax, as some users' networks do."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, images_NCHW):
        return self.body(images_NCHW).softmax(1)


@pytest.mark.slow
def test_a_student_is_handed_back_as_it_came(dense, pruned, profile):
    options = {"target": "onnx-generic", "profile": profile, "precision": "fp32", "progress": False, **INPUT}
    images = torch.zeros(2, 1, 8, 8)
    own = edgerecover.recover(Probabilities(pruned), Probabilities(dense), **options)
    assert type(own.model) is Probabilities
    torch.testing.assert_close(own.model(images).sum(1), torch.ones(2))
    torch.testing.assert_close(edgerecover.open_bundle(own.bundle).predict(images).sum(1).tolist(), [1.0, 1.0])

    torch.nn.utils.prune.l1_unstructured(dense[3], "weight", 0.5)  # its dense weights are still inside
    masked = edgerecover.recover(dense, **options)
    assert masked.details.student.teacher_inside
    assert set(masked.model.state_dict()) == set(pruned.state_dict())
    assert bool((masked.model[3].weight[dense[3].weight_mask == 0] == 0).all())
    assert hasattr(dense[3], "weight_orig")

"""The runner in this process, on real ONNX files and real onnxruntime."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edgerecover.artifacts import DeviceResult, Gate, GateStatus, Proportion, from_json, to_json
from edgerecover.bundle.carry import pack_bundle
from edgerecover.bundle.signature import PublicKey
from edgerecover.bundle.verify import signature_digest
from edgerecover.errors import BadInputError, MissingError, VerificationError
from edgerecover.files import npy_bytes
from edgerecover.progress import SILENT
from edgerecover.runner.run import Options, run_bundle

WAITING = Gate("latency_p99", GateStatus.NEEDS_DEVICE, 9.0, 5e4, "at most", "ms", "target toy", "settled elsewhere")
MET = Gate("agreement", GateStatus.PASS, 90.0, 50.0, "at least", "%", "profile toy", "as it was")


class Heard:
    """A `progress.Progress` that remembers its notes."""

    def __init__(self):
        self.notes = []

    def task(self, title, total, unit):
        return SILENT.task(title, total, unit)

    def note(self, message):
        self.notes.append(message)


def run(bundle, **options):
    heard = Heard()
    return run_bundle(bundle, Options(**options), heard), heard.notes


def test_a_bundle_is_verified_checked_timed_and_judged(make_bundle):
    bundle = make_bundle(limits={"max_p99_ms": 5e4}, gates=(MET, WAITING), teacher=True)
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    result, said = run(bundle)
    assert result.host_is_target
    (one,) = result.tried
    assert one.golden.same_decisions == one.golden.num_images == 8
    assert one.golden.largest_difference == 0
    assert one.golden.teacher == Proportion(8, 8)
    assert len(one.latency.samples_ms) >= 5
    assert result.fastest == 0
    assert [(gate.name, gate.status) for gate in result.gates] == [
        ("agreement", GateStatus.PASS), ("latency_p99", GateStatus.PASS), ("golden", GateStatus.PASS),
    ]  # fmt: skip
    assert result.gates[1].measured == one.latency.percentile_ms(99)
    assert [stage.stage for stage in result.stages] == ["verify", "golden check", "latency"]
    assert "model.onnx" in " ".join(said)
    assert from_json(DeviceResult, json.loads(json.dumps(to_json(result)))) == result
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_an_archive_is_run_as_its_folder_is(make_bundle, tmp_path):
    bundle = make_bundle(limits={"max_p99_ms": 5e4}, gates=(MET, WAITING), teacher=True)
    archive = pack_bundle(bundle, tmp_path / "packed.tar").path
    result, said = run(archive)
    folder, _ = run(bundle)
    assert result.bundle == "packed.tar"
    assert result.manifest_sha256 == folder.manifest_sha256
    assert result.tried[0].golden == folder.tried[0].golden
    assert result.verdict is GateStatus.PASS
    assert result.signature == "not signed"
    assert "not signed" in said[0]
    damaged = bytearray(archive.read_bytes())
    damaged[-2000] ^= 1
    archive.write_bytes(damaged)
    with pytest.raises(VerificationError):
        run(archive)


def test_what_is_known_of_the_signature_is_said(make_bundle):
    bundle = make_bundle()
    (bundle / "signature.json").write_bytes(b"{}")
    (bundle / "signature.sha256").write_bytes(signature_digest(b"{}"))
    result, said = run(bundle)
    assert result.signature == "signed, and the signature was not checked"
    assert result.signature in said[0]


def test_a_bundle_that_must_be_signed(make_bundle, tmp_path):
    """Where nothing is there to check it with, it is not run either."""
    with pytest.raises(VerificationError, match="is not signed"):
        run(make_bundle(), trusted=PublicKey(tmp_path / "key.pub"))


def test_a_limit_that_is_not_kept_fails(make_bundle):
    result, _ = run(make_bundle(limits={"max_p99_ms": 1e-6}, gates=(WAITING,)))
    assert result.verdict is GateStatus.FAIL


def test_a_machine_that_is_not_the_target_settles_nothing(make_bundle):
    task = {
        "machine": {"machine": "any", "board": "Orin"},
        "runtime": "tensorrt",
        "providers": ["TensorrtExecutionProvider"],
    }
    result, _ = run(make_bundle(task=task, limits={"max_p99_ms": 5e4}, gates=(WAITING,)))
    assert not result.host_is_target
    assert result.tried[0].runtime == "onnxruntime"
    assert result.gates[0].status is GateStatus.NEEDS_DEVICE
    assert result.verdict is GateStatus.PASS
    assert "not Orin" in result.warnings[0]


def test_the_fastest_that_answers_rightly_is_named_and_a_wrong_one_is_not_timed(make_bundle, write_onnx, tmp_path):
    right = write_onnx(tmp_path / "right.onnx")
    wrong = write_onnx(tmp_path / "wrong.onnx", softmax=True)  # the same decisions on another scale
    result, _ = run(make_bundle(variants={"fp32": right, "fp16": wrong}))
    assert [one.path for one in result.tried] == ["model.onnx", "variants/fp32.onnx", "variants/fp16.onnx"]
    assert all(one.golden.passed for one in result.tried), "fp16 is judged by its decisions"
    shipped, *others = (one.latency for one in result.tried)
    surely_faster = [other for other in others if shipped.slower_than(other).low > 1]
    assert result.fastest == 0 or surely_faster, "another one is named only where one is surely faster"

    same_precision = write_onnx(tmp_path / "other.onnx", softmax=True)
    result, _ = run(make_bundle("b.bundle", variants={"fp32": same_precision}))
    assert [one.golden.passed for one in result.tried] == [True, False]
    assert result.tried[1].latency is None
    assert result.fastest == 0
    assert any("variants/fp32.onnx" in warning for warning in result.warnings)


def test_answers_that_nothing_gives_fail_the_golden_gate(make_bundle):
    outputs_NK = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    result, _ = run(make_bundle(golden__outputs_npy=npy_bytes(outputs_NK), gates=(WAITING,)))
    assert result.fastest is None
    assert [(gate.name, gate.status) for gate in result.gates] == [
        ("latency_p99", GateStatus.NEEDS_DEVICE), ("golden", GateStatus.FAIL),
    ]  # fmt: skip
    assert result.verdict is GateStatus.FAIL


def test_a_provider_that_does_not_run_is_an_error_not_a_fallback(make_bundle):
    with pytest.raises(MissingError, match="TensorrtExecutionProvider was requested but ran no node"):
        run(make_bundle(task={"providers": ["TensorrtExecutionProvider", "CPUExecutionProvider"]}))


def test_a_runtime_that_is_beside_and_missing_is_a_warning(make_bundle):
    result, _ = run(make_bundle(task={"also_runtimes": ["tensorrt"]}))
    assert result.fastest == 0
    assert "tensorrt" in result.warnings[0]


def test_a_model_that_the_runtime_cannot_open(make_bundle):
    bundle = make_bundle(**{"model.onnx": b"not an onnx file"})
    with pytest.raises(BadInputError, match=r"model\.onnx"):
        run(bundle)


def test_a_changed_bundle_is_not_run(make_bundle):
    bundle = make_bundle()
    (bundle / "golden/outputs.npy").write_bytes(b"x")
    with pytest.raises(VerificationError, match=r"golden/outputs\.npy"):
        run(bundle)


HEADER_OF_A_TERABYTE = b"\x93NUMPY\x01\x00v\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 3, 1000, 1000), }".ljust(117) + b"\n"
)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("golden__inputs_npy", b"no array"),
        ("golden__inputs_npy", HEADER_OF_A_TERABYTE),
        ("golden__outputs_npy", npy_bytes(np.zeros((3, 5), np.float32))),
        ("golden__outputs_npy", npy_bytes(np.zeros((8, 5), np.float64))),
        ("golden__teacher_npy", npy_bytes(np.zeros((8, 4), np.float32))),
        ("limits_json", b"[]"),
        ("limits_json", b'{"profile": 3}'),
        ("report_json", b'{"gates": [{"name": "x"}]}'),
        ("report_json", b"{" * 100_000),
        ("report_json", b'{"gates": NaN}'),
        ("runner_json", b"\xff"),
    ],
)
def test_files_that_verify_but_cannot_be_read(make_bundle, path, content):
    with pytest.raises(BadInputError, match="cannot be read"):
        run(make_bundle(**{path: content}))


@pytest.mark.parametrize(
    "task",
    [{"runtime": "os.system"}, {"providers": []}, {"min_queries": 0}, {"min_duration_s": 1e9}, {"num_warmup": -1}],
)
def test_a_task_that_makes_no_sense(make_bundle, task):
    with pytest.raises(BadInputError, match=r"runner\.json"):
        run(make_bundle(task=task))


def test_a_bundle_of_an_earlier_version_is_refused_with_what_to_do(make_bundle, tmp_path):
    from edgerecover.bundle.write import write_bundle

    old = make_bundle()
    files = {path: old / path for path in ("model.onnx", "golden/inputs.npy", "golden/outputs.npy", "report.json")}
    with pytest.raises(BadInputError, match=r"runner\.json") as refused:
        run(write_bundle(files, tmp_path / "old.bundle", {}))
    assert "pack it again" in refused.value.hint


def test_threads_are_as_asked(make_bundle):
    result, _ = run(make_bundle(), num_threads=1)
    assert result.tried[0].latency.num_threads == 1
    assert replace(result.tried[0], latency=None).golden.passed


def test_mnn_is_given_the_float32_file_alone(make_bundle, write_onnx, tmp_path):
    """Where the bundle holds no file of MNN's own, that is made on the device."""
    pytest.importorskip("_mnncengine", reason="MNN is an extra")
    variants = {"int8": write_onnx(tmp_path / "other.onnx")}
    result, _ = run(make_bundle(task={"also_runtimes": ["mnn"]}, variants=variants))
    assert [(one.path, one.runtime) for one in result.tried] == [
        ("model.onnx", "onnxruntime"), ("variants/int8.onnx", "onnxruntime"), ("model.onnx", "mnn"),
    ]  # fmt: skip
    assert result.tried[2].golden.passed
    bundle = make_bundle("int8.bundle", task={"also_runtimes": ["mnn"], "precision": "int8"})
    with pytest.raises(BadInputError, match="holds no float32 file, and MNN is given no other"):
        run(bundle, runtime="mnn")

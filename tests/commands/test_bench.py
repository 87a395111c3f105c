"""Latency reports on real, tiny files; and the command line around them."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from edgerecover.bundle.write import write_bundle
from edgerecover.cli import main
from edgerecover.commands.bench import MAX_ENTRANTS, BenchRequest, bench
from edgerecover.config import load_target
from edgerecover.errors import BadInputError, VerificationError
from edgerecover.files import npy_bytes
from edgerecover.runtime.measure.timing import Timing

QUICK = Timing(num_warmup=2, min_queries=10, min_duration_s=0.0)


@pytest.fixture
def onnx_file(write_onnx, tmp_path):
    return write_onnx(tmp_path / "net.onnx")


def bundle_of(onnx_path, folder):
    golden = npy_bytes(np.ones((2, 3, 8, 8), np.float32))
    write_bundle({"model.onnx": onnx_path, "golden/inputs.npy": golden}, folder, {"target": "x86-cpu"})
    return folder


def test_a_file_beside_a_bundle(onnx_file, tmp_path):
    bundle = bundle_of(onnx_file, tmp_path / "last.bundle")
    done = bench(BenchRequest(onnx_file, QUICK, against=(bundle,), threads=(1,)))
    assert [lane.name for lane in done.lanes] == ["net.onnx", "last.bundle"]
    new, old = done.lanes
    assert (new.compared_with, old.compared_with) == ("last.bundle", "")
    assert new.slower.low <= new.slower.value <= new.slower.high
    assert new.sha256 == old.sha256
    assert not done.failures
    assert new.raced.latency.round_sizes == old.raced.latency.round_sizes


def test_sweeps_cross_everything(onnx_file):
    done = bench(BenchRequest(onnx_file, QUICK, threads=(1, 2), batches=(1, 3)))
    assert [lane.name for lane in done.lanes] == [
        "net.onnx, 1 thread, batch 1",
        "net.onnx, 2 threads, batch 1",
        "net.onnx, 1 thread, batch 3",
        "net.onnx, 2 threads, batch 3",
    ]
    assert [lane.raced.latency.batch for lane in done.lanes] == [1, 1, 3, 3]
    assert [lane.raced.latency.num_threads for lane in done.lanes] == [1, 2, 1, 2]
    assert [lane.compared_with for lane in done.lanes] == ["", done.lanes[0].name, "", done.lanes[2].name]


def test_a_file_beside_itself_shows_what_is_chance(onnx_file):
    done = bench(BenchRequest(onnx_file, QUICK, against=(onnx_file,), threads=(1,)))
    assert [lane.file for lane in done.lanes] == [str(onnx_file), f"{onnx_file} (2)"]
    assert done.lanes[0].slower is not None


def test_mnn_runs_beside_others(onnx_file, tmp_path):
    pytest.importorskip("_mnncengine", reason="MNN is an extra")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not an ONNX file" * 20)
    asked = BenchRequest(
        onnx_file, QUICK, against=(broken,), runtimes=("onnxruntime", "mnn"), threads=(1,), batches=(3,)
    )
    ours, mnn, *others = bench(asked).lanes
    assert (ours.raced.latency.batch, mnn.raced.latency.batch) == (3, 3)
    assert mnn.raced.latency.runtime.startswith("mnn ")
    assert mnn.sha256 == ours.sha256
    assert "MNN's converter does not take it" in others[1].raced.error
    assert not list(tmp_path.glob("*.mnn")), "nothing is left beside the user's files"


def test_a_static_batch_says_why_it_cannot_be_swept(write_onnx, tmp_path):
    static = write_onnx(tmp_path / "static.onnx", batch=1)
    done = bench(BenchRequest(static, QUICK, threads=(1,), batches=(1, 8)))
    (failed,) = done.failures
    assert "takes 1 images per call, but 8 were requested" in failed.error
    assert "--batch 0" in failed.hint


def test_a_bundle_is_verified_first(onnx_file, tmp_path):
    bundle = bundle_of(onnx_file, tmp_path / "b")
    (bundle / "model.onnx").write_bytes(b"another")
    with pytest.raises(VerificationError, match=r"model\.onnx"):
        bench(BenchRequest(bundle, QUICK))


def test_what_cannot_be_asked(onnx_file, tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        bench(BenchRequest(tmp_path / "gone.onnx", QUICK))
    with pytest.raises(BadInputError, match="--runtime abacus"):
        bench(BenchRequest(onnx_file, QUICK, runtimes=("abacus",)))
    with pytest.raises(BadInputError, match="exceed the"):
        bench(BenchRequest(onnx_file, QUICK, threads=tuple(range(1, MAX_ENTRANTS + 2))))


def test_a_target_decides_whose_latency_it_is(onnx_file):
    done = bench(BenchRequest(onnx_file, QUICK, runtimes=("onnxruntime",), target=load_target("raspberry-pi-5")))
    assert done.target == "raspberry-pi-5"
    assert done.max_p99_ms == load_target("raspberry-pi-5").max_p99_ms.value
    assert not done.lanes[0].raced.latency.host_is_target


# --- the command line -----------------------------------------------------------------------------------------


def edgerecover(*arguments, cwd):
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["edgerecover", *map(str, arguments)])
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    return subprocess.CompletedProcess(
        arguments, code if isinstance(code, int) else 0, stdout.getvalue(), stderr.getvalue()
    )


def test_bench_draws_a_report(onnx_file, tmp_path):
    done = edgerecover("bench", "net.onnx", "--threads", "1", "--profile", "smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "latency of net.onnx on this machine" in done.stdout
    assert "spread" in done.stdout
    assert "blocks in" in done.stderr


def test_bench_writes_json_and_exits_by_what_is_missing(onnx_file, tmp_path):
    asked = ("--runtime", "onnxruntime", "--runtime", "tensorrt", "--profile", "smoke", "--json")
    done = edgerecover("bench", "net.onnx", *asked, cwd=tmp_path)
    data = json.loads(done.stdout)
    ran, failed = data["lanes"]
    value, low, high = ran["percentiles_ms"]["p99"]
    assert low <= value <= high
    assert len(ran["raced"]["latency"]["samples_ms"]) >= 50
    assert len(ran["machine"]) == 16
    assert failed["raced"]["latency"] is None
    assert done.returncode == failed["raced"]["exit_code"] != 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.onnx",), "gone.onnx does not exist"),
        (("net.onnx", "--threads", "1,x"), "--threads '1,x' is not a list of whole numbers"),
        (("net.onnx", "--batches", "0"), "--batches '0'"),
        (("net.onnx", "--cores", "-1"), "--cores '-1'"),
        (("net.onnx", "--input-shape", "3,8"), "expected three numbers C,H,W"),
        (("net.onnx", "--runtime", "abacus"), "--runtime abacus"),
        (("net.onnx", "--profile", "no-such"), "unknown profile"),
        (("broken.onnx", "--profile", "smoke"), "cannot open it"),
    ],
)
def test_bad_input_is_told_and_exits_with_2(onnx_file, tmp_path, arguments, words):
    (tmp_path / "broken.onnx").write_bytes(b"no ONNX")
    before = sorted(tmp_path.iterdir())
    done = edgerecover("bench", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before

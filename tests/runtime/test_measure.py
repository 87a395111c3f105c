import json
import subprocess
import sys

import numpy as np
import pytest

from edgerecover.artifacts import Latency, TargetMachine, from_json, to_json
from edgerecover.errors import BadInputError
from edgerecover.runtime.measure import measure_in_subprocess
from edgerecover.runtime.session import CPU

QUICK = {"num_warmup": 2, "min_queries": 20, "min_duration_s": 0.0}
MB = 1_000_000
NOBODYS = TargetMachine(board="a board that nobody makes")


@pytest.fixture
def golden_inputs(tmp_path):
    np.save(tmp_path / "inputs.npy", np.zeros((3, 3, 4, 4), np.float32))
    return tmp_path / "inputs.npy"


def test_a_measurement_in_its_own_process(classifier, golden_inputs):
    ballast = np.ones(300 * MB // 8)  # must not appear in the child's peak
    latency = measure_in_subprocess(classifier, golden_inputs, [CPU], num_threads=1, **QUICK)
    assert len(latency.warmup_ms) == 2
    assert len(latency.samples_ms) == 20
    assert 0 < latency.percentile_ms(50) <= latency.percentile_ms(99)
    assert latency.provider == CPU
    assert (latency.batch, latency.num_threads) == (4, 1)
    assert latency.runtime.startswith("onnxruntime ")
    assert latency.load_ms > 0
    assert 0 < latency.memory_before_bytes <= latency.memory_peak_bytes < ballast.nbytes
    assert from_json(Latency, json.loads(json.dumps(to_json(latency)))) == latency


def test_the_host_is_judged_against_the_target_named(classifier, golden_inputs):
    anywhere = measure_in_subprocess(classifier, golden_inputs, [CPU], **QUICK)
    assert anywhere.host_is_target
    elsewhere = measure_in_subprocess(classifier, golden_inputs, [CPU], target=NOBODYS, **QUICK)
    assert not elsewhere.host_is_target


def test_errors_of_the_child_come_back_as_they_are(classifier, golden_inputs, tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.onnx: no such file"):
        measure_in_subprocess(tmp_path / "nothing.onnx", golden_inputs, [CPU], **QUICK)
    np.save(golden_inputs, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInputError, match=r"inputs\.npy: cannot be read"):
        measure_in_subprocess(classifier, golden_inputs, [CPU], **QUICK)


def test_a_module_in_the_current_folder_is_not_imported(classifier, golden_inputs, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger ran')")
    monkeypatch.chdir(tmp_path)
    assert measure_in_subprocess(classifier, golden_inputs, [CPU], **QUICK).samples_ms


def test_the_runtime_half_never_loads_torch_nor_onnx():
    program = (
        "import sys, edgerecover.runtime.measure, edgerecover.validate.gates, edgerecover.validate.sparsity, "
        "edgerecover.bundle.verify, edgerecover.bundle.write; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'pydantic', 'typer', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

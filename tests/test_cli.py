"""The command line: exit codes, messages, and that bad input leaves nothing half-written."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgerecover.cli import main
from edgerecover.demo import demo_files

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

ARCHITECTURE = "edgerecover.demo.network:digits_net"
PREPROCESSING = ("--input-shape", "1,8,8", "--mean", "0.3052", "--std", "0.3757")


def edgerecover(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process: the same `main`, without importing torch anew for every case."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["edgerecover", *map(str, arguments)])
        for name, value in {"NO_COLOR": "1", "COLUMNS": "80", **environment}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    return subprocess.CompletedProcess(
        arguments, code if isinstance(code, int) else 0, stdout.getvalue(), stderr.getvalue()
    )


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A user's folder: model.pt, dense.pt, and no model.toml."""
    files = demo_files()
    torch.save(load_file(files.pruned), tmp_path / "model.pt")
    torch.save(load_file(files.dense), tmp_path / "dense.pt")
    return tmp_path


def assert_refused(
    done: subprocess.CompletedProcess[str], *words: str, code: int = 2, folder: Path, before: set[str]
) -> None:
    message = " ".join(done.stderr.split())
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in message
    assert names_in(folder) == before


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_the_users_own_line_after_trust(digits: Path) -> None:
    """`edgerecover run --target jetson-orin model.pt` with a model.toml beside the file, and nothing else."""
    (digits / "nets.py").write_text("from edgerecover.demo.network import digits_net as net\n")
    (digits / "model.toml").write_text(
        'architecture = "nets.py:net"\nteacher = "dense.pt"\n'
        "[input]\nshape = [1, 8, 8]\nmean = [0.3052]\nstd = [0.3757]\n"
    )
    trusted = str(digits.parent / f"{digits.name}-trusted.json")
    line = ("run", "--target", "jetson-orin", "model.pt", "--profile", "smoke", "--json", "--archive")

    before = names_in(digits)
    refused = edgerecover(*line, cwd=digits, EDGERECOVER_TRUST_FILE=trusted)
    assert_refused(refused, "edgerecover trust", folder=digits, before=before)

    assert edgerecover("trust", ".", cwd=digits, EDGERECOVER_TRUST_FILE=trusted).returncode == 0
    done = edgerecover(*line, cwd=digits, EDGERECOVER_TRUST_FILE=trusted)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["target"] == "jetson-orin"
    assert report["data_used"] == "none"
    assert report["latency"]["host_is_target"] is False
    assert {g["status"] for g in report["gates"] if g["name"] == "latency_p99"} == {"needs the device"}
    bundle = digits / "model.jetson-orin.bundle"
    assert {"model.onnx", "golden", "report.json", "report.md", "config.json", "manifest.json"} <= names_in(bundle)
    assert edgerecover("bundle", "verify", bundle, cwd=digits).returncode == 0
    archive = f"{bundle.name}.tar"
    assert archive in done.stderr
    assert edgerecover("bundle", "verify", archive, cwd=digits).returncode == 0
    (digits / archive).unlink()

    (digits / "nets.py").write_text("from edgerecover.demo.network import digits_net as net  # changed\n")
    changed = edgerecover(*line, cwd=digits, EDGERECOVER_TRUST_FILE=trusted)
    assert changed.returncode == 2
    assert "nets.py" in changed.stderr


def test_a_dry_run_says_how_long_it_takes_and_writes_nothing(digits: Path) -> None:
    before = names_in(digits)
    done = edgerecover(
        "run", "-t", "onnx-generic", "model.pt", "--teacher", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING,
        "-p", "smoke", "--dry-run", "--json", cwd=digits,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [stage["name"] for stage in told["stages"]] == [
        "synthesize", "statistics repair", "least squares", "block by block", "distill", "export and race"
    ]  # fmt: skip
    assert all(stage["seconds"] > 0 for stage in told["stages"])
    assert told["seconds"] == pytest.approx(sum(stage["seconds"] for stage in told["stages"]))
    assert 1e8 < told["memory_bytes"] < 1e11
    assert names_in(digits) == before


@pytest.mark.slow
def test_terminal_report_fits_80_columns_and_needs_no_colour(digits: Path) -> None:
    done = edgerecover(
        "run", "-t", "onnx-generic", "model.pt", "--teacher", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING,
        "-p", "smoke", "--eval-data", demo_files().test_images, cwd=digits,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "\x1b" not in done.stdout + done.stderr
    for words in ("agreement", "held-out", "p50", "p90", "p99", "real images", "PASS", "bundle"):
        assert words in done.stdout
    assert "\r" not in done.stderr  # no live bar where nobody watches


@pytest.mark.slow
def test_a_record_is_made_used_and_refused_for_another_teacher(digits: Path) -> None:
    said = ("--arch", ARCHITECTURE, *PREPROCESSING)
    made = edgerecover("record", "dense.pt", "--data", demo_files().test_images, *said, "--json", cwd=digits)
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts["kind"] == "joint"
    assert facts["size_bytes"] == (digits / "dense.record.safetensors").stat().st_size

    run = ("run", "-t", "onnx-generic", "model.pt", *said, "-p", "smoke", "--record", "dense.record.safetensors")
    done = edgerecover(*run, "--teacher", "dense.pt", "--json", cwd=digits)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["data_used"] == "record"
    assert report["record"]["sha256"] == facts["sha256"]
    assert json.loads((digits / "model.onnx-generic.bundle" / "manifest.json").read_text())["data_used"] == "record"

    weights = torch.load(digits / "dense.pt")
    next(value for value in weights.values() if value.is_floating_point()).add_(0.5)
    torch.save(weights, digits / "other.pt")
    before = names_in(digits)
    refused = edgerecover(*run, "--teacher", "other.pt", "-o", "second.bundle", cwd=digits)
    assert_refused(refused, "made from a network with weights", folder=digits, before=before)


def test_a_failed_gate_is_exit_1_and_still_a_bundle(digits: Path) -> None:
    (digits / "strict.toml").write_text(
        'extends = "smoke"\nname = "strict"\ndescription = "cannot be met"\n[gates]\nmin_agreement = 1.0\n'
    )
    done = edgerecover(
        "run", "-t", "onnx-generic", "model.pt", "--teacher", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING,
        "-p", "strict.toml", "--json", cwd=digits,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["verdict"] == "fail"
    assert edgerecover("bundle", "verify", "model.onnx-generic.bundle", cwd=digits).returncode == 0


@pytest.mark.slow
def test_a_dense_checkpoint_alone_is_enough(digits: Path) -> None:
    line = ("run", "-t", "x86-cpu", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING, "-p", "smoke", "--json")
    before = names_in(digits)
    refused = edgerecover(*line, cwd=digits)
    assert_refused(refused, "dense", "--sparsity", folder=digits, before=before)
    done = edgerecover(*line, "--pattern", "unstructured", "--sparsity", 0.75, cwd=digits)
    assert done.returncode in (0, 5), done.stderr
    layers = json.loads(done.stdout)["recovered_sparsity"]["layers"]
    total, zeros = (sum(layer[key] for layer in layers) for key in ("num_weights", "num_zeros"))
    assert zeros == round(0.75 * total)


@pytest.mark.parametrize(
    "pattern", [*(pytest.param(p, marks=pytest.mark.slow) for p in ("layerwise", "2:4")), "channel"]
)
def test_every_pattern_goes_through_all_stages(pattern: str, digits: Path) -> None:
    sparsity = () if pattern == "2:4" else ("--sparsity", 0.5)
    flags = ("--pattern", pattern, *sparsity, "--arch", ARCHITECTURE)
    done = edgerecover("prune", "dense.pt", *flags, "--input-shape", "1,8,8", "--out", "small.safetensors", cwd=digits)
    assert done.returncode == 0, done.stderr
    rest = ("-t", "onnx-generic", "--arch", ARCHITECTURE, *PREPROCESSING, "-p", "smoke", "--json")
    done = edgerecover("run", "small.safetensors", "--teacher", "dense.pt", *rest, cwd=digits)
    assert done.returncode in (0, 5), done.stderr
    report = json.loads(done.stdout)
    expected = "unstructured" if pattern == "layerwise" else pattern
    assert report["student"]["sparsity"]["pattern"] == report["recovered_sparsity"]["pattern"] == expected
    gate = next(gate for gate in report["gates"] if gate["name"] == "mask_kept")
    assert gate["status"] == "pass"
    assert ("exported file" in gate["message"]) == (pattern == "2:4")
    if pattern == "channel":
        assert report["student"]["macs_kept"] == pytest.approx(0.5, abs=0.03)
        assert report["rungs"][1]["name"] == "statistics repair"
        shown = edgerecover("inspect", "small.safetensors", "--arch", ARCHITECTURE, *PREPROCESSING, cwd=digits)
        assert "channel-pruned" in shown.stdout
    else:
        assert report["student"]["sparsity"]["layers"][1]["num_zeros"] > 0


@pytest.mark.slow
def test_same_command_again_reuses_what_was_made(digits: Path) -> None:
    line = (
        "run", "-t", "onnx-generic", "model.pt", "--teacher", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING,
        "-p", "smoke", "--json",
    )  # fmt: skip
    first, second = (json.loads(edgerecover(*line, cwd=digits).stdout) for _ in range(2))
    assert [s["stage"] for s in second["stages"] if s["reused"]] == ["synthesize", "recover"]
    assert first["exported"]["sha256"] == second["exported"]["sha256"]
    assert first["rungs"] == second["rungs"]


@pytest.mark.slow
def test_dynamic_batch(digits: Path) -> None:
    import onnxruntime

    done = edgerecover(
        "run", "-t", "onnx-generic", "model.pt", "--teacher", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING,
        "-p", "smoke", "--json", "--batch", 0, cwd=digits,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(
        digits / "model.onnx-generic.bundle/model.onnx", providers=["CPUExecutionProvider"]
    )
    for n in (1, 3, 16):
        assert session.run(None, {"input": np.zeros((n, 1, 8, 8), np.float32)})[0].shape == (n, 10)


@pytest.mark.slow
def test_an_onnx_file_is_judged_and_packed_in_the_same_look(digits: Path) -> None:
    run_flags = ("--arch", ARCHITECTURE, *PREPROCESSING, "-p", "smoke", "--work", "work")
    done = edgerecover("run", "-t", "jetson-orin", "model.pt", "--teacher", "dense.pt", *run_flags, cwd=digits)
    assert done.returncode == 0, done.stderr
    line = ("validate", "model.jetson-orin.bundle/model.onnx", "-t", "jetson-orin", "--teacher", "dense.pt", *run_flags)
    judged = edgerecover(*line, "--pruned", "model.pt", "--out", "judged.bundle", cwd=digits)
    assert judged.returncode == 0, judged.stderr
    assert max(len(line) for line in judged.stdout.splitlines()) <= 80
    assert "\x1b" not in judged.stdout + judged.stderr
    for words in ("from an earlier run", "agreement", "p99", "DEVICE", "judged.bundle"):
        assert words in judged.stdout
    assert edgerecover("bundle", "verify", "judged.bundle", cwd=digits).returncode == 0
    assert edgerecover("bundle", "show", "judged.bundle", cwd=digits).returncode == 0
    as_json = json.loads(edgerecover(*line, "--json", cwd=digits).stdout)
    assert (as_json["bundle"], as_json["parity"], as_json["rungs"]) == (None, None, [])

    made = edgerecover("synthesize", "dense.pt", "-o", "images", "--set", "held-back", *run_flags, "--json", cwd=digits)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["synthetic"]["reused"]
    np.testing.assert_array_equal(
        np.load(digits / "images" / "held_back.npy")[:16], np.load(digits / "judged.bundle" / "golden" / "inputs.npy")
    )
    refused = edgerecover("run", "-t", "jetson-orin", "model.jetson-orin.bundle/model.onnx", cwd=digits)
    assert refused.returncode == 2
    assert "edgerecover validate" in refused.stderr


def with_nan(folder: Path) -> str:
    state = torch.load(folder / "model.pt")
    state["fc.weight"][0, 0] = float("nan")
    torch.save(state, folder / "nan.pt")
    return "nan.pt"


def of_another_shape(folder: Path) -> str:
    state = torch.load(folder / "model.pt")
    state["fc.weight"] = torch.zeros(10, 7)
    torch.save(state, folder / "shape.pt")
    return "shape.pt"


def running_code(folder: Path) -> str:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {folder}/executed",)

    (folder / "bomb.pt").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    return "bomb.pt"


def whole_module(folder: Path) -> str:
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    return "module.pt"


def written(name: str, content: bytes) -> "object":
    def write(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return name

    return write


BAD_MODELS = {
    "missing": (lambda folder: "nothere.pt", "does not exist"),
    "empty": (written("empty.pt", b""), "empty"),
    "random": (written("random.pt", bytes(range(256)) * 40), "random.pt"),
    "code": (running_code, "state_dict"),
    "module": (whole_module, "does not fit"),
    "nan": (with_nan, "fc.weight"),
    "shape": (of_another_shape, "fc.weight"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_bad_checkpoints_are_refused_whole(kind: str, digits: Path) -> None:
    make, word = BAD_MODELS[kind]
    name = make(digits)
    before = names_in(digits)
    done = edgerecover(
        "run", "-t", "onnx-generic", name, "--teacher", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING, cwd=digits
    )
    assert_refused(done, word, folder=digits, before=before)


BAD_REQUESTS = {
    "target": (["run", "-t", "jetson-orinn", "model.pt"], ["jetson-orin"]),
    "profile": (["run", "-t", "jetson-orin", "-p", "balancd", "model.pt"], ["balanced"]),
    "no teacher": (
        ["run", "-t", "x86-cpu", "model.pt", "--arch", ARCHITECTURE, *PREPROCESSING],
        ["teacher"],
    ),
    "no architecture": (["run", "-t", "x86-cpu", "model.pt", "--teacher", "dense.pt"], ["--arch", "model.toml"]),
    "no input": (
        ["run", "-t", "x86-cpu", "model.pt", "--teacher", "dense.pt", "--arch", ARCHITECTURE],
        ["--input-shape"],
    ),
    "mean alone": (["run", "-t", "x86-cpu", "model.pt", "--mean", "0.5"], ["--input-shape"]),
    "not numbers": (["run", "-t", "x86-cpu", "model.pt", "--input-shape", "a,b,c"], ["--input-shape"]),
    "sparsity": (["run", "-t", "x86-cpu", "dense.pt", "--sparsity", "1.5"], ["between 0 and 1"]),
    "pattern alone": (["run", "-t", "x86-cpu", "dense.pt", "--pattern", "unstructured"], ["--sparsity"]),
    "eval data": (
        ["run", "-t", "x86-cpu", "model.pt", "--teacher", "dense.pt", "--arch", ARCHITECTURE, *PREPROCESSING,
         "--eval-data", "nothere.npz"],
        ["nothere.npz"],
    ),
    "factory": (
        ["run", "-t", "x86-cpu", "model.pt", "--teacher", "dense.pt", "--arch", "edgerecover.demo.network:nonet",
         *PREPROCESSING],
        ["nonet"],
    ),
    "not a bundle": (["bundle", "verify", "."], ["manifest"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_REQUESTS)
def test_bad_requests_are_refused(kind: str, digits: Path) -> None:
    arguments, words = BAD_REQUESTS[kind]
    assert_refused(edgerecover(*arguments, cwd=digits), *words, folder=digits, before=names_in(digits))


def test_unknown_key_names_file_key_and_line(digits: Path) -> None:
    (digits / "model.toml").write_text('architecture = "a.py:b"\n[input]\nshape = [1, 8, 8]\nmeen = [0.5]\n')
    done = edgerecover("inspect", "model.pt", cwd=digits)
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert re.search(r"model\.toml:4: unknown key 'input\.meen'; did you mean 'mean'\?", message)


def test_teacher_of_another_network_is_refused(digits: Path) -> None:
    state = load_file(demo_files().dense)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:7], state["fc.bias"][:7]
    save_file(state, digits / "seven.safetensors")
    before = names_in(digits)
    done = edgerecover(
        "run", "-t", "x86-cpu", "model.pt", "--teacher", "seven.safetensors", "--arch", ARCHITECTURE, *PREPROCESSING,
        cwd=digits,
    )  # fmt: skip
    assert_refused(done, "seven.safetensors", "7 classes", folder=digits, before=before)


def test_out_that_holds_something_else_is_left_alone(digits: Path) -> None:
    (digits / "photos").mkdir()
    (digits / "photos" / "cat.jpg").write_bytes(b"cat")
    before = names_in(digits)
    done = edgerecover("run", "-t", "x86-cpu", "model.pt", "--out", "photos", cwd=digits)
    assert_refused(done, "photos", folder=digits, before=before)
    assert (digits / "photos" / "cat.jpg").read_bytes() == b"cat"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the device that is always full")
def test_no_trace_when_stdout_is_full(digits: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgerecover", "targets", "list", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=digits,
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_trace(digits: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgerecover", "run", "-t", "x86-cpu", "nothere.pt", "--debug"],
        capture_output=True, text=True, check=False, cwd=digits,
    )  # fmt: skip
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("kind", ["targets", "profiles"])
def test_lists_and_shows(kind: str, tmp_path: Path) -> None:
    names = json.loads(edgerecover(kind, "list", "--json", cwd=tmp_path).stdout)
    assert len(names) >= 5
    assert max(len(line) for line in edgerecover(kind, "list", cwd=tmp_path).stdout.splitlines()) <= 80
    for name in names:
        shown = edgerecover(kind, "show", name, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert tomllib.loads(shown.stdout)["name"] == name


@pytest.mark.slow
def test_interrupt_keeps_finished_shards(digits: Path) -> None:
    """Ctrl-C in the middle of synthesis: exit 130, a hint, and the next run goes on from the finished shards."""
    import signal
    import time

    (digits / "slow.toml").write_text(
        'extends = "smoke"\nname = "slow"\ndescription = "many shards"\n'
        "[synthesis]\nnum_train = 20000\nbatch_size = 16\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "edgerecover", "run", "-t", "onnx-generic", "model.pt", "--teacher", "dense.pt",
         "--arch", ARCHITECTURE, *PREPROCESSING, "-p", "slow.toml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=digits,
        # A shell's background job ignores SIGINT, and so would the child of a test run started as one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(digits.glob(".edgerecover/*/train-00001.json")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "the same command" in stderr
    assert not (digits / "model.onnx-generic.bundle").exists()
    shards = sorted(digits.glob(".edgerecover/*/train-*.json"))
    assert len(shards) >= 2
    assert not list(digits.glob(".edgerecover/*/.*.tmp"))


def test_an_ascii_terminal_is_enough(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgerecover", "inspect", demo_files().pruned],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr

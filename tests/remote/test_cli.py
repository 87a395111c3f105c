"""`run --on` and `bench --on` over a real ssh connection."""

import json

import pytest

from edgerecover.artifacts import Gate, GateStatus, InputSpec
from edgerecover.cli import main
from edgerecover.demo import demo_files
from edgerecover.export.onnx import export
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import open_network

WAITING = Gate("latency_p99", GateStatus.NEEDS_DEVICE, 9.0, 5e4, "at most", "ms", "target toy", "settled elsewhere")


@pytest.fixture
def edgerecover(monkeypatch, tmp_path, capsys):
    """The command line in this process: exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr("sys.argv", ["edgerecover", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return ended.value.code or 0, shown.out, shown.err

    return run


def on(device):
    access = device.access()
    return ("--on", device.url, "--ssh-config", access.config, "--device-python", access.python)


def test_bench_shows_what_the_device_found(device, make_bundle, edgerecover):
    bundle = make_bundle(limits={"max_p99_ms": 5e4}, gates=(WAITING,))
    code, out, err = edgerecover("bench", bundle, *on(device))
    assert code == 0, err
    assert "latency" in out
    assert "DEVICE" not in out
    assert "copy: " in err, "how much was copied in what time"
    code, out, err = edgerecover("bench", bundle, *on(device), "--json")
    assert code == 0, err
    assert json.loads(out)["gates"][0]["status"] == "pass"


def test_a_limit_that_the_device_breaks_is_exit_1(device, make_bundle, edgerecover):
    code, out, _ = edgerecover("bench", make_bundle(limits={"max_p99_ms": 1e-6}, gates=(WAITING,)), *on(device))
    assert code == 1
    assert "FAIL" in out


def test_an_address_that_is_none_is_refused_before_anything(make_bundle, edgerecover):
    code, _, err = edgerecover("bench", make_bundle(), "--on", "ssh://-oProxyCommand=x")
    assert code == 2
    assert "--on" in err
    assert "Traceback" not in err


@pytest.fixture
def line(tmp_path):
    """What run and validate are told alike. Only the device can be the target: here the two are one machine, so its
    facts fit any."""
    (tmp_path / "strict.toml").write_text(
        'extends = "onnx-generic"\nname = "strict"\ndescription = "keeps a limit"\n'
        '[max_p99_ms]\nvalue = 50000.0\nsource = "choice: for this test"\n'
    )
    return (
        "--teacher", demo_files().dense, "--arch", "edgerecover.demo.network:digits_net",
        "--input-shape", "1,8,8", "--mean", "0.3052", "--std", "0.3757",
        "-t", "strict.toml", "-p", "smoke", "-o", "out.bundle", "--json",
    )  # fmt: skip


def check_settled(result, folder):
    code, out, err = result
    assert code == 0, err
    report = json.loads(out)
    statuses = {gate["name"]: gate["status"] for gate in report["gates"]}
    assert statuses["latency_p99"] == "pass"
    assert statuses["golden"] == "pass", "which only a runner judges"
    kept = json.loads((folder / "out.bundle.result.json").read_text())
    assert kept["gates"] == report["gates"]
    assert "bundle: out.bundle" in " ".join(err.split())


@pytest.mark.slow
def test_run_settles_the_gates_of_its_target(device, edgerecover, line, tmp_path):
    check_settled(edgerecover("run", demo_files().pruned, *line, *on(device)), tmp_path)


def test_validate_settles_the_gates_of_its_target(device, edgerecover, line, tmp_path):
    network, _ = open_network(demo_files().dense, ModelFlags("edgerecover.demo.network:digits_net"))
    export(network, InputSpec((1, 8, 8), (0.3052,), (0.3757,)), tmp_path / "given.onnx", opset=18)
    check_settled(edgerecover("validate", "given.onnx", *line, *on(device)), tmp_path)


def test_run_looks_for_the_device_before_the_work(device, edgerecover, tmp_path):
    files = demo_files()
    line = ("run", files.pruned, "--teacher", files.dense, "-t", "onnx-generic", "-o", "out.bundle")
    code, _, err = edgerecover(*line, *on(device)[:-1], "python3.99")
    assert code == 3
    assert "has no python3.99" in " ".join(err.split())
    assert not (tmp_path / "out.bundle").exists()

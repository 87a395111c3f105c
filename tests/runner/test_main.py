import json
import os

import pytest

from edgerecover.artifacts import Gate, GateStatus
from edgerecover.runner.main import main

WAITING = Gate(
    "latency_p99", GateStatus.NEEDS_DEVICE, 9.0, 5e4, "at most", "ms", "target toy", "settled\x1b[2J elsewhere"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_text_is_for_people_and_the_file_for_programs(make_bundle, here, capsys):
    task = {"machine": {"machine": "any", "board": "Orin"}}
    assert main([str(make_bundle(gates=(WAITING,), task=task)), "--out", "r.json"]) == 0
    shown = capsys.readouterr()
    for words in ("model.onnx", "winner", "golden", "p50", "p99", "DEVICE", "PASS", "not Orin"):
        assert words in shown.out
    assert "\x1b" not in shown.out, "a bundle's text does not reach the terminal as it is"
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    assert "latency: model.onnx" in shown.err
    assert json.loads((here / "r.json").read_text())["target"] == "toy"


def test_a_failed_gate_is_exit_1_and_still_a_result(make_bundle, here, capsys):
    bundle = make_bundle(limits={"max_p99_ms": 1e-6})
    assert main([str(bundle), "--json", "--quiet"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["verdict"] == "fail"
    assert not shown.err
    assert (here / "result.json").is_file()


def test_verify_only(make_bundle, here, capsys):
    bundle = make_bundle()
    assert main([str(bundle), "--verify-only"]) == 0
    assert "match the manifest" in capsys.readouterr().out
    assert main([str(bundle), "--verify-only", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    assert not (here / "result.json").exists()
    (bundle / "more.txt").write_text("x")
    assert main([str(bundle), "--verify-only"]) == 4
    assert "extra: more.txt" in capsys.readouterr().err


def test_started_inside_the_bundle_the_result_lies_beside_it(make_bundle, monkeypatch, capsys):
    bundle = make_bundle()
    monkeypatch.chdir(bundle)
    assert main(["."]) == 0
    assert (bundle.parent / "net.bundle.result.json").is_file()
    assert main([".", "--verify-only"]) == 0


@pytest.mark.parametrize("out", ["net.bundle/result.json", "net.bundle/golden/../r.json", "absent/r.json", "."])
def test_places_where_no_result_can_go(make_bundle, here, capsys, out):
    make_bundle()
    assert main(["net.bundle", "--out", out]) == 2
    assert "--out" in capsys.readouterr().err


def test_no_bundle(here, capsys):
    assert main(["absent"]) == 2
    assert "error: absent does not exist" in capsys.readouterr().err
    (here / "empty").mkdir()
    assert main(["empty"]) == 2
    assert "is not a bundle" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity on this system")
def test_cores(make_bundle, here, capsys):
    core = min(os.sched_getaffinity(0))
    assert main([str(make_bundle()), "--cores", str(core), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tried"][0]["latency"]["cores"] == [core]
    assert main(["net.bundle", "--cores", "9999"]) == 2
    assert "there is no core 9999" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["b", "--cores", "x"], ["b", "--runtime", "tflite"], ["b", "--nothing"]])
def test_wrong_use_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err

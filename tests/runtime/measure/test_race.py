"""Real races of tiny networks, with few queries; nothing here depends on how fast anything is."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.artifacts import Latency, TargetMachine, from_json, to_json
from edgerecover.artifacts.race import Raced
from edgerecover.errors import (
    BadInputError,
    MissingError,
    StageError,
    pip_line,
)
from edgerecover.runtime.measure import race as race_module
from edgerecover.runtime.measure.race import Entrant, race, turns
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.session.providers import CPU

QUICK = Timing(num_warmup=2, min_queries=24, min_duration_s=0.0)
MB = 1_000_000


@pytest.fixture
def golden_inputs(tmp_path):
    np.save(tmp_path / "inputs.npy", np.ones((3, 3, 4, 4), np.float32))
    return tmp_path / "inputs.npy"


@given(st.integers(1, 6), st.integers(1, 60), st.integers(0, 99))
def test_turns_are_shuffled_and_balanced(num_entrants, num_rounds, seed):
    orders = list(turns(num_entrants, num_rounds, seed))
    assert orders == list(turns(num_entrants, num_rounds, seed))
    assert len(orders) == num_rounds
    assert all(sorted(order) == list(range(num_entrants)) for order in orders)
    for place in range(num_entrants):
        times = Counter(order[place] for order in orders)
        assert max(times.values()) - min(times.get(n, 0) for n in range(num_entrants)) <= 1


def test_the_order_differs_from_round_to_round():
    assert len(set(turns(4, 24, seed=0))) > 8


def test_a_race_of_three(classifier, dynamic_classifier, golden_inputs):
    ballast = np.ones(300 * MB // 8)  # must not appear in the children's peaks
    entrants = [
        Entrant("static", classifier, num_threads=1),
        Entrant("open", dynamic_classifier, num_threads=1),
        Entrant("open, three", dynamic_classifier, num_threads=1, batch=3),
    ]
    raced = race(entrants, golden_inputs, QUICK)
    assert [one.name for one in raced] == ["static", "open", "open, three"]
    latencies = [one.latency_or_error() for one in raced]
    assert [latency.batch for latency in latencies] == [4, 1, 3]
    for latency in latencies:
        assert len(latency.warmup_ms) >= 2
        assert sum(latency.round_sizes) == len(latency.samples_ms) >= 24
        assert len(latency.round_sizes) == 24
        assert 0 < latency.percentile_ms(50) <= latency.percentile_ms(99)
        assert (latency.provider, latency.num_threads) == (CPU, 1)
        assert latency.runtime.startswith("onnxruntime ")
        assert latency.load_ms > 0
        assert 0 < latency.memory_before_bytes <= latency.memory_peak_bytes < ballast.nbytes
        assert latency.conditions == latencies[0].conditions
        assert latency.conditions.num_readings == 25
        assert latency.fingerprint.facts["onnxruntime"]
        assert from_json(Latency, json.loads(json.dumps(to_json(latency)))) == latency
    ratio = latencies[0].slower_than(latencies[1])
    assert ratio.low <= ratio.value <= ratio.high


def test_noise_is_asked_about_where_there_are_no_images(dynamic_classifier, write_onnx, tmp_path):
    (raced,) = race([Entrant("a", dynamic_classifier)], None, QUICK)
    assert raced.latency_or_error().batch == 1
    open_sides = write_onnx(tmp_path / "open.onnx", sides=(None, None))
    (refused,) = race([Entrant("b", open_sides)], None, QUICK)
    assert refused.exit_code == 2
    (raced,) = race([Entrant("b", open_sides)], None, QUICK, shape_CHW=(3, 9, 7))
    assert raced.latency_or_error().samples_ms


def test_what_one_entrant_lacks_is_not_the_others_end(classifier, write_onnx, tmp_path):
    whole = tmp_path / "whole.onnx"
    whole.write_bytes(classifier.read_bytes())
    classifier.write_bytes(classifier.read_bytes()[:-200])
    entrants = [
        Entrant("broken", classifier),
        Entrant("gone", tmp_path / "gone.onnx"),
        Entrant("no runtime", whole, "abacus"),
        Entrant("no provider", whole, providers=("NoSuchExecutionProvider",)),
        Entrant("another batch", whole, batch=7),
        Entrant("nan", write_onnx(tmp_path / "nan.onnx", batch=1)),
        Entrant("whole", whole),
    ]
    _spoil(tmp_path / "nan.onnx")
    raced = {one.name: one for one in race(entrants, None, QUICK, strict=True)}
    assert raced["whole"].latency_or_error().samples_ms
    words = {
        "broken": (BadInputError, "cannot open it"),
        "gone": (BadInputError, "no such file"),
        "no runtime": (BadInputError, "unknown runtime 'abacus'"),
        "no provider": (MissingError, "NoSuchExecutionProvider"),
        "another batch": (BadInputError, "takes 4 images per call, but 7 were requested"),
        "nan": (BadInputError, "not finite"),
    }
    for name, (family, text) in words.items():
        with pytest.raises(family, match=text):
            raced[name].latency_or_error()


def _spoil(path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "fc.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.full((8, 5), np.inf, np.float32), "fc.weight"))
    onnx.save(model, path)


def test_an_entrant_that_dies_on_the_way_leaves_the_race(classifier, golden_inputs, monkeypatch):
    class Frail(race_module.Conversation):
        def ask(self, do, timeout_s, **details):
            if do == "time a block" and "frail" in self._what:
                self._turns = getattr(self, "_turns", 0) + 1
                if self._turns == 3:
                    self._process.kill()
            return super().ask(do, timeout_s, **details)

    monkeypatch.setattr(race_module, "Conversation", Frail)
    raced = race([Entrant("frail", classifier), Entrant("sturdy", classifier)], golden_inputs, QUICK)
    assert raced[0].latency is None
    assert "killed by signal 9" in raced[0].error
    with pytest.raises(StageError):
        raced[0].latency_or_error()
    assert len(raced[1].latency_or_error().round_sizes) == 24


def test_a_runtime_that_is_not_installed(classifier, monkeypatch):
    """The worker's own words, in this process: an import that fails is no package."""
    from edgerecover.runtime.measure import worker
    from edgerecover.runtime.session.openvino import import_openvino

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingError, match="OpenVINO cannot be imported") as caught:
        import_openvino()
    assert caught.value.hint == pip_line("install 'edgerecover[openvino]'")
    with pytest.raises(MissingError):
        worker._import("openvino")


def test_entrants_need_names_of_their_own(classifier):
    with pytest.raises(BadInputError, match="needs a different name"):
        race([Entrant("a", classifier), Entrant("a", classifier)], None, QUICK)
    with pytest.raises(BadInputError, match="none"):
        race([], None, QUICK)


def test_the_host_is_judged_against_the_target(classifier, golden_inputs):
    for board, here in ((None, True), ("a board that nobody makes", False)):
        (raced,) = race([Entrant("a", classifier)], golden_inputs, QUICK, target=TargetMachine(board=board))
        assert raced.latency_or_error().host_is_target is here


def test_images_that_do_not_fit_are_refused(classifier, golden_inputs):
    np.save(golden_inputs, np.zeros((3, 3, 5, 5), np.float32))
    (raced,) = race([Entrant("a", classifier)], golden_inputs, QUICK)
    assert raced.exit_code == 2
    np.save(golden_inputs, np.array([{}], dtype=object), allow_pickle=True)
    (raced,) = race([Entrant("a", classifier)], golden_inputs, QUICK)
    assert "cannot be read as .npy" in raced.error


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="no cores to choose on this system")
def test_a_race_on_one_core(classifier, golden_inputs):
    import os

    before = os.sched_getaffinity(0)
    core = min(before)
    (raced,) = race([Entrant("a", classifier)], golden_inputs, QUICK, cores=(core,))
    assert raced.latency_or_error().cores == (core,)
    assert raced.latency_or_error().num_threads == 1
    (raced,) = race([Entrant("a", classifier)], golden_inputs, QUICK, cores=(4095,))
    assert "cores 4095 cannot be used" in raced.error
    assert os.sched_getaffinity(0) == before


def test_progress_counts_every_turn(classifier, golden_inputs):
    from contextlib import contextmanager

    class Counting:
        done = total = 0

        @contextmanager
        def task(self, title, total, unit):
            self.total = total
            yield self

        def advance(self, steps=1, **numbers):
            self.done += steps

        def note(self, message):
            raise AssertionError(message)

    progress = Counting()
    race([Entrant("a", classifier), Entrant("b", classifier)], golden_inputs, QUICK, progress=progress)
    assert progress.done == progress.total == 50


def test_a_module_in_the_current_folder_is_not_imported(classifier, golden_inputs, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger ran')")
    monkeypatch.chdir(tmp_path)
    (raced,) = race([Entrant("a", classifier)], golden_inputs, QUICK)
    assert raced.latency_or_error().samples_ms


def test_raced_survives_json():
    failed = Raced("a", None, "no", "yes", 3)
    assert from_json(Raced, json.loads(json.dumps(to_json(failed)))) == failed


def test_the_runtime_half_never_loads_torch_nor_onnx():
    program = (
        "import sys, edgerecover.runtime.measure.race, edgerecover.runtime.measure.worker, "
        "edgerecover.runtime.session.openvino, edgerecover.runtime.measure.doubts, "
        " edgerecover.validation.gates, edgerecover.validation.sparsity, "
        "edgerecover.bundle.verify, edgerecover.bundle.write; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino', 'numpy', 'pydantic', 'typer', 'rich'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

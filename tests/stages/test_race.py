"""Who is shipped, told from latencies that are given; that they are really raced is seen through the pipeline."""

import dataclasses

import numpy as np
import pytest

from edgerecover.artifacts import Exported, Host, Latency, Outcome, Precision, PrecisionLoss, Race, Runner, Variant
from edgerecover.config import Fact, load_profile, load_target
from edgerecover.errors import BadInputError
from edgerecover.runtime.session.onnxruntime import open_session
from edgerecover.runtime.surfaces import Surface
from edgerecover.stages import race as module
from edgerecover.stages.bundle import model_files
from edgerecover.stages.engine import Engines
from edgerecover.stages.export import TwinFile
from edgerecover.stages.lineage import export_origins
from edgerecover.stages.precision import Variants
from edgerecover.stages.race import hold_race, open_runner, placed
from edgerecover.validation.scoring import Reference
from tests.pairs import measure_of_classes

PROFILE, TARGET = load_profile("balanced"), load_target("x86-cpu")
HOST = Host("x86_64", "EPYC", 2, "Linux")
FP32, FP16, INT8 = Precision


def latency(median_ms, spread_ms=0.0):
    rounds = [[median_ms + spread_ms * (number % 2 - 0.5)] * 10 for number in range(30)]
    samples_ms = tuple(value for part in rounds for value in part)
    return Latency("one", "ort", "CPU", {}, 1, 1, HOST, False, (), samples_ms, 1.0, 0, 1, (10,) * 30)


def runner(precision, median_ms, runtime="onnxruntime", lost=0, size_bytes=1_000_000, spread_ms=0.0):
    loss = None if precision is FP32 else PrecisionLoss(256, lost, 0, lost)
    ran = latency(median_ms, spread_ms) if median_ms else None
    return Runner(precision, runtime, Outcome.NOT_RUN, "", size_bytes, ran, None, loss)


def outcomes(*runners, target=TARGET, unfit=None):
    return [(r.name, r.outcome) for r in placed(runners, PROFILE, target, unfit or {})]


def test_the_fastest_is_shipped_and_the_rest_stands_in_order():
    found = outcomes(runner(FP32, 3.0), runner(FP16, 4.0), runner(INT8, 1.0), runner(INT8, 0.9, "openvino"))
    assert found == [
        ("int8, openvino", Outcome.SHIPPED),
        ("int8, onnxruntime", Outcome.SLOWER),
        ("fp32, onnxruntime", Outcome.SLOWER),
        ("fp16, onnxruntime", Outcome.SLOWER),
    ]


def test_what_loses_more_than_the_profile_allows_is_not_shipped():
    found = outcomes(runner(FP32, 3.0), runner(INT8, 1.0, lost=10))
    assert found == [("int8, onnxruntime", Outcome.LOSES), ("fp32, onnxruntime", Outcome.SHIPPED)]
    assert outcomes(runner(FP32, 3.0), runner(INT8, 1.0, lost=2))[0] == ("int8, onnxruntime", Outcome.SHIPPED)


def test_what_lost_more_than_it_may_by_chance_is_not_shipped_and_not_refused():
    ran = (runner(FP32, 3.0), dataclasses.replace(runner(INT8, 1.0, lost=3), note="two layers kept"))
    int8, _ = placed(ran, PROFILE, TARGET, {})
    assert int8.outcome is Outcome.UNDECIDED
    assert int8.note.startswith("two layers kept; it lost 1.2 points (")
    assert "on 256 images, which may be chance; 1 are allowed" in int8.note


def test_lower_precision_must_be_surely_faster():
    found = dict(outcomes(runner(FP32, 1.0), runner(INT8, 0.99, spread_ms=0.2)))
    assert found["fp32, onnxruntime"] is Outcome.SHIPPED
    assert found["int8, onnxruntime"] is Outcome.SLOWER


def test_of_those_that_cannot_be_told_apart_the_first_in_a_fixed_order_is_shipped():
    """Whichever median happens to be lower: a second run is to ship the same file."""
    for fp16_ms, int8_ms in ((1.0, 1.01), (1.01, 1.0)):
        pair = (runner(FP16, fp16_ms), runner(INT8, int8_ms, spread_ms=0.2))
        for order in (pair, pair[::-1]):
            assert dict(outcomes(runner(FP32, 3.0), *order))["fp16, onnxruntime"] is Outcome.SHIPPED
    for first_ms, second_ms in ((1.0, 1.01), (1.01, 1.0)):
        found = outcomes(runner(FP32, first_ms), runner(FP32, second_ms, "openvino", spread_ms=0.2))
        assert dict(found)["fp32, onnxruntime"] is Outcome.SHIPPED


def test_the_fastest_float32_runtime_is_the_one_to_beat():
    found = dict(outcomes(runner(FP32, 3.0), runner(FP32, 1.0, "openvino"), runner(INT8, 1.5)))
    assert found["fp32, openvino"] is Outcome.SHIPPED


def test_what_the_device_refuses_is_not_shipped_however_fast():
    found = outcomes(runner(FP32, 3.0), runner(INT8, 1.0), unfit={INT8: "an int32 DequantizeLinear"})
    assert found == [("int8, onnxruntime", Outcome.REFUSED), ("fp32, onnxruntime", Outcome.SHIPPED)]


def test_a_file_too_large_for_the_target_leaves_it_to_a_smaller_one():
    small = TARGET.model_copy(update={"max_file_mb": Fact(value=0.5, source="choice: for this test")})
    found = dict(outcomes(runner(FP32, 1.0), runner(INT8, 2.0, size_bytes=300_000), target=small))
    assert found["int8, onnxruntime"] is Outcome.SHIPPED


def test_when_nothing_passes_float32_is_shipped_and_the_gates_say_why():
    small = TARGET.model_copy(update={"max_file_mb": Fact(value=0.5, source="choice: for this test")})
    assert ("fp32, onnxruntime", Outcome.SHIPPED) in outcomes(runner(FP32, 1.0), runner(INT8, 0.5), target=small)


def test_what_did_not_run_stands_last():
    found = outcomes(runner(INT8, None, "openvino"), runner(FP32, 3.0))
    assert found == [("fp32, onnxruntime", Outcome.SHIPPED), ("int8, openvino", Outcome.NOT_RUN)]


def test_a_race_tells_its_winner():
    race = Race(False, tuple(placed([runner(FP32, 3.0), runner(INT8, 1.0)], PROFILE, TARGET, {})), ())
    assert race.shipped.precision is INT8
    assert race.latency.percentile_ms(50) == 1.0
    assert race.float32.precision is FP32
    assert race.speedup(race.latency) is None, "there is no dense network to compare with"


def test_the_names_are_those_people_read():
    assert dataclasses.replace(runner(INT8, 1.0)).name == "int8, onnxruntime"


# --- a real one, of two runtimes ----------------------------------------------------------------------------


class Images:
    array = np.random.default_rng(5).standard_normal((12, 3, 8, 8)).astype(np.float32)

    def __len__(self):
        return len(self.array)

    def batches(self, batch_size):
        yield self.array


def exported(path):
    return Exported(str(path), "", path.stat().st_size, 18, "by hand", None, 216, 216, 100)


@pytest.fixture
def held(write_onnx, tmp_path, monkeypatch):
    """What a race is held of: a network with zeros, its dense twin, and a teacher; in onnxruntime and MNN."""
    pytest.importorskip("_mnncengine", reason="MNN is an extra")
    monkeypatch.setattr(module, "surfaces_of", lambda deployment: (Surface("onnxruntime"), Surface("mnn")))
    quick = PROFILE.latency.model_copy(update={"num_warmup": 1, "min_queries": 30, "min_duration_s": 0.0})
    dense = write_onnx(tmp_path / "dense.onnx")
    variant = Variant(FP32, exported(write_onnx(tmp_path / "fp32.onnx", zeros=range(190))), "as exported", (), "")
    teacher = Reference(open_session(dense, ["CPUExecutionProvider"]).run, measure_of_classes(5))
    return lambda target=TARGET: hold_race(
        Variants((variant,), ()), [TwinFile("dense", 1.0, exported(dense))], teacher, Images(), Images.array,
        target, PROFILE.model_copy(update={"latency": quick}), {},
    ), variant  # fmt: skip


def test_every_runtime_races_the_network_and_the_dense_one(held):
    hold, variant = held
    found = hold()
    assert {one.name for one in found.runners} == {"fp32, onnxruntime", "fp32, mnn"}
    assert {one.outcome for one in found.runners} == {Outcome.SHIPPED, Outcome.SLOWER}
    mnn = next(one for one in found.runners if one.runtime == "mnn")
    assert [(twin.name, twin.runtime) for twin in found.twins] == [("dense", "onnxruntime"), ("dense", "mnn")]
    assert mnn.agreement == next(one for one in found.runners if one is not mnn).agreement
    assert mnn.size_bytes < found.dense_in("mnn").size_bytes
    assert found.dense.runtime == "onnxruntime"
    opened = open_runner(mnn, variant, TARGET, (3, 8, 8), 5)
    assert (opened.runtime, opened.path.name) == ("mnn", "fp32.mnn")


def test_a_file_that_a_runtime_reads_differently_is_named_and_not_shipped(held, monkeypatch, write_onnx):
    hold, variant = held
    other = write_onnx(module.Path(variant.file.path).with_name("other.onnx"))
    monkeypatch.setattr(module, "file_for", lambda runtime, path: path if runtime == "onnxruntime" else other)
    found = hold()
    (mnn,) = (one for one in found.runners if one.runtime == "mnn")
    assert (mnn.outcome, mnn.latency) == (Outcome.NOT_RUN, None)
    assert mnn.note.startswith("it reads the fp32 file differently from onnxruntime: scores differ by up to")
    assert found.shipped.runtime == "onnxruntime"


def test_a_target_that_runs_mnn_gets_no_bundle_that_mnn_does_not_run(held, monkeypatch, write_onnx):
    hold, variant = held
    other = write_onnx(module.Path(variant.file.path).with_name("other.onnx"))
    monkeypatch.setattr(module, "file_for", lambda runtime, path: path if runtime == "onnxruntime" else other)
    with pytest.raises(BadInputError, match="android-cpu runs MNN, which does not run this network here: it reads"):
        hold(load_target("android-cpu"))


@pytest.mark.parametrize(
    ("runtime", "on_target", "mnn_ms", "is_in"),
    [
        ("onnxruntime", True, 1.0, True),
        ("onnxruntime", True, 3.0, False),
        ("onnxruntime", False, 3.0, True),
        ("onnxruntime", False, None, False),
        ("mnn", True, 3.0, True),
        ("mnn", False, 3.0, True),
    ],
)
def test_mnns_file_is_packed_where_it_won_or_is_still_to_race_or_is_the_targets(
    held, runtime, on_target, mnn_ms, is_in
):
    _, variant = held
    ran = tuple(placed([runner(FP32, 2.0), runner(FP32, mnn_ms, "mnn")], PROFILE, TARGET, {}))
    packed = model_files([variant], Race(on_target, ran, ()), Engines(), runtime)
    assert packed["model.onnx"] == module.Path(variant.file.path)
    assert ("mnn/fp32.mnn" in packed) is is_in
    if is_in:
        assert packed["mnn/fp32.mnn"].read_bytes()
        origin = export_origins([variant], packed, Race(on_target, ran, ()))["export/mnn"]
        assert (origin.parents, origin.file) == (("export/fp32",), "mnn/fp32.mnn")

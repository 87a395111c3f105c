import dataclasses
import json
from pathlib import Path

import pytest

from edgerecover.artifacts import Fingerprint, GateStatus
from edgerecover.config import LimitsFile, load_profile
from edgerecover.errors import BadInputError, VerificationError
from edgerecover.gate.baseline import read_baseline
from edgerecover.gate.check import GateRequest, gate

RELEASED = Path(__file__).resolve().parents[1] / "bundle" / "released"
OF_BASELINE = ["agreement_kept", "size_regression", "latency_regression", "memory_regression"]


def right(hits):
    """Digits of a model that has the first `hits` of a hundred images right."""
    return "1" * hits + "0" * (100 - hits)


def found(result):
    return {one.name: one for one in result.gates}


def statuses(result):
    return {one.name: one.status for one in result.gates}


def judged(bundle, **request):
    """Without measuring, which most of the gate needs not; a first baseline is wanted."""
    request.setdefault("init", "baseline" in request)
    return gate(GateRequest(bundle, measure=False, **request))


# --- limits ---------------------------------------------------------------------------------------------------


def test_a_bundle_alone_is_judged_by_its_own_limits(make_release):
    result = judged(make_release("a.bundle"))
    assert statuses(result) == {
        "agreement": GateStatus.PASS,
        "mask_kept": GateStatus.PASS,
        "not_worse_than_input": GateStatus.PASS,
        "parity_top1": GateStatus.PASS,
        "parity_logits": GateStatus.PASS,
    }
    assert found(result)["mask_kept"].message == "every pruned weight is zero"
    assert result.verdict is GateStatus.PASS
    assert (result.baseline, result.latency, result.written) == (None, None, None)


def test_the_gates_judge_what_was_measured_and_not_what_the_report_says_of_it(make_release):
    bundle = make_release("a.bundle", digits=right(20))
    assert found(judged(bundle))["agreement"].status is GateStatus.FAIL


def test_later_limits_take_the_place_of_earlier_ones_and_are_named(make_release):
    bundle = make_release("a.bundle", digits=right(65))
    assert found(judged(bundle))["agreement"].source == "profile toy"
    quality = judged(bundle, profile=load_profile("quality"))
    assert (found(quality)["agreement"].limit, found(quality)["agreement"].source) == (70.0, "profile quality")
    file = LimitsFile(min_agreement=0.95, max_file_mb=0.001)
    strict = judged(bundle, profile=load_profile("quality"), limits=(file, "strict.toml"))
    assert found(strict)["agreement"].status is GateStatus.FAIL
    assert found(strict)["agreement"].source == "limits strict.toml"
    assert "the 95 % of limits strict.toml" in found(strict)["agreement"].message
    assert found(strict)["file_size"].status is GateStatus.FAIL


# --- a baseline's numbers -------------------------------------------------------------------------------------


def test_the_first_run_is_skipped_and_writes_the_baseline(make_release, tmp_path):
    bundle, baseline = make_release("a.bundle"), tmp_path / "baseline.json"
    first = judged(bundle, baseline=baseline)
    assert [statuses(first)[name] for name in OF_BASELINE] == [GateStatus.SKIP] * 4
    assert (first.verdict, first.written) == (GateStatus.PASS, str(baseline))
    written = baseline.read_bytes()
    second = judged(bundle, baseline=baseline)
    assert statuses(second)["agreement_kept"] is GateStatus.PASS
    assert statuses(second)["latency_regression"] is GateStatus.INCONCLUSIVE
    assert (second.written, baseline.read_bytes()) == (None, written)


def test_a_release_that_fails_is_no_baseline(make_release, tmp_path):
    baseline = tmp_path / "baseline.json"
    result = judged(make_release("a.bundle", digits=right(20)), baseline=baseline)
    assert (result.verdict, result.written) == (GateStatus.FAIL, None)
    assert not baseline.exists()
    assert "a gate failed" in result.notes[0]


def test_what_got_worse_fails(make_release, tmp_path):
    baseline = tmp_path / "baseline.json"
    judged(make_release("a.bundle"), baseline=baseline)
    worse = judged(make_release("b.bundle", digits=right(70), size_bytes=11_000), baseline=baseline)
    assert statuses(worse)["agreement_kept"] is GateStatus.FAIL
    assert statuses(worse)["size_regression"] is GateStatus.FAIL
    assert worse.verdict is GateStatus.FAIL


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": Fingerprint({"cpu": "AMD EPYC", "cores": "4"})}, "cores: 4, was 2"),
        ({"num_threads": 2}, "num threads: 2, was 1"),
        ({"batch": 8}, "batch: 8, was 1"),
        ({"runtime": "openvino 2026.4"}, "runtime: openvino 2026.4, was onnxruntime 1.31.1"),
        ({"copies": True}, "copies: yes, was no"),
        ({"fingerprint": None}, "the machine: not known"),
    ],
)
def test_another_machine_or_scope_is_skipped_with_the_reason_and_added_for_the_same_model(
    make_release, latency, tmp_path, change, reason
):
    baseline = tmp_path / "baseline.json"
    judged(make_release("a.bundle"), baseline=baseline)
    there = make_release("there.bundle", latency=dataclasses.replace(latency, **change))
    result = judged(there, baseline=baseline)
    assert statuses(result)["latency_regression"] is GateStatus.SKIP
    assert reason in found(result)["latency_regression"].message
    assert statuses(result)["memory_regression"] is GateStatus.SKIP
    assert result.written == str(baseline)
    assert len(read_baseline(baseline).runs) == 2


def test_another_model_is_not_added_to_a_baseline_unless_asked(make_release, latency, tmp_path):
    baseline = tmp_path / "baseline.json"
    judged(make_release("a.bundle"), baseline=baseline)
    there = dataclasses.replace(latency, fingerprint=Fingerprint({"cpu": "another"}))
    other = make_release("b.bundle", sha256="ee" * 32, latency=there)
    result = judged(other, baseline=baseline)
    assert result.written is None
    assert "no latency of this machine" in result.notes[0]
    assert judged(other, baseline=baseline, update=True).written == str(baseline)
    assert read_baseline(baseline).release.bundle == "b.bundle"


def test_runs_are_added_when_asked_until_their_own_spread_tells(make_release, latency, tmp_path):
    bundle, baseline = make_release("a.bundle"), tmp_path / "baseline.json"
    for _ in range(5):
        judged(bundle, baseline=baseline, update=True)
    assert statuses(judged(bundle, baseline=baseline))["latency_regression"] is GateStatus.PASS
    slower = dataclasses.replace(latency, samples_ms=tuple(1.1 * value for value in latency.samples_ms))
    result = judged(make_release("b.bundle", latency=slower), baseline=baseline)
    assert statuses(result)["latency_regression"] is GateStatus.FAIL


# --- a baseline bundle ----------------------------------------------------------------------------------------


def test_the_first_run_keeps_the_bundle_where_a_bundle_is_named(make_release, tmp_path):
    bundle, baseline = make_release("a.bundle"), tmp_path / "last.bundle"
    first = judged(bundle, baseline=baseline)
    assert (statuses(first)["agreement_kept"], first.written) == (GateStatus.SKIP, str(baseline))
    assert (baseline / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    assert statuses(judged(bundle, baseline=baseline))["agreement_kept"] is GateStatus.PASS
    other = make_release("b.bundle", size_bytes=10_001)
    judged(other, baseline=baseline, update=True)
    assert (baseline / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_reports_of_two_bundles_are_compared_as_measured_at_different_times(make_release):
    result = judged(make_release("b.bundle"), baseline=make_release("a.bundle"))
    assert result.baseline.bundle == "a.bundle"
    assert "measured at different times" in found(result)["latency_regression"].message


@pytest.mark.parametrize("name", ["nothing", "nothing.toml", "."])
def test_a_baseline_that_is_none_is_refused(make_release, tmp_path, name):
    with pytest.raises(BadInputError) as caught:
        judged(make_release("a.bundle"), baseline=tmp_path / name)
    assert caught.value.hint


def test_a_baseline_that_is_not_there_is_refused_unless_it_is_the_first(make_release, tmp_path):
    with pytest.raises(BadInputError, match="does not exist") as caught:
        judged(make_release("a.bundle"), baseline=tmp_path / "mistyped.json", init=False)
    assert "--init-baseline" in caught.value.hint
    assert not (tmp_path / "mistyped.json").exists()


def test_a_baseline_for_another_target_is_refused(make_release, tmp_path):
    with pytest.raises(BadInputError, match=r"baseline for target 'pi', and .* was made for 'toy'"):
        judged(make_release("a.bundle"), baseline=make_release("b.bundle", target="pi"))


def test_both_bundles_are_verified_first(make_release):
    good, bad = make_release("a.bundle"), make_release("b.bundle")
    (bad / "report.json").write_text("{}")
    for bundle, baseline in ((good, bad), (bad, good), (bad, None)):
        with pytest.raises(VerificationError):
            judged(bundle, baseline=baseline)


def test_a_report_whose_numbers_contradict_each_other_is_refused(make_bundle, make_report):
    from edgerecover.artifacts import to_json

    data = to_json(make_report())
    data["fidelity"]["exported"] = {"hits": 300, "total": 100}
    bundle = make_bundle("a.bundle", report_json=json.dumps(data))
    with pytest.raises(BadInputError, match="300 of 100 is no proportion"):
        judged(bundle)


def test_a_report_of_an_earlier_version_is_read(make_bundle, make_report):
    from edgerecover.artifacts import to_json

    data = to_json(make_report())
    del data["fidelity"]["decisions"]
    earlier = make_bundle("a.bundle", report_json=json.dumps(data))
    result = judged(make_bundle("b.bundle", report_json=json.dumps(to_json(make_report()))), baseline=earlier)
    assert "100 and 100 images" in found(result)["agreement_kept"].message


def test_without_a_file_of_limits_the_configuration_tells_them(make_release, tmp_path):
    from edgerecover.bundle.write import write_bundle
    from edgerecover.config import load_target

    packed = make_release("a.bundle")
    profile, target = load_profile("quality"), load_target("x86-avx2")
    configuration = {"profile": profile.model_dump(mode="json"), "target": target.model_dump(mode="json")}
    files = {name: packed / name for name in ("model.onnx", "report.json")}
    earlier = write_bundle({**files, "config.json": json.dumps(configuration)}, tmp_path / "b.bundle", {})
    assert found(judged(earlier))["agreement"].source == "profile quality"
    neither = write_bundle(files, tmp_path / "c.bundle", {})
    with pytest.raises(BadInputError, match=r"no limits\.json"):
        judged(neither)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_bundle_of_every_released_version_is_judged_and_is_a_baseline(version):
    bundle = RELEASED / version
    result = judged(bundle, baseline=bundle)
    assert statuses(result)["agreement_kept"] in (GateStatus.PASS, GateStatus.INCONCLUSIVE)
    assert statuses(result)["size_regression"] is GateStatus.PASS
    assert statuses(result)["latency_regression"] is GateStatus.INCONCLUSIVE


def test_archives_are_judged_and_compared_as_their_folders(make_release, tmp_path):
    from edgerecover.bundle.carry import archive_path, pack_bundle

    folder = make_release("a.bundle")
    pack_bundle(folder, archive_path(folder))
    result = judged(archive_path(folder), baseline=archive_path(folder))
    assert (result.release.bundle, statuses(result)["agreement_kept"]) == ("a.bundle", GateStatus.PASS)
    first = judged(archive_path(folder), baseline=tmp_path / "last.bundle")
    assert first.written
    assert statuses(judged(folder, baseline=tmp_path / "last.bundle"))["agreement_kept"] is GateStatus.PASS
    with pytest.raises(BadInputError, match="does not write archives"):
        judged(folder, baseline=archive_path(folder), update=True)


# --- on this machine ------------------------------------------------------------------------------------------


def test_both_models_are_raced_here(make_release):
    bundle = make_release("a.bundle", limits={"max_latency_regression": 1000.0})
    result = gate(GateRequest(bundle, baseline=make_release("b.bundle"), seconds=0.0))
    assert [one.name for one in result.gates][-5:] == ["golden", *OF_BASELINE]
    assert statuses(result)["golden"] is GateStatus.PASS
    assert statuses(result)["latency_regression"] is GateStatus.PASS
    num_rounds = len(result.comparison.latency.round_sizes)
    assert num_rounds == len(result.comparison.before.round_sizes)
    assert f"in turns, {num_rounds} rounds" in result.comparison.how
    assert result.latency is result.comparison.latency


def test_on_the_target_its_limits_are_settled_here(make_release):
    result = gate(GateRequest(make_release("a.bundle", limits={"max_p99_ms": 60_000.0}), seconds=0.0))
    assert result.latency.host_is_target
    assert statuses(result)["latency_p99"] is GateStatus.PASS


def test_what_was_settled_on_the_target_is_not_unsettled_elsewhere(make_release, latency):
    there = dataclasses.replace(latency, host_is_target=True)
    bundle = make_release(
        "a.bundle", task={"machine": {"machine": "none of these"}}, limits={"max_p99_ms": 60_000.0}, latency=there
    )
    result = gate(GateRequest(bundle, seconds=0.0))
    assert not result.latency.host_is_target
    assert statuses(result)["latency_p99"] is GateStatus.PASS


def test_a_model_that_answers_otherwise_fails_and_is_not_timed(make_bundle, make_report):
    import numpy as np

    from edgerecover.artifacts import to_json
    from edgerecover.files import npy_bytes

    outputs = np.eye(5, dtype=np.float32)[np.arange(8) % 5]
    report = json.dumps(to_json(make_report()))
    bundle = make_bundle("a.bundle", report_json=report, golden__outputs_npy=npy_bytes(outputs))
    result = gate(GateRequest(bundle, baseline=make_bundle("b.bundle", report_json=report), seconds=0.0))
    assert statuses(result)["golden"] is GateStatus.FAIL
    assert result.latency is None
    assert "not timed" in found(result)["latency_regression"].message


def test_models_that_take_other_images_are_not_raced(make_release, write_onnx, tmp_path, make_bundle, make_report):
    import numpy as np

    from edgerecover.artifacts import to_json
    from edgerecover.files import npy_bytes

    model = write_onnx(tmp_path / "large.onnx", sides=(16, 16))
    images = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    other = make_bundle(
        "b.bundle",
        golden__inputs_npy=npy_bytes(images),
        report_json=json.dumps(to_json(make_report())),
        **{"model.onnx": model},
    )
    result = gate(GateRequest(make_release("a.bundle"), baseline=other, seconds=0.0))
    assert "it takes other images (3×8×8, was 3×16×16)" in found(result)["latency_regression"].message
    assert statuses(result)["latency_regression"] is GateStatus.SKIP

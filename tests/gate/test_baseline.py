import dataclasses
import json

import pytest

from edgerecover.artifacts import Fingerprint, to_json
from edgerecover.errors import BadInputError
from edgerecover.gate.baseline import MAX_RUNS, baseline_of, read_baseline, write_baseline
from edgerecover.gate.opening import release_of


@pytest.fixture
def release(make_report):
    return release_of(make_report(), "toy.bundle", "ab" * 32)


def test_what_is_written_is_read_but_for_the_warm_up_and_digits_that_mean_nothing(release, latency, tmp_path):
    exact = dataclasses.replace(latency, samples_ms=(1.23456789, *latency.samples_ms[1:]))
    baseline = baseline_of(release, None, exact)
    write_baseline(tmp_path / "baseline.json", baseline)
    read = read_baseline(tmp_path / "baseline.json")
    assert read == baseline
    assert read.runs[0].samples_ms[0] == 1.235
    assert read.runs[0].warmup_ms == ()


def test_samples_are_one_line_and_the_rest_is_readable(release, latency, tmp_path):
    write_baseline(tmp_path / "baseline.json", baseline_of(release, None, latency))
    lines = (tmp_path / "baseline.json").read_text().splitlines()
    assert sum("2.01, 2.0" in line for line in lines) == 1
    assert '  "target": "toy",' in lines


def test_runs_of_the_same_model_are_added_and_the_oldest_of_a_machine_go(release, latency):
    baseline = None
    for number in range(MAX_RUNS + 3):
        baseline = baseline_of(release, baseline, dataclasses.replace(latency, load_ms=float(number)))
    other = dataclasses.replace(latency, fingerprint=Fingerprint({"cpu": "another"}))
    baseline = baseline_of(release, baseline, other)
    assert [run.load_ms for run in baseline.runs[:-1]] == [float(number) for number in range(3, MAX_RUNS + 3)]
    assert baseline.runs[-1].fingerprint == other.fingerprint


def test_runs_of_another_model_are_left_behind(release, latency):
    earlier = baseline_of(dataclasses.replace(release, model_sha256="9" * 64), None, latency)
    assert len(baseline_of(release, earlier, latency).runs) == 1


@pytest.fixture
def written(release, latency):
    return to_json(baseline_of(release, None, latency))


def changed(data, path, value):
    """A copy with one value replaced, or an item added."""
    data = json.loads(json.dumps(data))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["schema_version"], 2, "schema 1 are read here, this is one of 2"),
        (["schema_version"], True, "int was expected, found bool"),
        (["more"], 1, "unknown field 'more'"),
        (["release", "agreement"], {"hits": 5, "total": 3}, "5 of 3 is no proportion"),
        (["release", "agreement"], {"hits": 0, "total": 0}, "0 of 0 is no proportion"),
        (["release", "agreement"], {"hits": 10**400, "total": 10**400}, "too large"),
        (["release", "decisions", "right"], "01x", "0 and 1"),
        (["release", "decisions", "shares"], [0.5, 1.5], "numbers from 0 to 1"),
        (["release", "decisions", "right"], "01", "its decisions or its size contradict the rest"),
        (["release", "size_bytes"], 0, "contradict"),
        (["release", "target"], 5, "str was expected, found int"),
        (["runs", 0, "samples_ms"], [], "no latency samples"),
        (["runs", 0, "samples_ms"], [-1.0], "no latency samples, or some below 0"),
        (["runs", 0, "round_sizes"], [3], "rounds hold 3 samples, there are 120"),
        (["runs", 0, "round_sizes"], [240, -120], "rounds hold 120"),
        (["runs", 0, "memory_peak_bytes"], -5, "memory is below 0"),
        (["runs"], {}, "a list was expected"),
    ],
)
def test_a_hostile_baseline_ends_in_a_message(written, tmp_path, path, value, named):
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps(changed(written, path, value)))
    with pytest.raises(BadInputError) as caught:
        read_baseline(file)
    assert named in caught.value.message or "below 0" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"schema_version": 1, "schema_version": 1}',
        b'{"schema_version": NaN}',
        b'{"schema_version": 1e999}',
        b'{"schema_version": ' + b"9" * 10_000 + b"}",
        b'{"a": "\\u001b[2J"}',
    ],
)
def test_what_is_no_baseline_at_all_ends_in_a_message_too(tmp_path, content):
    file = tmp_path / "baseline.json"
    file.write_bytes(content)
    with pytest.raises(BadInputError, match="cannot be read as a baseline") as caught:
        read_baseline(file)
    assert caught.value.message.isprintable()


def test_a_folder_or_a_link_to_nowhere_is_no_baseline(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_baseline(tmp_path / "link.json")


def test_a_place_that_cannot_be_written_is_named(release, latency, tmp_path):
    with pytest.raises(BadInputError, match="cannot be written"):
        write_baseline(tmp_path / "none" / "baseline.json", baseline_of(release, None, latency))

"""Two reports side by side: what `edgerecover.commands.compare` finds, and how it is shown."""

import dataclasses
import io
import json
from html.parser import HTMLParser

import pytest
from rich.console import Console

from edgerecover.artifacts import (
    Accuracy,
    Decisions,
    Fingerprint,
    OutputPart,
    OutputSpec,
    Pattern,
    Proportion,
    RecordFacts,
    Sparsity,
    TaskKind,
    to_json,
)
from edgerecover.commands.compare import side_by_side
from edgerecover.report.side_by_side_html import side_by_side_html
from edgerecover.report.side_by_side_terminal import print_side_by_side

IMAGES = "11" * 32


@pytest.fixture
def both(opened):
    return lambda a, b: side_by_side(opened(a), opened(b), "old.bundle", "new.bundle")


def measure(compared, name):
    (found,) = [one for one in compared.measures if one.name == name]
    return found


def deciding(report, right, images=IMAGES):
    decisions = Decisions(images, right) if images else None
    exported = Proportion(right.count("1"), len(right))
    return dataclasses.replace(
        report, fidelity=dataclasses.replace(report.fidelity, exported=exported, decisions=decisions)
    )


def timed(report, factor=1.0, **changes):
    samples = tuple(factor * sample for sample in report.latency.samples_ms)
    return dataclasses.replace(report, latency=dataclasses.replace(report.latency, samples_ms=samples, **changes))


def shown(compared, width=80):
    file = io.StringIO()
    print_side_by_side(Console(width=width, file=file, no_color=True), compared)
    return file.getvalue()


def test_a_report_beside_itself_differs_in_nothing(both, full_report):
    compared = both(full_report, full_report)
    assert not any(fact.differs for fact in compared.facts)
    assert not any(pair.differs for pair in compared.gates)
    assert compared.layers == ()
    assert {one.verdict for one in compared.measures if one.name != "latency p99"} == {"same"}
    text = shown(compared)
    assert "nothing" in text
    assert f"all {len(full_report.gates)} came out the same" in text


def test_pairs_tell_what_intervals_cannot(both, report):
    """Twelve of 256 images won and none lost is no chance, though the intervals overlap widely."""
    before, after = (deciding(report, "1" * hits + "0" * (256 - hits)) for hits in (220, 232))
    won = measure(both(before, after), "agreement")
    assert won.verdict == "better"
    assert "on the same images" in won.difference
    assert measure(both(after, before), "agreement").verdict == "worse"
    other = deciding(report, "1" * 232 + "0" * 24, images="22" * 32)
    elsewhere = measure(both(before, other), "agreement")
    assert elsewhere.verdict == "same"
    assert "not the same" in elsewhere.difference
    unknown = measure(both(before, deciding(report, "1" * 232 + "0" * 24, images=None)), "agreement")
    assert unknown.verdict == "same"
    assert "not known image by image" in unknown.difference


@pytest.mark.parametrize("what", ["teacher", "profile", "record"])
def test_agreement_with_another_teacher_or_on_other_images_is_not_compared(both, report, what):
    changes = {
        "teacher": dataclasses.replace(report.teacher, sha256="99" * 32),
        "profile": "fast",
        "record": RecordFacts("r", "77" * 32, 10, "joint", 100, 0.0),
    }
    found = measure(both(report, dataclasses.replace(report, **{what: changes[what]})), "agreement")
    assert found.verdict == "not compared"
    assert what in found.difference


def test_accuracy_is_compared_on_the_same_images_alone(both, report, report_with_accuracy):
    one = measure(both(report, report_with_accuracy), "accuracy")
    assert (one.verdict, one.a, one.a_words) == ("not compared", None, "not measured")
    assert "accuracy" not in {found.name for found in both(report, report).measures}
    renamed = dataclasses.replace(
        report_with_accuracy, accuracy=dataclasses.replace(report_with_accuracy.accuracy, source="others")
    )
    assert measure(both(report_with_accuracy, renamed), "accuracy").verdict == "not compared"
    hits = Proportion(300, 500)
    worse = dataclasses.replace(
        report_with_accuracy, accuracy=Accuracy("cifar10_dev", 500, Proportion(455, 500), None, None, hits, 160, 5)
    )
    assert measure(both(report_with_accuracy, worse), "accuracy").verdict == "worse"


def test_latency_is_compared_where_machine_and_query_are_the_same(both, full_report):
    slow = timed(full_report, 40.0)
    assert measure(both(full_report, slow), "latency p50").verdict == "worse"
    assert measure(both(slow, full_report), "latency p50").verdict == "better"
    a_little = measure(both(full_report, timed(full_report, 1.05)), "latency p50")
    assert a_little.verdict == "not certain"  # a machine's mood alone moves it so far from one time to the next
    assert "measured at different times" in a_little.difference
    elsewhere = timed(slow, fingerprint=Fingerprint({"cpu": "another", "onnxruntime": "1.31.1"}))
    for changed, why in ((elsewhere, "cpu: another, was Intel"), (timed(slow, batch=8), "batch: 8, was 1")):
        for name in ("latency p50", "latency p99", "peak memory"):
            found = measure(both(full_report, changed), name)
            assert found.verdict == "not compared"
            assert why in found.difference
    unknown = measure(both(full_report, timed(slow, fingerprint=None)), "latency p50")
    assert (unknown.verdict, unknown.difference) == ("not compared", "the machine of one of them is unknown")


def test_size_and_memory(both, full_report):
    exported = dataclasses.replace(full_report.exported, size_bytes=900_000)
    memory = full_report.latency.memory_peak_bytes + 20_000_000
    other = timed(dataclasses.replace(full_report, exported=exported), memory_peak_bytes=memory)
    compared = both(full_report, other)
    assert measure(compared, "file").verdict == "better"
    assert measure(compared, "file").difference == "-19.7 %"
    assert measure(compared, "peak memory").verdict == "worse"


def test_layers_whose_zeros_differ(both, report):
    first, *rest = report.recovered_sparsity.layers
    fewer = Sparsity((dataclasses.replace(first, num_zeros=first.num_zeros // 2), *rest), Pattern.UNSTRUCTURED)
    compared = both(report, dataclasses.replace(report, recovered_sparsity=fewer))
    assert [(layer.name, layer.a, layer.b) for layer in compared.layers] == [
        ("conv1.weight", "22.7 % of 432", "11.3 % of 432")
    ]
    foreign = tuple(dataclasses.replace(layer, name=f"x.{layer.name}") for layer in rest)
    other = dataclasses.replace(report, recovered_sparsity=Sparsity(foreign, Pattern.UNSTRUCTURED))
    assert both(report, other).layers == ()


@pytest.fixture
def changed(both, full_report, report):
    evil = "<script>alert(1)</script>\x1b[2J\u202e"
    gates = tuple(dataclasses.replace(gate, name=f"{evil}{gate.name}") for gate in report.gates)
    student = dataclasses.replace(report.student, path=evil, architecture=evil)
    return both(full_report, dataclasses.replace(report, gates=gates, student=student, profile=evil))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_shows_it_within_its_width_and_nothing_steers_it(changed, width):
    text = shown(changed, width)
    assert max(len(line) for line in text.splitlines()) <= min(width, 100)
    assert "\x1b" not in text
    assert "\u202e" not in text
    for fact in ("old.bundle", "new.bundle", "not compared", "architecture", "\\x1b[2J"):
        assert fact in text


def test_the_page_shows_it_and_nothing_becomes_markup(changed):
    tags, texts = [], []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.handle_data = texts.append
    page = side_by_side_html(changed)
    parser.feed(page)
    assert "script" not in tags
    assert "\x1b" not in page
    assert "\u202e" not in page
    text = " ".join(" ".join(texts).split())
    for fact in ("Two bundles side by side", "A: old.bundle", "not compared", "<script>alert(1)</script>"):
        assert fact in text


def test_it_is_json_for_machines(changed):
    data = json.loads(json.dumps(to_json(changed), allow_nan=False))
    assert {one["verdict"] for one in data["measures"]} <= {"better", "worse", "same", "not certain", "not compared"}
    assert data["measures"][0]["name"] == "agreement"
    assert 0 <= data["measures"][0]["a"] <= 1


def with_outputs(report, digit, mask, task=TaskKind.SEGMENTATION, name="mask"):
    """A report of two outputs, of which so many of 256 images agree, and so many of 500 real ones are right."""
    parts = OutputPart("digit", OutputSpec.one_label(3)), OutputPart(name, OutputSpec(task, (4, 8, 8)))
    facts = dataclasses.replace(report.student, output=OutputSpec.several(parts))
    hits = {"digit": digit, name: mask}
    by_output = {one: deciding(report, "1" * n + "0" * (256 - n)).fidelity for one, n in hits.items()}
    accuracy = {
        one: dataclasses.replace(report.accuracy, exported=Proportion(n, 500), decisions=None)
        for one, n in hits.items()
    }
    return dataclasses.replace(
        report,
        student=facts,
        teacher=dataclasses.replace(report.teacher, output=facts.output),
        fidelity=dataclasses.replace(report.fidelity, by_output=by_output),
        accuracy=dataclasses.replace(report.accuracy, by_output=accuracy),
    )


def test_each_of_several_outputs_is_compared(both, report_with_accuracy):
    before, after = with_outputs(report_with_accuracy, 200, 250), with_outputs(report_with_accuracy, 240, 200)
    compared = both(before, after)
    assert [one.name for one in compared.measures][:6] == [
        "weighted agreement", "digit: agreement", "mask: mean IoU with the teacher",
        "weighted accuracy", "digit: accuracy", "mask: mean IoU",
    ]  # fmt: skip
    digit, mask = measure(compared, "digit: agreement"), measure(compared, "mask: mean IoU with the teacher")
    assert (digit.verdict, mask.verdict) == ("better", "worse")
    assert "on the same images" in digit.difference
    for text in (shown(compared), side_by_side_html(compared)):
        assert "digit: agreement" in text
        assert "78.1 %" in text
    text = shown(compared)
    assert max(len(line) for line in text.splitlines()) <= 80


def test_outputs_of_another_task_are_not_compared(both, report_with_accuracy):
    before = with_outputs(report_with_accuracy, 200, 250)
    other = measure(both(before, with_outputs(report_with_accuracy, 200, 250, TaskKind.REGRESSION)), "mask: closeness")
    assert (other.verdict, other.difference) == ("not compared", "task: regression, was segmentation")
    renamed = both(before, with_outputs(report_with_accuracy, 200, 250, name="depth"))
    assert [one.name for one in renamed.measures if ": " in one.name] == ["digit: agreement", "digit: accuracy"]


def test_the_same_measure_with_the_teacher_and_with_the_truth_has_two_names(both, full_report):
    output = OutputSpec(TaskKind.SEGMENTATION, (4, 8, 8))
    facts = {name: dataclasses.replace(getattr(full_report, name), output=output) for name in ("student", "teacher")}
    report = dataclasses.replace(full_report, **facts)
    assert {"mean IoU with the teacher", "mean IoU"} <= {one.name for one in both(report, report).measures}

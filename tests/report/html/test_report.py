import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from edgerecover.artifacts import ByClass, Confused, GateStatus, Pattern, RecordFacts, Sheet, Sparsity
from edgerecover.report.html.draw import MAX_BYTES
from edgerecover.report.html.report import html

VOID = {"meta", "img"}
EVIL = "<script>alert(1)</script>\"'&\x1b[31m\u202egnp"


class Document(HTMLParser):
    """Tags that must be balanced, texts, and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def rendered(report, *rest):
    return Document(html(report, *rest))


def test_the_facts_of_a_run_are_there(full_report):
    text = rendered(full_report).text
    for fact in (
        "PASS model.pt for jetson-orin",
        "3 of 4 gates pass; 1 is to be settled on the device",
        "models.py:resnet20, 269,722 parameters, 80.4 % zeros (unstructured)",
        "profile balanced, seed 0, cpu (2 threads), data used: eval-only",
        "89.8 %",
        "teacher 91.0 %, pruned 60.6 %",
        "91.8 % (87.8–94.6)",
        "Accuracy on 500 real labelled images: cifar10_dev",
        "Host latency: this machine is not the target",
        "the limit of 5 ms is settled by measuring on jetson-orin",
        "3 keys of optimizer state were ignored",
        "torch 2.15.0",
        "3f" * 32,
    ):
        assert fact in text, fact


def test_a_prediction_that_means_nothing_is_not_stated(report):
    predicted = dataclasses.replace(report.fidelity.predicted, doubt="2,000 classes")
    text = rendered(
        dataclasses.replace(report, accuracy=None, fidelity=dataclasses.replace(report.fidelity, predicted=predicted))
    ).text
    assert "cannot be predicted 2,000 classes; judge on real images with --eval-data" in text
    assert "97 %" not in text


def test_agreement_is_not_called_accuracy(report):
    text = rendered(dataclasses.replace(report, fidelity=dataclasses.replace(report.fidelity, predicted=None))).text
    assert "not accuracy" in text
    assert (
        "It is not accuracy: that is how often a network is right on real labelled images, and none were given." in text
    )
    assert "Accuracy not measured" in text
    without = text.replace("not accuracy", "").replace("Accuracy not measured", "")
    assert "accuracy" not in without.lower()


def test_nothing_of_a_hostile_report_becomes_markup(full_report):
    stage, *stages = full_report.stages
    rung, *rungs = full_report.rungs
    gate, *gates = full_report.gates
    layer, *layers = full_report.recovered_sparsity.layers
    hostile = dataclasses.replace(
        full_report,
        student=dataclasses.replace(full_report.student, path=EVIL, architecture=EVIL, format=EVIL),
        teacher=dataclasses.replace(full_report.teacher, path=EVIL, sha256=EVIL),
        target=EVIL,
        target_description=EVIL,
        profile=EVIL,
        device=EVIL,
        classes=(EVIL,) * 4,
        warnings=(EVIL,),
        sparsity_verdict=EVIL,
        stages=(dataclasses.replace(stage, stage=EVIL), *stages),
        rungs=(dataclasses.replace(rung, name=EVIL), *rungs),
        gates=(dataclasses.replace(gate, name=EVIL, message=EVIL), *gates),
        recovered_sparsity=dataclasses.replace(
            full_report.recovered_sparsity, layers=(dataclasses.replace(layer, name=EVIL), *layers)
        ),
        latency=dataclasses.replace(full_report.latency, scope=EVIL, runtime=EVIL, notes=(EVIL,)),
        accuracy=dataclasses.replace(full_report.accuracy, source=EVIL),
        tool_versions={EVIL: EVIL},
    )
    text = html(hostile, sheet_of(4), EVIL)
    document = Document(text)
    assert not document.all("script")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert document.text.count("<script>alert(1)</script>") > 20
    attributes = {name for _, found in document.tags for name in found}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_the_page_forbids_itself_everything_but_its_own_style_and_pictures(full_report):
    text = html(full_report, sheet_of(4))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in Document(text).all("meta") if "http-equiv" in meta]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"url\(|@import|https?://", style)
    for _, attributes in Document(text).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))


def test_it_can_be_read_without_seeing_it(full_report):
    document = rendered(full_report, sheet_of(4))
    assert document.all("html")[0]["lang"] == "en"
    assert len(document.all("h1")) == 1
    tables = document.all("table")
    assert len(document.all("caption")) == len(tables) > 8
    for picture in document.all("img"):
        assert re.fullmatch(r"\d+ synthetic images? made for \w+", picture["alt"])
    for drawing in document.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
    anchors = {section["id"] for section in document.all("section")}
    assert {link["href"].removeprefix("#") for link in document.all("a")} == anchors


def sheet_of(num_classes):
    """A contact sheet of one 64×64 image each, as `full_report.sheet` describes it."""
    sheet = Image.new("RGB", (2 + 66, 2 + 66 * num_classes), "white")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_are_named_by_class(full_report):
    document = rendered(full_report, sheet_of(4))
    assert [picture["alt"] for picture in document.all("img")] == [
        f"1 synthetic image made for {name}" for name in ("cat", "dog", "ship", "frog")
    ]
    assert not rendered(full_report).all("img")


def test_the_curve_starts_where_the_rung_before_it_ended(full_report):
    text = html(full_report)
    (chart,) = re.findall(r'<svg class="chart"[^>]*aria-label="distillation: agreement[^"]*".*?</svg>', text, re.DOTALL)
    assert re.findall(r"<title>(.*?)</title>", chart) == ["step 0: 74.2 %", "step 100: 85.0 %", "step 200: 91.8 %"]
    points = re.search(r'points="([^"]+)"', chart)[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert heights == sorted(heights, reverse=True)
    assert "From 2 to 0.5 in 200 steps." in text


def test_confusion_counts_every_image(full_report):
    text = html(full_report)
    matrix = re.search(r'<table class="matrix">(.*?)</table>', text, re.DOTALL)[1]
    rows = re.findall(r"<tr><th scope=\"row\">(\w+)</th>(.*?)</tr>", matrix)
    assert [name for name, _ in rows] == ["cat", "dog", "ship", "frog"]
    counts = [[int(cell or 0) for cell in re.findall(r"<td[^>]*>(\d*)</td>", row)] for _, row in rows]
    assert [sum(row) for row in counts] == [64, 64, 64, 64]
    assert [row[number] for number, row in enumerate(counts)] == [60, 58, 63, 52]
    assert counts[3][:2] == [12, 0]
    assert "not a number" in matrix


def test_a_thousand_classes_stay_readable_and_small(report):
    rng = np.random.default_rng(0)
    totals = tuple(int(n) for n in rng.integers(0, 60, 1000))
    hits = tuple(int(rng.integers(0, total + 1)) for total in totals)
    confused = tuple(Confused(int(a), int(b), 3) for a, b in rng.integers(0, 1000, (1000, 2)))
    many = dataclasses.replace(
        report,
        classes=tuple(f"class of a rather long name, number {number}" for number in range(1000)),
        teacher=dataclasses.replace(report.teacher, num_classes=1000),
        fidelity=dataclasses.replace(report.fidelity, by_class=ByClass(totals, hits, hits, confused, 17)),
        sheet=Sheet("dreams.png", 10, 96, 96, 2, tuple(range(0, 1000, 10))),
    )
    noise = Image.fromarray(rng.integers(0, 256, (2 + 980, 2 + 980, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    text = html(many, buffer.getvalue())
    assert len(text.encode()) < MAX_BYTES
    document = Document(text)
    assert 50 < len(document.all("img")) <= 100
    assert "matrix" not in {table.get("class") for table in document.all("table")}
    present = sum(total > 0 for total in totals)
    assert f"the 40 lowest of {present} classes" in document.text
    assert "Most frequent confusions" in document.text
    assert f"{1000 - present} classes of 1,000 had no image." in document.text
    assert len(document.all("tr")) < 200


def test_however_long_its_texts_it_stays_small(full_report):
    long = "x" * 200_000
    bloated = dataclasses.replace(
        full_report,
        warnings=(long,) * 300,
        classes=(long,) * 4,
        gates=full_report.gates * 50 + tuple(dataclasses.replace(g, message=long) for g in full_report.gates * 50),
        tool_versions={f"{number}{long}": long for number in range(100)},
    )
    text = html(bloated, sheet_of(4))
    assert len(text.encode()) <= MAX_BYTES
    assert "…" in text


def test_a_file_from_elsewhere_shows_what_there_is(report):
    alone = dataclasses.replace(report.fidelity, pruned=None, recovered=None, predicted=None)
    text = rendered(dataclasses.replace(report, rungs=(), parity=None, fidelity=alone, race=None)).text
    assert "exported file" in text
    for absent in ("Parity", "before recovery", "None", "in PyTorch"):
        assert absent not in text


def test_an_unsettled_gate_and_one_without_a_number_are_shown(report):
    gate = dataclasses.replace(report.gates[0], status=GateStatus.INCONCLUSIVE, measured=12.0, limit=10.0)
    text = rendered(dataclasses.replace(report, gates=(gate,))).text
    assert "UNSURE" in text
    assert "12 % ≥ 10 %" in text


def test_the_manifest_is_named_where_it_is_known(report):
    assert "bundle's manifest " + "ab" * 32 in rendered(report, None, "ab" * 32).text
    assert "bundle's manifest" not in rendered(report).text


def test_of_fewer_channels_what_is_gone_is_of_the_dense_network(report):
    """A narrower layer has no zeros, and half of its weights are gone all the same."""
    dense = tuple(
        dataclasses.replace(layer, num_weights=2 * layer.num_weights, num_zeros=0, pattern=Pattern.DENSE)
        for layer in report.student.sparsity.layers
    )
    narrow = Sparsity(
        tuple(dataclasses.replace(layer, num_zeros=0) for layer in report.student.sparsity.layers), Pattern.CHANNEL
    )
    pruned = dataclasses.replace(
        report,
        student=dataclasses.replace(report.student, sparsity=narrow, macs_kept=0.47),
        teacher=dataclasses.replace(report.teacher, sparsity=Sparsity(dense, Pattern.DENSE)),
        recovered_sparsity=narrow,
    )
    text = html(pruned)
    chart = re.search(r'aria-label="Weights that are gone, of the dense network.*?</svg>', text, re.DOTALL)[0]
    assert set(re.findall(r": ([\d.]+ %)</title>", chart)) == {"50.0 %"}
    assert "47.0 % of MACs" in text


def test_what_the_pictures_were_made_from_is_said(full_report):
    def said(**changes):
        return rendered(dataclasses.replace(full_report, **changes), sheet_of(4)).text

    record = RecordFacts("r", "77" * 32, 10, "joint", 100, 0.0)
    real = dataclasses.replace(full_report.synthetic, source="real images")
    assert "They were made from the teacher alone. No real image is among them." in said()
    assert "from statistics of real images (its activation record)" in said(record=record)
    assert "judged on real images, which are not shown" in said(synthetic=real)

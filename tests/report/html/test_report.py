import base64
import dataclasses
import hashlib
import re

from edgerecover.artifacts import GateStatus
from edgerecover.report.html.draw import MAX_BYTES
from edgerecover.report.html.report import html

EVIL = "<script>alert(1)</script>\"'&\x1b[31m\u202egnp"


def test_the_facts_of_a_run_are_there(full_report, render):
    text = render(full_report).text
    for fact in (
        "PASS model.pt for jetson-orin",
        "3 of 4 gates pass; 1 can only be settled on the device",
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


def test_nothing_of_a_hostile_report_becomes_markup(full_report, parse, sheet_of):
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
    document = parse(text)
    assert not document.all("script")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert document.text.count("<script>alert(1)</script>") > 20
    attributes = {name for _, found in document.tags for name in found}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_the_page_forbids_itself_everything_but_its_own_style_and_pictures(full_report, parse, sheet_of):
    text = html(full_report, sheet_of(4))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in parse(text).all("meta") if "http-equiv" in meta]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"url\(|@import|https?://", style)
    for _, attributes in parse(text).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))


def test_it_can_be_read_without_seeing_it(full_report, render, sheet_of):
    document = render(full_report, sheet_of(4))
    assert document.all("html")[0]["lang"] == "en"
    assert len(document.all("h1")) == 1
    tables = document.all("table")
    assert len(document.all("caption")) == len(tables) > 8
    for picture in document.all("img"):
        assert re.fullmatch(r"\d+ synthetic images? made for \w+", picture["alt"])
    for drawing in document.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
    anchors = {section["id"] for section in document.all("section")}
    words = {entry["id"] for entry in document.all("div") if "id" in entry}
    links = {link["href"].removeprefix("#") for link in document.all("a")}
    assert anchors <= links <= anchors | words


def test_gates_have_the_names_that_people_use(full_report, render):
    gate = dataclasses.replace(full_report.gates[0], name="not_worse_than_input")
    text = render(dataclasses.replace(full_report, gates=(gate,))).text
    assert "not worse than the input" in text
    assert "not_worse" not in text


def test_a_long_name_may_be_broken_after_its_dots_alone(full_report):
    layer, *layers = full_report.recovered_sparsity.layers
    sparsity = dataclasses.replace(
        full_report.recovered_sparsity, layers=(dataclasses.replace(layer, name="features.3.<b>x_conv"), *layers)
    )
    text = html(dataclasses.replace(full_report, recovered_sparsity=sparsity))
    assert ">features.<wbr>3.&lt;b&gt;x_<wbr>conv</th>" in text


def test_however_long_its_texts_it_stays_small(full_report, sheet_of):
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


def test_an_unsettled_gate_and_one_without_a_number_are_shown(report, render):
    gate = dataclasses.replace(report.gates[0], status=GateStatus.INCONCLUSIVE, measured=12.0, limit=10.0)
    text = render(dataclasses.replace(report, gates=(gate,))).text
    assert "INCONCLUSIVE" in text
    assert "12 % ≥ 10 %" in text

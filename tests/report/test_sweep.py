"""Table and picture of a sweep: the same facts in the terminal, in Markdown, in HTML and in SVG."""

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from edgerecover.artifacts import GateStatus, Host, Latency, PointFound, Precision, Proportion, Sweep, SweepPoint
from edgerecover.report.sweep import html, markdown
from edgerecover.report.sweep_picture import front_svg
from edgerecover.report.sweep_terminal import print_sweep
from edgerecover.sweep.front import with_front


def latency(median_ms):
    return Latency(
        scope="one call", runtime="onnxruntime 1", provider="CPUExecutionProvider", nodes_by_provider={}, num_threads=1,
        batch=1, host=Host("x86_64", "a CPU", 2, "Linux"), host_is_target=False, warmup_ms=(),
        samples_ms=(median_ms,) * 60, load_ms=1.0, memory_before_bytes=0, memory_peak_bytes=0, round_sizes=(3,) * 20,
    )  # fmt: skip


def found(sparsity, hits, median_ms, size_bytes, profile="balanced"):
    return PointFound(
        SweepPoint(f"unstructured-{100 * sparsity:g}-{profile}", "unstructured", sparsity, profile), "a.bundle",
        quality=Proportion(hits, 200), verdict=GateStatus.PASS, precision=Precision.INT8, size_bytes=size_bytes,
        latency=latency(median_ms),
    )  # fmt: skip


@pytest.fixture
def sweep():
    points = [found(0.5, 190, 2.0, 4_000_000), found(0.75, 180, 1.0, 2_000_000), found(0.9, 120, 1.5, 2_000_000)]
    failed = PointFound(
        SweepPoint("channel-99", "channel", 0.99, "balanced"), "", error="nothing <would> be left", hint="prune less",
        exit_code=2,
    )  # fmt: skip
    return Sweep(
        "0.1.0", "2026-01-01T00:00:00+00:00", "net<b>.pt", "toy", "agreement", "200 held-out dreams", "0",
        with_front([*points, failed]),
    )  # fmt: skip


def terminal(sweep, width=80):
    console = Console(file=io.StringIO(), width=width, no_color=True)
    print_sweep(console, sweep, "net.toy.sweep")
    return console.file.getvalue()


def test_the_terminals_table_fits_and_says_who_is_on_the_front(sweep):
    text = terminal(sweep)
    assert max(map(len, text.splitlines())) <= 80
    lines = {line.split("%")[0].strip(): " ".join(line.split()) for line in text.splitlines() if "%" in line}
    assert lines["0  unstructured 50"].endswith("front")
    assert "95.0 % (91.0–97.3) 2.000 ms 4 MB pass" in lines["0  unstructured 50"]
    assert lines["2  unstructured 90"].endswith("behind 1")
    assert "failed" in lines["3  channel 99"]
    assert "nothing <would> be left; prune less" in " ".join(text.split())
    assert "not the target" in " ".join(text.split())


def test_agreement_is_not_called_accuracy(sweep):
    texts = [terminal(sweep), markdown(sweep, "front.svg"), html(sweep, front_svg(sweep))]
    assert not any("accuracy" in text.lower() for text in texts)
    real = replace(sweep, measure="accuracy", measured_on="500 real images: test.npz")
    assert "correct decisions on" in markdown(real, "front.svg")


def test_markdown_has_a_row_per_point_and_the_picture(sweep):
    text = markdown(sweep, "front.svg")
    assert len(re.findall(r"^\| \d ", text, re.MULTILINE)) == 4
    assert "| **unstructured 75 %** |" in text
    assert "](front.svg)" in text


def test_html_stands_alone_and_escapes_names(sweep):
    page = html(sweep, front_svg(sweep))
    assert "net&lt;b&gt;.pt" in page
    assert "<b>" not in page
    assert "<would>" not in page
    assert not re.search(r"(src|href)=", page)
    assert "prefers-color-scheme" in page
    assert page.count("<tr class=front>") == 2


def test_the_picture_draws_every_timed_point_where_it_is(sweep):
    root = ET.fromstring(front_svg(sweep))
    space = "{http://www.w3.org/2000/svg}"
    discs = [
        (c.get("class"), float(c.get("cx")), float(c.get("cy")), float(c.get("r"))) for c in root.iter(f"{space}circle")
    ]
    assert [kind for kind, *_ in discs] == ["on", "on", "off"]
    (_, x0, y0, r0), (_, x1, y1, r1), (_, x2, y2, r2) = discs
    assert x1 < x2 < x0  # 1.0, 1.5 and 2.0 ms
    assert x2 - x1 == pytest.approx(x0 - x2, abs=0.2)
    assert y0 < y1 < y2  # higher is better
    assert r0**2 == pytest.approx(2 * r1**2, rel=0.05)
    assert r1 == r2
    assert root.get("role") == "img"
    assert "on the front: unstructured 50 %, unstructured 75 %" in root.find(f"{space}title").text


@pytest.mark.parametrize("medians", [(1.0, 1.0), (0.01, 40.0), (1e-4, 2e-4)])
@pytest.mark.parametrize("hits", [(0, 0), (200, 200), (1, 199)])
def test_any_numbers_can_be_drawn(sweep, medians, hits):
    points = [found(0.5, hits[0], medians[0], 1), found(0.9, hits[1], medians[1], 10**9)]
    drawn = front_svg(replace(sweep, found=with_front(points)))
    for number in re.findall(r' (?:cx|cy|x|y|x1|x2|y1|y2)="([^"]*)"', drawn):
        assert -1 <= float(number) <= 721


def test_labels_do_not_lie_on_each_other(sweep):
    points = [found(0.5 + 0.02 * n, 190, 1.0, 1000) for n in range(12)]
    drawn = front_svg(replace(sweep, found=with_front(points)))
    heights = sorted(
        float(y) for y in re.findall(r'<text x="[^"]*" y="([^"]*)" text-anchor="(?:start|end)">uns', drawn)
    )
    assert len(heights) == 12
    assert min(b - a for a, b in pairwise(heights)) >= 14.9


def test_nothing_timed_is_still_a_picture(sweep):
    ET.fromstring(front_svg(replace(sweep, found=sweep.found[3:])))

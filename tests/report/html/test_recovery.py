import dataclasses
import re

from edgerecover.report.html.report import html


def test_the_curve_starts_where_the_rung_before_it_ended(full_report):
    text = html(full_report)
    (chart,) = re.findall(r'<svg class="chart"[^>]*aria-label="distillation: agreement[^"]*".*?</svg>', text, re.DOTALL)
    assert re.findall(r"<title>(.*?)</title>", chart) == ["step 0: 74.2 %", "step 100: 85.0 %", "step 200: 91.8 %"]
    points = re.search(r'points="([^"]+)"', chart)[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert heights == sorted(heights, reverse=True)
    assert "From 2 to 0.5 in 200 steps." in text


def test_a_file_from_elsewhere_shows_what_there_is(report, render):
    alone = dataclasses.replace(report.fidelity, pruned=None, recovered=None, predicted=None)
    text = render(dataclasses.replace(report, rungs=(), parity=None, fidelity=alone, race=None)).text
    assert "exported file" in text
    for absent in ("Parity", "before recovery", "None", "in PyTorch"):
        assert absent not in text

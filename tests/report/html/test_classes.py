import dataclasses
import io
import re

import numpy as np
from PIL import Image

from edgerecover.artifacts import ByClass, Confused, RecordFacts, Sheet
from edgerecover.report.html.draw import MAX_BYTES
from edgerecover.report.html.report import html


def test_pictures_are_named_by_class(full_report, render, sheet_of):
    document = render(full_report, sheet_of(4))
    assert [picture["alt"] for picture in document.all("img")] == [
        f"1 synthetic image made for {name}" for name in ("cat", "dog", "ship", "frog")
    ]
    assert not render(full_report).all("img")


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


def test_a_thousand_classes_stay_readable_and_small(report, parse):
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
    document = parse(text)
    assert 50 < len(document.all("img")) <= 100
    assert "matrix" not in {table.get("class") for table in document.all("table")}
    present = sum(total > 0 for total in totals)
    assert f"the 40 lowest of {present} classes" in document.text
    assert "Most frequent confusions" in document.text
    assert f"{1000 - present} classes of 1,000 had no image." in document.text
    assert len(document.all("tr")) < 200


def test_what_the_pictures_were_made_from_is_said(full_report, render, sheet_of):
    def said(**changes):
        return render(dataclasses.replace(full_report, **changes), sheet_of(4)).text

    record = RecordFacts("r", "77" * 32, 10, "joint", 100, 0.0)
    real = dataclasses.replace(full_report.synthetic, source="real images")
    assert "They were made from the teacher alone. No real image is among them." in said()
    assert "from statistics of real images (its activation record)" in said(record=record)
    assert "judged on real images, which are not shown" in said(synthetic=real)

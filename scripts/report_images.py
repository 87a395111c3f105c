"""Screenshots of a bundle's report for the documentation: `python scripts/report_images.py BUNDLE`.

Needs Chromium. The pictures in docs/images show the bundle that the tutorial makes for a Jetson:
`edgerecover demo`, then `edgerecover run edgerecover-demo/pruned.safetensors --target jetson-orin --profile demo`.
"""

import argparse
import io
import re
import tempfile
from pathlib import Path

from browser import Browser, find
from PIL import Image
from rich.console import Console

from edgerecover.bundle.verify import read_report, verify_bundle
from edgerecover.cli.reports import page_of
from edgerecover.report.terminal import print_report

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
COLOURS = 128
"""Colours of a picture: enough for a page, at a third of the bytes."""
TERMINAL_COLUMNS = 80
DESKTOP = {"width": 1120, "height": 900}
PHONE = {"width": 390, "height": 844, "is_phone": True}
SHOTS = {
    "report-html": (DESKTOP, None, "#gates"),
    "report-html-recovered": (DESKTOP, "#ladder", "#ladder"),
    "report-html-classes": (DESKTOP, "#classes", "#sparsity"),
    "report-html-latency": (DESKTOP | {"is_dark": True}, "#race", "#latency"),
    "report-html-phone": (PHONE, None, "#summary"),
}
"""Window, first and last section of each screenshot."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    verified = verify_bundle(arguments.bundle)
    report = read_report(verified)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Browser(find()) as browser:
        page = Path(folder) / "report.html"
        page.write_text(page_of(verified, report), encoding="utf-8")
        for name, (window, first, last) in SHOTS.items():
            shot = Path(folder) / "shot.png"
            browser.open(page, **window).screenshot(shot, first=first, last=last)
            few_colours(shot).save(arguments.out / f"{name}.png", optimize=True)
    (arguments.out / "report-terminal.svg").write_text(terminal_svg(report, arguments.bundle), encoding="utf-8")


def few_colours(path):
    with Image.open(path) as shot:
        return shot.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)


def terminal_svg(report, bundle):
    console = Console(
        record=True, width=TERMINAL_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    print_report(console, report, bundle.name)
    svg = console.export_svg(title="edgerecover run", unique_id="report")
    return re.sub(r"@font-face\s*{[^}]*}", "", svg)  # it would be fetched


if __name__ == "__main__":
    main()

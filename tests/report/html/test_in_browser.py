"""The HTML report as a real browser shows it: content, width, colours, and that it asks for nothing."""

import importlib.util
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from edgerecover.commands.compare import side_by_side
from edgerecover.report.html.report import html
from edgerecover.report.side_by_side_html import side_by_side_html

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "browser.py"
WINDOWS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740, "is_phone": True}}
LEAST_CONTRAST = 4.5
"""WCAG 2.2, success criterion 1.4.3."""

CONTRASTS = """
(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('title')) continue;
    const style = getComputedStyle(element);
    const ink = numbers(element.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
})()
"""


@pytest.fixture(scope="module")
def browser():
    spec = importlib.util.spec_from_file_location("browser", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    executable = module.find()
    if executable is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with module.Browser(executable) as opened:
        yield opened


@pytest.fixture
def report_file(full_report, tmp_path):
    sheet = io.BytesIO()
    Image.new("RGB", (68, 266), "teal").save(sheet, "PNG")
    path = tmp_path / "report.html"
    path.write_text(html(full_report, sheet.getvalue()), encoding="utf-8")
    return path


@pytest.fixture
def comparison_file(full_report, report, opened, tmp_path):
    path = tmp_path / "comparison.html"
    both = side_by_side(opened(full_report), opened(report), "a.bundle", "b.bundle")
    path.write_text(side_by_side_html(both), encoding="utf-8")
    return path


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["report_file", "comparison_file"])
def test_it_fits_its_window_and_asks_for_nothing(browser, request, name, window):
    path = request.getfixturevalue(name)
    page = browser.open(path, **WINDOWS[window])
    assert page.ask("document.documentElement.scrollWidth") <= WINDOWS[window]["width"]
    assert page.ask("document.querySelectorAll('section').length") > 2
    assert page.messages() == []
    assert page.requests() == [path.as_uri()]


def test_its_content_is_seen(browser, report_file):
    page = browser.open(report_file, **WINDOWS["desktop"])
    text = page.ask("document.body.innerText")
    for fact in (
        "model.pt for jetson-orin",
        "89.8 %",
        "Synthetic images",
        "Confusion",
        "loses too much",
        "oneDNN is off",
    ):
        assert fact in text
    assert page.ask("document.title") == "model.pt for jetson-orin"
    drawn = "[...document.images].map(picture => [picture.complete && picture.naturalWidth, picture.width])"
    assert page.ask(drawn) == [[64, 64]] * 4
    sizes = page.ask("[...document.querySelectorAll('svg')].map(s => Math.min(s.clientWidth, s.clientHeight))")
    assert min(sizes) >= 7
    assert page.ask("[...document.querySelectorAll('.chart text')].every(t => t.getBBox().x + t.getBBox().width < 420)")


def test_on_a_phone_tables_of_results_are_read_without_scrolling(browser, report_file):
    page = browser.open(report_file, width=390, height=844, is_phone=True)
    assert page.ask("document.querySelectorAll('table.stacks').length") >= 5
    assert page.ask("[...document.querySelectorAll('.scroll:has(.stacks)')].every(s => s.scrollWidth <= s.clientWidth)")
    label = "getComputedStyle(document.querySelector('#classes td[data-label]'), '::before').content"
    assert "images" in page.ask(label)


def test_a_word_leads_to_what_it_means(browser, report_file):
    page = browser.open(report_file, **WINDOWS["desktop"])
    page.ask("document.querySelector('#race .used a').click()")
    assert page.ask("document.querySelector(':target').innerText").startswith("race\n")


def test_a_matrix_scrolls_inside_its_section(browser, report_file):
    page = browser.open(report_file, width=320, height=600, is_phone=True)
    assert page.ask("document.documentElement.scrollWidth") <= 320
    assert page.ask("[...document.querySelectorAll('.scroll')].some(s => s.scrollWidth > s.clientWidth)")


def test_dark_and_light_are_what_the_reader_has_chosen(browser, report_file):
    page = browser.open(report_file, **WINDOWS["desktop"])
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.ask(ground)
    page.look(is_dark=True)
    dark = page.ask(ground)
    brightness = {
        name: sum(map(int, re.findall(r"\d+", colour))) for name, colour in (("light", light), ("dark", dark))
    }
    assert brightness["dark"] < 150 < 600 < brightness["light"]


@pytest.mark.parametrize("look", [{}, {"is_dark": True}, {"medium": "print"}, {"medium": "print", "is_dark": True}])
@pytest.mark.parametrize("name", ["report_file", "comparison_file"])
def test_every_text_stands_out_from_its_ground(browser, request, name, look):
    page = browser.open(request.getfixturevalue(name), **WINDOWS["desktop"])
    page.look(**look)
    contrast, text = page.ask(CONTRASTS)[0]
    assert contrast >= LEAST_CONTRAST, text


def test_it_prints_on_a_few_pages(browser, report_file, tmp_path):
    page = browser.open(report_file, **WINDOWS["desktop"])
    page.pdf(tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12

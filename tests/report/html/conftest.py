"""The page as a browser would parse it, and a contact sheet."""

import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from edgerecover.report.html.report import html

VOID = {"meta", "img", "wbr"}


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


@pytest.fixture
def parse():
    """HTML as a `Document`."""
    return Document


@pytest.fixture
def render():
    """The page of a report as a `Document`."""
    return lambda report, *rest: Document(html(report, *rest))


@pytest.fixture
def sheet_of():
    """A contact sheet of so many classes, one 64×64 image each, as `full_report.sheet` describes it."""

    def make(num_classes):
        sheet = Image.new("RGB", (2 + 66, 2 + 66 * num_classes), "white")
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        return buffer.getvalue()

    return make

"""A page of blocks as one HTML file: everything is escaped, nothing is fetched, no script runs.

A Content-Security-Policy forbids all of that too, in case something is not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.report.html.blocks import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Page
from edgerecover.report.plain import plain

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_BYTES = 3_000_000
_TEMPLATES = Path(__file__).with_name("templates")


def draw(page: Page, text_length: int = 2_000) -> str:
    """The page as HTML.

    Args:
        page: its texts are untrusted.
        text_length: characters after which a text is cut, and ends in "…".
    """
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    environment = _environment(text_length)
    text = environment.get_template("page.html").render(
        page=page,
        style=_safe(style),
        style_sha256=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        frame={"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM, "width": WIDTH, "height": HEIGHT},
    )
    return text.lstrip()


@cache
def _environment(text_length: int) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def finalize(value: Any) -> Any:
        if type(value) is not str:  # a number, markup, or a picture of ours
            return value
        text = plain(value)
        return text if len(text) <= text_length else f"{text[:text_length]}…"

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breaks"] = lambda name: _breaks(finalize(name))
    return environment


def _breaks(name: str) -> Any:
    """A name that may be broken after its dots, underscores and slashes, and there alone if that will do."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=\w[._/])(?=\w)", name))


def _safe(style: str) -> Any:
    """Mark our own style sheet as safe; it contains no untrusted text."""
    from markupsafe import Markup

    return Markup(style)

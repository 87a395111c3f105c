"""Texts from files, made safe to show: names and messages are untrusted. Stdlib only."""

from __future__ import annotations

import dataclasses
import unicodedata
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT = "\n\t"


def plain(text: str) -> str:
    """The text with every invisible character escaped, such as `\\x1b` or `\\u202e`.

    New lines and tabs stay. Law: `plain(plain(text)) == plain(text)`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape_character(character) for character in text)


def _escape_character(character: str) -> str:
    if character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs":
        return character
    return ascii(character)[1:-1]


def make_plain(value: T) -> T:
    """A frozen value with every text made `plain`; the value itself if all texts already are."""
    made: Any = _make_plain(value)
    return made  # type: ignore[no-any-return]


def _make_plain(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Enum):
        return plain(value)
    if isinstance(value, tuple):
        if not value or isinstance(value[0], (int, float)):
            return value  # thousands of samples
        made = tuple(_make_plain(item) for item in value)
        return value if all(one is other for one, other in zip(made, value, strict=True)) else made
    if isinstance(value, dict):
        made_items = {_make_plain(key): _make_plain(item) for key, item in value.items()}
        return value if made_items == value else made_items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        made_fields = {name: _make_plain(item) for name, item in fields.items()}
        changed = {name: item for name, item in made_fields.items() if item is not fields[name]}
        return dataclasses.replace(value, **changed) if changed else value
    return value

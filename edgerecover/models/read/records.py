"""Inert records of what a pickle holds: names, calls and references; nothing is imported or called. Stdlib only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class PickleError(Exception):
    """The bytes are not a valid pickle, or the pickle is too large."""


class UnusableTensorError(Exception):
    """Why a tensor cannot be used, in words that follow its name: "is complex"."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


def printable(value: Any, max_length: int = 80) -> str:
    """A name from a file, safe to print: control characters replaced, cut to `max_length`."""
    text = str(value) if isinstance(value, str | Name) else type(value).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:max_length])


@dataclass(frozen=True, slots=True)
class Name:
    """Something that unpickling would have imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Made:
    """What a call would have made, had it been called."""

    __slots__ = ("args", "by", "elements", "entries", "state")

    def __init__(self, by: Any, args: Any) -> None:
        self.by = by
        """The `Name` of a class or function; a hostile file may put anything here."""
        self.args = args
        self.state: Any = None
        """What its __setstate__, or else its __dict__, would have been given."""
        self.entries: dict[str | int, Any] | None = None
        """What item assignments would have put in, for subclasses of dict."""
        self.elements: list[Any] | None = None
        """What would have been appended or added."""

    @property
    def maker(self) -> str:
        """`module.name` of what would have been called; empty if that is not a `Name`."""
        return str(self.by) if isinstance(self.by, Name) else ""


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """A reference to something stored outside the pickle (its persistent id)."""

    id: Any


def entries_of(content: Any) -> Mapping[Any, Any] | None:
    """What a dictionary, or an object of a subclass of dict, holds; None for anything else."""
    if isinstance(content, Made):
        return content.entries
    return content if isinstance(content, Mapping) else None


def bytes_of(content: Any) -> bytes | None:
    """Bytes in a pickle, which protocols before 3 hold as Latin-1 text to encode; None for anything else."""
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    args = content.args if isinstance(content, Made) and content.maker == "_codecs.encode" else None
    if not isinstance(args, tuple) or len(args) != 2 or args[1] != "latin1" or not isinstance(args[0], str):
        return None
    return args[0].encode("latin1") if max(map(ord, args[0]), default=0) < 256 else None

"""Errors in the words of Python: the command line's `--input-shape 3,32,32` is `input_shape=(3, 32, 32)` here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgerecover.errors import EdgeRecoverError

_RENAMED = {"work": "run_folder", "fresh": "resume", "for": "for_runtime"}
"""Parameters that are called otherwise than the flag."""
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_NAME = r"mnn\b|unstructured\b|layerwise\b|2:4|channel\b|binary\b|regression\b|segmentation\b|detection\b"
_VALUE = rf" (?P<value>{_NUMBER}(?:,{_NUMBER})*(?![\w.:])|{_NAME})"
_FLAG = re.compile(rf"--(?P<flag>[a-z][a-z0-9-]*)(?:{_VALUE})?")
_FIRST_VALUE = re.compile(r"^--(?P<flag>[a-z][a-z0-9-]*) (?P<value>[^:\s]+)(?=: )")
_COMMAND = re.compile(r"(`[^`]*`)")


@contextmanager
def errors_in_python(function: Callable[..., Any], **renamed: str) -> Iterator[None]:
    """Raise errors of the block in the words of whoever called `function`, the hint as the last line.

    Args:
        function: its parameters are the flags that are reworded.
        renamed: parameter by flag, where the two differ: `out="path"`.
    """
    try:
        yield
    except EdgeRecoverError as error:
        parameters = inspect.signature(function).parameters.keys()
        error.message, error.hint = (in_python(text, parameters, renamed) for text in (error.message, error.hint))
        error.args = (f"{error.message}\n  next: {error.hint}" if error.hint else error.message,)
        raise


def in_python(text: str, parameters: Collection[str], renamed: Mapping[str, str] | None = None) -> str:
    """A message of the command line with its flags as keyword arguments; commands in backticks stay.

    Args:
        text: of an error.
        parameters: names that may be given; other flags stay as they are.
        renamed: parameter by flag, where the two differ.
    """
    names = {**_RENAMED, **(renamed or {})}

    def spelled(found: re.Match[str]) -> str:
        name = names.get(found["flag"], found["flag"].replace("-", "_"))
        if name not in parameters:
            return found[0]
        return f"{name}={_literal(found['value'])}"

    text = _FIRST_VALUE.sub(spelled, text)
    return "".join(part if part.startswith("`") else _FLAG.sub(spelled, part) for part in _COMMAND.split(text))


def _literal(value: str | None) -> str:
    """A flag's value as Python spells it."""
    if value is None or re.fullmatch(_NUMBER, value):
        return value or ""
    if re.fullmatch(rf"{_NUMBER}(?:,{_NUMBER})+", value):
        return f"({value.replace(',', ', ')})"
    return repr(value)

"""What pydantic found wrong, in the words of whoever wrote the file or typed the flag."""

from __future__ import annotations

from typing import Any

_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "expected a list in square brackets"),
    **dict.fromkeys(("model_type", "dict_type", "model_attributes_type"), "expected a table of keys"),
    "string_type": "expected text in quotes",
    "finite_number": "expected a finite number",
}
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_PATTERNS = {
    r"^[a-z0-9][a-z0-9.-]*$": "expected small letters, digits, dots and hyphens, as in my-board",
    r"^[0-9]+$": 'expected digits in quotes, as in "36"',
    r"^[0-9]+\.[0-9]$": 'expected two numbers in quotes, as in "8.7"',
}


def in_words(problem: Any) -> str:
    """What was expected of a wrong value.

    Args:
        problem: one of `ValidationError.errors()`.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _LIMITS:
        word, key = _LIMITS[kind]
        return f"must be {word} {context[key]:g}"
    if kind in ("literal_error", "enum"):
        return f"expected {context['expected']}"
    if kind in ("too_long", "too_short"):
        bound, key = ("at most", "max_length") if kind == "too_long" else ("at least", "min_length")
        return f"expected {bound} {_count(context[key], 'value')}"
    if kind in ("string_too_long", "string_too_short"):
        bound, key = ("at most", "max_length") if kind == "string_too_long" else ("at least", "min_length")
        return f"expected {bound} {_count(context[key], 'character')}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], "is not written as it must be")
    if kind in ("value_error", "assertion_error"):
        return str(problem["msg"].partition(", ")[2])
    return _KINDS.get(kind, "does not fit here")


def with_found(words: str, found: Any) -> str:
    """The words, with what was found in its place, unless they name it."""
    return words if isinstance(found, dict) or repr(found) in words else f"{words.rstrip('.')} (found {found!r})"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"

"""Frozen values to JSON and back, and the digest of a file.

Law: `from_json(type(v), json.loads(json.dumps(to_json(v)))) == v` for every value of this package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Turn a frozen value into what `json` can write: dataclass → object, tuple → array, enum → its value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(kind: type[T], data: Any) -> T:
    """Read back what `to_json` wrote.

    Raises:
        ValueError: the data does not have the shape of `kind`; the message names the field.
    """
    return typing.cast(T, _decode(kind, data, kind.__name__))


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _decode(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where}: a list was expected, found {type(data).__name__}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(data)
        if len(arguments) != len(data):
            raise ValueError(f"{where}: {len(arguments)} items were expected, found {len(data)}")
        pairs = zip(arguments, data, strict=True)
        return tuple(_decode(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(pairs))
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where}: an object was expected, found {type(data).__name__}")
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        if data not in [member.value for member in kind]:
            raise ValueError(f"{where}: {data!r} is not one of {', '.join(repr(m.value) for m in kind)}")
        return kind(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError as error:
            raise ValueError(f"{where}: the number is too large") from error
    if isinstance(kind, type) and type(data) is not kind:
        raise ValueError(f"{where}: {kind.__name__} was expected, found {type(data).__name__}")
    return data


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: an object was expected, found {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - names):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}")
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(data)):
        raise ValueError(f"{where}: field {missing[0]!r} is missing")
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in data.items()})


def sha256_of(path: Path) -> str:
    """Digest of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()

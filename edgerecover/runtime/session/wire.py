"""How an ONNX file stores its tensors, read from its bytes: a device has no onnx package. Stdlib only.

Protocol buffers hold a sequence of fields, each with a number and a length; field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_GRAPH, _FUNCTIONS = 7, 25
_NODES, _INITIALIZERS, _NODES_OF_FUNCTION = 1, 5, 7
_ATTRIBUTES, _TENSOR, _SUBGRAPH = 5, 5, 6
_DATA_TYPE, _INT32_DATA, _NAME = 2, 5, 8
_MAX_DEPTH = 16
"""Of graphs in graphs: a damaged file can claim any."""


def stored_as_int32(path: Path, data_types: frozenset[int]) -> tuple[str, ...]:
    """Names of the tensors of certain types whose values lie in `int32_data` instead of `raw_data`.

    Args:
        path: an ONNX file that a runtime has opened; what cannot be read of it counts as absent.
        data_types: numbers of TensorProto.DataType.
    """
    if not path.stat().st_size:
        return ()
    with path.open("rb") as file:
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return tuple(name for name, kind in _int32_tensors(model) if kind in data_types)
    except (ValueError, IndexError):
        return ()


def _int32_tensors(model: memoryview) -> Iterator[tuple[str, int]]:
    for number, part in _parts(model):
        if number == _GRAPH:
            yield from _of_graph(part, 0)
        elif number == _FUNCTIONS:
            for inner, node in _parts(part):
                if inner == _NODES_OF_FUNCTION:
                    yield from _of_node(node, 0)


def _of_graph(graph: memoryview, depth: int) -> Iterator[tuple[str, int]]:
    for number, part in _parts(graph):
        if number == _INITIALIZERS:
            yield from _of_tensor(part)
        elif number == _NODES:
            yield from _of_node(part, depth)


def _of_node(node: memoryview, depth: int) -> Iterator[tuple[str, int]]:
    for number, attribute in _parts(node):
        if number != _ATTRIBUTES:
            continue
        for inner, part in _parts(attribute):
            if inner == _TENSOR:
                yield from _of_tensor(part)
            elif inner == _SUBGRAPH and depth < _MAX_DEPTH:
                yield from _of_graph(part, depth + 1)


def _of_tensor(tensor: memoryview) -> Iterator[tuple[str, int]]:
    name, kind, has_int32 = "", 0, False
    for number, value in _fields(tensor):
        if number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _INT32_DATA:
            has_int32 = True
        elif number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode(errors="replace")
    if has_int32:
        yield name, kind


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that hold a message or a text."""
    for number, value in _fields(message):
        if isinstance(value, memoryview):
            yield number, value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field (https://protobuf.dev/programming-guides/encoding/)."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
        elif kind == 2:
            size, position = _varint(message, position)
            if position + size > len(message):
                raise ValueError("a field ends behind its message")
            yield number, message[position : position + size]
            position += size
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"no field is of kind {kind}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise ValueError("a number of more than 64 bits")

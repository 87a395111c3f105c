"""Weights out of TorchScript and torch.export archives, by name, without running or rebuilding their programs."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

from edgerecover.models.read.modules import MAX_NAME, MAX_PARTS, children_of
from edgerecover.models.read.records import Made, PickleError, UnusableTensorError, printable
from edgerecover.models.read.tensors import (
    SUBCLASS_HINT,
    TensorReader,
    bytes_tensor,
    is_tensor,
    shape_of,
    strided_view,
)
from edgerecover.models.read.torch_files import Content, NoWeightsError, check_byte_order, read_pickle, read_zip
from edgerecover.models.read.zips import Archive, ZipError

if TYPE_CHECKING:
    from torch import Tensor

MAX_JSON_BYTES = 32 << 20
"""Limit for the tables of weights, a few hundred bytes per weight; the larger graph is not read."""

_SCRIPT_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = \[([^\]\n]*)\]\n  __buffers__ = \[([^\]\n]*)\]", re.MULTILINE
)
_MAX_CODE_BYTES = 32 << 20

_EXPORT_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 34: "uint32", 35: "uint64",
}  # fmt: skip
"""ScalarType of torch/_export/serde/schema.py."""

_TABLE = re.compile(r"data/weights/(.+)_weights_config\.json")
_PICKLED = re.compile(r"data/weights/(.+)\.pt")
_OLDEST_PROGRAM = "serialized_exported_program.json"


# --- TorchScript ----------------------------------------------------------------------------------------


def read_torchscript(archive: Archive) -> Content:
    """Read the attributes of a scripted or traced module.

    The classes in the archive's code say which tensors are parameters or buffers; the code is searched for these lists
    as text. Without them, all tensors are taken.

    Raises:
        ZipError, PickleError: the archive is damaged.
        NoWeightsError: the module is frozen.
    """
    check_byte_order(archive)
    parsed = read_pickle(archive, "data.pkl")
    reader = TensorReader(lambda key: archive.read(f"data/{key}"))
    state = _attributes(parsed.root, _find_declared(archive))
    if state:
        return Content(state, reader, "TorchScript archive")
    if "constants.pkl" in archive and any(map(is_tensor, _flat(read_pickle(archive, "constants.pkl").root))):
        raise NoWeightsError("a frozen TorchScript archive, whose weights are constants without names")
    return Content({}, reader, "TorchScript archive")


def _find_declared(archive: Archive) -> dict[str, frozenset[str]]:
    """Names of parameters and buffers by class, as the archive's code declares them."""
    declared: dict[str, frozenset[str]] = {}
    sources = [name for name in archive.names if name.startswith("code/") and name.endswith(".py")]
    if sum(map(archive.size_bytes, sources)) > _MAX_CODE_BYTES:
        return {}
    for name in sources:
        module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
        text = archive.read(name).decode("utf-8", errors="replace")
        for found in _SCRIPT_CLASS.finditer(text):
            quoted = re.findall(r'"([^"]*)"', found[2] + found[3])
            declared[f"{module}.{found[1]}"] = frozenset(quoted)
    return declared


def _attributes(root: Any, declared: dict[str, frozenset[str]]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    num_seen = 0
    for prefix, module in children_of(root, _script_children):
        num_seen += len(module.state)
        if num_seen > MAX_PARTS:
            raise PickleError("more attributes than any network has")
        wanted = declared.get(module.maker)
        for name, value in module.state.items():
            is_wanted = isinstance(name, str) and (wanted is None or name in wanted) and is_tensor(value)
            if is_wanted and len(prefix + name) <= MAX_NAME:
                state[prefix + name] = value
    return state


def _script_children(value: Any) -> dict[str, Any] | None:
    """Submodules by name; None when `value` is no scripted module."""
    if not isinstance(value, Made) or not value.maker.startswith("__torch__.") or not isinstance(value.state, dict):
        return None
    return {name: inner for name, inner in value.state.items() if isinstance(name, str) and isinstance(inner, Made)}


def _flat(root: Any) -> list[Any]:
    return list(root)[:1000] if isinstance(root, tuple | list) else []


# --- torch.export ---------------------------------------------------------------------------------------


def read_exported(archive: Archive) -> Content:
    """Read parameters and persistent buffers by their names in the module that was exported.

    Three layouts: a table and raw bytes for each weight (torch 2.9 and later), one torch.save file of all weights in
    data/weights (2.8), and the same at the top (2.1 to 2.7).

    Raises:
        ZipError, PickleError: the archive is damaged.
        NoWeightsError: it is compiled, or holds several programs.
    """
    check_byte_order(archive)
    names = archive.names
    tables = [name for name in names if _TABLE.fullmatch(name)]
    pickled = [name for name in names if _PICKLED.fullmatch(name)]
    if _OLDEST_PROGRAM in names:
        pickled = ["serialized_state_dict.pt" if "serialized_state_dict.pt" in names else "serialized_state_dict.json"]
    if len(tables) + len(pickled) > 1:
        programs = [found[1] for name in names if (found := _TABLE.fullmatch(name) or _PICKLED.fullmatch(name))]
        raise NoWeightsError(f"a torch.export archive of {len(programs)} programs, {printable(', '.join(programs))}")
    if tables:
        content = Content(_from_table(archive, tables[0]), TensorReader(archive.read), "torch.export archive")
    elif pickled:
        content = _read_nested(archive, pickled[0])
    else:
        raise NoWeightsError("a torch.export archive without weights by name; AOTInductor compiles them into a library")
    return _with_example(archive, content)


def _read_nested(archive: Archive, name: str) -> Content:
    """Read a file of torch.save inside the archive."""
    inner = read_zip(_inner_archive(archive, name))
    return Content(inner.root, inner.reader, "torch.export archive", inner.names)


def _inner_archive(archive: Archive, name: str) -> Archive:
    packed = archive.read(name)
    return Archive(io.BytesIO(packed), len(packed), max_unpacked_bytes=archive.max_unpacked_bytes)


def _from_table(archive: Archive, table: str) -> dict[str, Tensor]:
    if archive.size_bytes(table) > MAX_JSON_BYTES:
        raise ZipError(f"{table[:80]} is larger than any table of weights")
    config = json.loads(archive.read(table).decode("utf-8"))["config"]
    raw: dict[str, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, entry in config.items():
        if entry["use_pickle"]:
            raise NoWeightsError(
                f"a torch.export archive whose weight {printable(name)!r} is of a tensor subclass", SUBCLASS_HINT
            )
        path = f"data/weights/{entry['path_name']}"
        if path not in raw:
            raw[path] = bytes_tensor(archive.read(path))
        try:
            state[name[:MAX_NAME]] = _tensor_of(entry["tensor_meta"], raw[path])
        except UnusableTensorError as fault:
            raise PickleError(f"weight {name[:80]!r} {fault}") from fault
    return state


def _tensor_of(meta: dict[str, Any], raw: Tensor) -> Tensor:
    sizes, strides = (_plain_integers(meta[key]) for key in ("sizes", "strides"))
    offset = _plain_integers([meta["storage_offset"]])[0]
    if meta["layout"] != 7:
        raise UnusableTensorError("has a layout other than strided")
    return strided_view(raw, _EXPORT_DTYPES.get(meta["dtype"], "unknown"), sizes, strides, offset)


def _plain_integers(entries: Any) -> tuple[int, ...]:
    values = tuple(entry.get("as_int") for entry in entries)
    if not all(type(value) is int for value in values):
        raise UnusableTensorError("has a shape that is not a list of whole numbers")
    return values


def _with_example(archive: Archive, content: Content) -> Content:
    """Add the shape of the example input, if the archive holds a batch of images."""
    names = [name for name in archive.names if name.startswith("data/sample_inputs/") and name.endswith(".pt")]
    names += [name for name in archive.names if name == "serialized_example_inputs.pt"]
    shape = _image_shape(archive, names[0]) if names else None
    notes = (f"example input {'×'.join(map(str, shape))}",) if shape else ()
    return Content(content.root, content.reader, content.kind, content.names, notes, shape)


def _image_shape(archive: Archive, name: str) -> tuple[int, ...] | None:
    try:
        root = read_pickle(_inner_archive(archive, name), "data.pkl").root
    except (ZipError, PickleError):
        return None
    args = root[0] if isinstance(root, tuple) and len(root) == 2 else root
    first = args[0] if isinstance(args, tuple) and args else None
    shape = shape_of(first)
    return shape if shape and len(shape) == 4 and all(0 < side < 1 << 20 for side in shape) else None

"""A record as a file: safetensors, with what it is as JSON in the header; a hostile one ends in a message.

Statistics are kept in half precision, in units of each node's own spread: that is finer than 1,000 images tell them.
"""

# ruff: noqa: TID253 - works on tensors throughout; only the pipeline imports it

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from edgerecover.artifacts import from_json, sha256_of, to_json
from edgerecover.errors import UNREADABLE_HINT, BadInputError
from edgerecover.files import replace_file
from edgerecover.models.network.digest import weights_sha256
from edgerecover.synthesis.record.nodes import NodeLayer, node_layers
from edgerecover.synthesis.record.values import KINDS, Block, Record

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 1 << 30
_METADATA_KEY = "edgerecover_record"


@dataclass(frozen=True)
class _Facts:
    """The JSON in the header."""

    schema_version: int
    kind: str
    teacher_sha256: str
    num_images: int
    num_classes: int
    noise: float
    blocks: tuple[tuple[NodeLayer, ...], ...]


def write_record(path: Path, record: Record) -> int:
    """Write a record; returns the number of bytes.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    from safetensors.torch import save

    facts = _Facts(
        SCHEMA_VERSION, record.kind, record.teacher_sha256, record.num_images, record.num_classes, record.noise,
        tuple(block.layers for block in record.blocks),
    )  # fmt: skip
    tensors: dict[str, Tensor] = {}
    for number, block in enumerate(record.blocks):
        parts = {"centre": block.centre_U, "scale": block.scale_U}
        halves = {"basis": block.basis_UC, "mean": block.mean_KC, "factor": block.factor_KRC}
        parts |= {name: tensor.half() for name, tensor in halves.items() if tensor is not None}
        tensors |= {f"{number}.{name}": tensor.contiguous() for name, tensor in parts.items()}
    content = save(tensors, {_METADATA_KEY: json.dumps(to_json(facts))})
    replace_file(path, content)
    return len(content)


def read_record(path: Path) -> Record:
    """Read what `write_record` wrote.

    Raises:
        BadInputError: no such file, not a record, of another version, or damaged.
    """
    facts, tensors = _open(path)
    if facts.schema_version != SCHEMA_VERSION:
        raise BadInputError(
            f"record {path}: schema version {facts.schema_version}; this edgerecover reads version {SCHEMA_VERSION}",
            hint="make the record again, or use the edgerecover version that wrote it",
        )
    try:
        return replace(_to_record(facts, tensors), sha256=sha256_of(path))
    except (KeyError, ValueError) as error:
        raise BadInputError(
            f"record {path}: the file is damaged ({error})", hint="was it copied or downloaded completely?"
        ) from error


def read_record_of(path: Path | None, teacher: nn.Module, shape_CHW: tuple[int, int, int]) -> Record | None:
    """The record at `path`, known to be the teacher's; None where none is given.

    Raises:
        BadInputError: as `read_record` and `check_teacher`.
    """
    if path is None:
        return None
    record = read_record(path)
    check_teacher(record, path, teacher, shape_CHW)
    return record


def check_teacher(record: Record, path: Path, teacher: nn.Module, shape_CHW: tuple[int, int, int]) -> None:
    """Make sure that a record speaks of this network.

    Raises:
        BadInputError: it was made from other weights, or names activations that the network does not have.
    """
    sha256 = weights_sha256(teacher)
    if record.teacher_sha256 != sha256:
        raise BadInputError(
            f"record {path}: made from a network with weights {record.teacher_sha256[:12]}…, "
            f"but the teacher's are {sha256[:12]}…",
            hint="pass the dense network that the record was made from as --teacher, or make a record of this one",
        )
    there = {layer.name: layer for layer in node_layers(teacher, shape_CHW, max_cells=1 << 16, max_nodes=1 << 62)}
    for layer in record.layers:
        whole = there.get(layer.name)
        if whole is None or whole.channels != layer.channels or whole.channels_last != layer.channels_last:
            raise BadInputError(
                f"record {path}: describes {layer.channels} channels of {layer.name!r}, which the teacher lacks",
                hint="use the record that was made from this teacher",
            )


def _open(path: Path) -> tuple[_Facts, dict[str, Tensor]]:
    from safetensors import safe_open

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInputError(
                f"record {path}: {path.stat().st_size:,} bytes is more than the limit of {MAX_FILE_BYTES:,}",
                hint="pass a file that `edgerecover record` wrote",
            )
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            if text is None:
                raise BadInputError(
                    f"record {path}: a safetensors file without a record in it",
                    hint="`edgerecover record TEACHER --data DIR -o FILE` makes one",
                )
            return from_json(_Facts, json.loads(text)), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except BadInputError:
        raise
    except OSError as error:
        raise BadInputError(
            f"record {path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    except Exception as error:  # hostile bytes raise anything
        raise BadInputError(
            f"record {path}: not an activation record, or damaged ({type(error).__name__}: {str(error)[:100]})",
            hint="`edgerecover record TEACHER --data DIR -o FILE` makes one",
        ) from error


def _to_record(facts: _Facts, tensors: dict[str, Tensor]) -> Record:
    if facts.kind not in KINDS:
        raise ValueError(f"unknown kind {facts.kind!r}")
    if not facts.blocks or facts.num_images < 1:
        raise ValueError("the record is empty")
    blocks = tuple(_block(number, layers, facts, tensors) for number, layers in enumerate(facts.blocks))
    return Record(facts.kind, facts.teacher_sha256, facts.num_images, facts.noise, blocks)


def _block(number: int, layers: tuple[NodeLayer, ...], facts: _Facts, tensors: dict[str, Tensor]) -> Block:
    if any(min(layer.channels, layer.rows, layer.columns) < 1 for layer in layers):
        raise ValueError(f"block {number} has a layer without nodes")
    num_nodes = sum(layer.num_nodes for layer in layers)
    basis_UC = tensors.get(f"{number}.basis")
    num_coefficients = num_nodes if basis_UC is None else basis_UC.shape[-1]
    centre_U, scale_U, mean_KC, factor_KRC = (
        tensors[f"{number}.{part}"] for part in ("centre", "scale", "mean", "factor")
    )
    rank = factor_KRC.shape[1] if factor_KRC.dim() == 3 else 0
    wanted = {
        "centre": (centre_U, (num_nodes,)),
        "scale": (scale_U, (num_nodes,)),
        "mean": (mean_KC, (facts.num_classes, num_coefficients)),
        "factor": (factor_KRC, (facts.num_classes, rank, num_coefficients)),
    }
    if basis_UC is not None:
        wanted["basis"] = (basis_UC, (num_nodes, num_coefficients))
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} of block {number} is not {list(shape)} finite numbers")
    if not num_nodes or not bool((scale_U > 0).all()):
        raise ValueError(f"scale of block {number} is not positive")
    basis = None if basis_UC is None else basis_UC.float()
    return Block(layers, centre_U.float(), scale_U.float(), basis, mean_KC.float(), factor_KRC.float())

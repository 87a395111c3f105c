"""Finished recoveries on disk, named by what they depend on: a second run, for another device, reuses them."""

# ruff: noqa: TID253 - works on networks; only the pipeline imports it

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgerecover.artifacts import Lineage, Rung, from_json, sha256_of, to_json
from edgerecover.config import Recovery
from edgerecover.files import replace_file
from edgerecover.models.build.architectures import load_state
from edgerecover.recovery.ladder import Recovered

_WEIGHTS = "recovered.safetensors"
_FACTS = "recovery.json"
_FORMAT = 3
"""Raise when the same settings no longer give the same student: it is part of a recovery's key."""


def recovery_key(
    student: nn.Module, masks: Mapping[str, Tensor], synthesis_key: str, settings: Recovery, seed: int
) -> str:
    """Name of a recovery: 16 hex digits over everything it depends on; the sets' key covers teacher and device."""
    digest = hashlib.sha256(synthesis_key.encode())
    for name, tensor in sorted({**student.state_dict(), **{f"mask {n}": m for n, m in masks.items()}}.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(json.dumps([_FORMAT, settings.model_dump(mode="json"), seed], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def weights_of(network: nn.Module, suffix: str = ".safetensors") -> bytes:
    """The network's state as the content of a file with that suffix: safetensors, or else in torch.save's format."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    if suffix == ".safetensors":
        return save(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write_recovered(folder: Path, recovered: Recovered) -> None:
    """Write a recovery to `folder`; the facts are written last, and without them it does not count."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / _WEIGHTS, weights_of(recovered.student))
    facts = {
        "sha256": sha256_of(folder / _WEIGHTS),
        "rungs": [to_json(rung) for rung in recovered.rungs],
        "lineage": to_json(recovered.lineage),
        "warnings": list(recovered.warnings),
    }
    replace_file(folder / _FACTS, json.dumps(facts).encode())


def read_recovered(folder: Path, student: nn.Module) -> Recovered | None:
    """The recovery kept in `folder`, in a copy of `student`; None when there is none or it is damaged."""
    from safetensors.torch import load_file

    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if sha256_of(folder / _WEIGHTS) != facts["sha256"]:
            return None
        rungs = tuple(from_json(Rung, rung) for rung in facts["rungs"])
        lineage = from_json(Lineage, facts["lineage"]) if facts["lineage"] else None
        warnings = tuple(str(warning) for warning in facts["warnings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    network = copy.deepcopy(student)
    load_state(network, load_file(folder / _WEIGHTS))
    return Recovered(network.eval().requires_grad_(False), rungs, lineage, warnings)

"""Checkpoints of long loops: killed at any moment, a loop resumes and ends as if it had never stopped.

A checkpoint is a safetensors file whose name holds its number and its digest, moved into place in one step. A damaged
one does not match its digest, and the one before it is used. How often they are written depends on time; the states
they hold are taken after a number of steps that depends on the settings alone, so results do not depend on time.
"""

# ruff: noqa: TID253 - works on tensors; only the recovery stage imports it

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from edgerecover.files import replace_file
from edgerecover.progress import SILENT, Progress

EVERY_S = 60.0
"""Seconds between two checkpoints of a loop, or more if they take long to write."""
_LARGEST_SHARE = 0.01
"""Largest share of a loop's time that goes into writing checkpoints."""
_KEPT = 2
_FORMAT = 4
"""Raise when a loop that reads its old checkpoint would no longer end as it did."""


@dataclass(frozen=True)
class State:
    """Everything that a loop needs to resume."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Values that JSON can represent."""


class Resumable(Protocol):
    """A part of a loop that changes with its steps."""

    def state(self) -> State:
        """The current state; later steps do not change the returned value."""

    def restore(self, state: State) -> None:
        """Return to `state`."""


def gather(parts: Mapping[str, Resumable]) -> State:
    """Combine the states of several parts into one."""
    states = {name: part.state() for name, part in parts.items()}
    return State(
        {f"{name}/{key}": tensor for name, state in states.items() for key, tensor in state.tensors.items()},
        {name: state.facts for name, state in states.items()},
    )


def part_of(state: State, name: str) -> State:
    """The state of one part in a state that `gather` combined."""
    prefix = f"{name}/"
    tensors = {key[len(prefix) :]: tensor for key, tensor in state.tensors.items() if key.startswith(prefix)}
    return State(tensors, state.facts[name])


def restore(parts: Mapping[str, Resumable], state: State) -> None:
    """Return all parts to the states that `gather` combined."""
    for name, part in parts.items():
        part.restore(part_of(state, name))


class Checkpoint:
    """The checkpoints of one loop; without a folder, none are kept."""

    def __init__(
        self, folder: Path | None = None, name: str = "", every_s: float = EVERY_S, progress: Progress = SILENT
    ) -> None:
        self.folder = folder
        self._name, self._every_s, self._progress = name, every_s, progress
        self._number = 0
        self._started_s = self._written_s = time.perf_counter()
        self._seconds_before = self._cost_s = 0.0

    @property
    def seconds(self) -> float:
        """Duration of the loop so far, including the time before an interruption."""
        return self._seconds_before + time.perf_counter() - self._started_s

    def is_due(self) -> bool:
        """Whether it is time for another checkpoint; they are kept rare enough to cost little."""
        waited_s = time.perf_counter() - self._written_s
        return self.folder is not None and waited_s >= max(self._every_s, self._cost_s / _LARGEST_SHARE)

    def write(self, state: State) -> None:
        """Put a checkpoint on disk, and remove those that are two behind.

        Raises:
            OSError: it cannot be written; the ones before are still there.
        """
        if self.folder is None:
            return
        from safetensors.torch import save

        started_s = time.perf_counter()
        facts = {
            "format": _FORMAT,
            "seconds": self.seconds,
            "strides": {name: tensor.stride() for name, tensor in state.tensors.items()},
            "facts": state.facts,
        }
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
        content = save(tensors, metadata={"state": json.dumps(facts)})
        self._number += 1
        digest = hashlib.sha256(content).hexdigest()[:32]
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / f"{self._name}.{self._number:08d}.{digest}.safetensors", content)
        for old in self._paths()[_KEPT:]:
            old.unlink()
        self._written_s = time.perf_counter()
        self._cost_s = self._written_s - started_s

    def read(self, fits: Callable[[State], bool] = lambda _state: True) -> State | None:
        """The newest state that is whole and `fits`, on the CPU; None where there is none."""
        for path in self._paths():
            self._number = max(self._number, int(path.name.split(".")[-3]))
            found = _read(path)
            if found is not None and fits(found[0]):
                self._seconds_before, self._started_s = found[1], time.perf_counter()
                return found[0]
            self._progress.note(f"{path}: skipping a damaged checkpoint")
            path.unlink()
        return None

    @contextmanager
    def write_on_interrupt(self, state: Callable[[], State]) -> Iterator[None]:
        """On Ctrl-C, write a last checkpoint with what was done since the one before."""
        try:
            yield
        except KeyboardInterrupt:
            with suppress(OSError):
                self.write(state())
            raise

    def discard(self) -> None:
        """Remove all checkpoints of the loop, because it has ended."""
        for path in self._paths():
            path.unlink()

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob(f"{self._name}.*.*.safetensors"), reverse=True) if self.folder else []


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of all loops of one stage; without a folder, none are kept."""

    folder: Path | None = None
    every_s: float = EVERY_S
    progress: Progress = SILENT

    def of(self, name: str) -> Checkpoint:
        """The checkpoints of one loop, by its name of letters, digits and dashes."""
        return Checkpoint(self.folder, name, self.every_s, self.progress)

    def under(self, name: str) -> Checkpoints:
        """The checkpoints of another stage, in a subfolder of this one."""
        return replace(self, folder=self.folder / name if self.folder else None)

    def discard(self) -> None:
        """Remove the folder, because the stage has ended and its result is kept elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


NO_CHECKPOINTS = Checkpoints()


def _read(path: Path) -> tuple[State, float] | None:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:32] != path.name.split(".")[-2]:
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["state"])
        if facts["format"] != _FORMAT:
            return None
        tensors = {name: _lay_out(tensor, facts["strides"][name]) for name, tensor in load(content).items()}
        return State(tensors, facts["facts"]), float(facts["seconds"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _lay_out(tensor: Tensor, strides: list[int]) -> Tensor:
    """Restore the memory layout, because sums over another layout round differently."""
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)

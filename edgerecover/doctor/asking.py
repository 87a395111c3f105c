"""Ask the probes, each in a fresh interpreter: a library that is broken must not break the examination."""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgerecover.errors import StageError
from edgerecover.runtime.machine.fresh import run_fresh

_TIMEOUT_S = 120.0
_OWN_PROBES = ("torch", "torchvision", "onnxruntime", "openvino", "MNN", "tensorrt", "tensorrt_rtx")
_NOT_THERE = re.compile(r"No module named '([\w.]+)'")


@dataclass(frozen=True)
class Answer:
    """What a probe found, or why it found nothing."""

    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def version(self) -> str:
        """Of the library."""
        return str(self.values.get("version", ""))

    def is_absent(self, module: str) -> bool:
        """The error says that this very module is not installed, and not one that it needs."""
        found = _NOT_THERE.search(self.error)
        return self.error.endswith("is not installed") or (found is not None and found[1] == module)


Ask = Callable[..., Answer]
"""A probe's name and its arguments → its answer."""


@lru_cache
def ask(probe: str, *arguments: str) -> Answer:
    """Run one of `probes.PROBES`."""
    try:
        child = run_fresh("edgerecover.doctor.probes", [probe, *arguments], _TIMEOUT_S, what="it")
    except StageError as error:
        return Answer(error=error.message)
    if child.returncode:
        return Answer(error=f"the process died of it (status {child.returncode})")
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        return Answer(error="it wrote something else to stdout")
    return Answer(answer.get("found", {}), answer.get("error", ""))


def ask_module(ask: Ask, module: str) -> Answer:
    """The probe of a module: its own, or the one for any."""
    return ask(module) if module in _OWN_PROBES else ask("module", module)


def systems_copies(module: str, root: Path = Path("/")) -> list[Path]:
    """Where the system's package manager has put a Python module, for whatever Python."""
    return sorted(root.glob(f"usr/lib/python3*/dist-packages/{module}"))


def python_of(copy: Path) -> str:
    """Version of the Python that a system's copy is for, as its folder tells: "3.10"; "" where it is for any."""
    found = re.fullmatch(r"python(3\.\d+)", copy.parents[1].name)
    return found[1] if found else ""


def this_python() -> str:
    """ "3.11"."""
    return sysconfig.get_python_version()

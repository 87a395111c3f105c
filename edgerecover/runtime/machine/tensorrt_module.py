"""Finding TensorRT's Python bindings, and keeping what its logger says off the user's terminal."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import platform
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from edgerecover.artifacts.engines import ENGINE_RUNTIMES, TENSORRT, TENSORRT_RTX
from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
)
from edgerecover.runtime.machine.silence import silence

_RTX_NAMES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
"""What `tensorrt-rtx` and `tensorrt-rtx-cu13-bindings` install."""
_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_MAX_MESSAGES = 100_000
WORDS = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT-RTX"}
"""What people call the runtimes."""


def import_tensorrt(runtime: str) -> ModuleType:
    """The module of "tensorrt" or "tensorrt-rtx"; for the former, the system's own before any other.

    JetPack installs its bindings with apt, where a virtual environment does not look, and the package index has none
    that fit it: so the system's folders are looked at first.

    Raises:
        BadInputError: no such runtime.
        MissingError: there is no such module, or it does not load here; the hint is the line that installs it.
    """
    if runtime not in ENGINE_RUNTIMES:
        raise BadInputError(f"unknown engine runtime {runtime!r}", hint=f"one of {', '.join(ENGINE_RUNTIMES)}")
    failures: list[str] = []
    if runtime == TENSORRT:
        module = _from_folders(TENSORRT, system_folders(), failures) or _from_path(TENSORRT, failures)
    else:
        module = next(filter(None, (_from_path(name, failures) for name in _RTX_NAMES)), None)
    if module is None:
        raise MissingError(
            f"{WORDS[runtime]} is not installed" + (f": {failures[0]}" if failures else ""), hint=install_line(runtime)
        )
    return module


def system_folders() -> tuple[Path, ...]:
    """Where the system's package manager puts Python modules for this interpreter."""
    names = ("python3", f"python3.{sys.version_info.minor}")
    return tuple(Path("/usr/lib") / name / "dist-packages" for name in names)


def install_line(runtime: str) -> str:
    """The command that installs a runtime on a machine like this one."""
    if runtime == TENSORRT_RTX:
        return pip_line("install 'edgerecover[tensorrt-rtx]'") + " (x86_64 Linux or Windows)"
    if _TEGRA_RELEASE.exists() or platform.machine() == "aarch64":
        return "sudo apt install python3-libnvinfer (it is part of JetPack), with that JetPack's own version of Python"
    return pip_line("install 'edgerecover[tensorrt]'")


def _from_folders(name: str, folders: Iterable[Path], failures: list[str]) -> ModuleType | None:
    """Import a package from given folders alone: nothing else that lies there gets in."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.machinery.PathFinder.find_spec(name, [str(folder) for folder in folders])
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with warnings.catch_warnings(), silence():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    except Exception as error:  # a shared library that is missing, an interpreter that it was not built for
        _forget(name)
        failures.append(f"the system's own at {spec.origin} does not load ({one_line(str(error))})")
        return None
    return module


def _from_path(name: str, failures: list[str]) -> ModuleType | None:
    try:
        with silence():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            failures.append(f"{name} does not load ({one_line(str(error))})")
    except Exception as error:  # the same
        _forget(name)
        failures.append(f"{name} does not load ({one_line(str(error))})")
    return None


def _forget(name: str) -> None:
    for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[loaded]


def version_of(module: ModuleType) -> str:
    """Its full version: "10.3.0", "1.7.1.116"."""
    return str(getattr(module, "__version__", "0"))


def major(module: ModuleType) -> int:
    """First number of its version."""
    found = re.match(r"\d+", version_of(module))
    return int(found[0]) if found else 0


# --- what it says -------------------------------------------------------------------------------------------


@dataclass
class Log:
    """What TensorRT has said, in order: (severity, text), severities as "VERBOSE", "INFO", "WARNING", "ERROR"."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def add(self, severity: str, text: str) -> None:
        """Keep a message, unless there are too many already."""
        if len(self.messages) < _MAX_MESSAGES:
            self.messages.append((severity, text))

    def texts(self, *severities: str) -> tuple[str, ...]:
        """Messages of these severities, each once, readable."""
        found = (one_line(text) for severity, text in self.messages if severity in severities)
        return tuple(dict.fromkeys(text for text in found if text))

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong, the first first."""
        return self.texts("ERROR", "INTERNAL_ERROR")


def logger_into(module: ModuleType, log: Log) -> Any:
    """A logger of that module which writes into `log` and nowhere else."""
    base: Any = module.ILogger

    class Collecting(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.add(severity.name if hasattr(severity, "name") else str(severity).rsplit(".", 1)[-1], msg)

    return Collecting()


_NOISE = (
    r"\[checkMacros\.cpp::[^\]]*\][^\n]*",
    r"\s*In \w+ at /\S+:\d+",
    r"\s*\(?\[?\b\w+\.(?:cpp|h|cu)(?:::\w+)*(?:::|:)\d+\]?\)?:?",
    r"\b[A-Z]\w*::\w+: (?=Error Code)",
    r"Error Code \d+: ",
    r"\(?/_src/\S+",
    r"In node -?\d+ with name: .*? and operator: .*?\(\w+\): [A-Z_]+: ",
    r"Assertion failed: (?:\S+: )?",
)
"""What its messages hold for its own developers: source lines, class names, numbers of errors."""
_WRAPPED = (r"(?:API Usage|Internal) Error \((.*)\)$", r'[\w*]+ && "([^"]*)"', r"^Invalid Node - (.+)$")
"""And what stands around the part that users can read."""


def one_line(text: str, limit: int = 300) -> str:
    """A message of TensorRT as one printable line, no longer than a terminal shows."""
    for pattern in _NOISE:
        text = re.sub(pattern, "", text)
    text = " ".join(text.split())
    for pattern in _WRAPPED:
        text = re.sub(pattern, r"\1", text)
    return "".join(character if character.isprintable() else "?" for character in text).strip()[:limit]


def first_of(messages: Sequence[str], otherwise: str) -> str:
    """The first message, which is the cause of the others; `otherwise` when there is none."""
    return messages[0] if messages else otherwise

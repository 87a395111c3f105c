"""What an examination found, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgerecover.artifacts import Host
from edgerecover.errors import pip_line


class Status(str, Enum):
    """How a finding stands."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing, and nothing fails for it: an optional part that is not here, or what waits on the device."""
    MISSING = "missing"
    """Needed, and not here."""
    WRONG = "wrong"
    """Needed and here, but of a version or kind that does not work."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    """One line."""
    fix: str = ""
    """One command that helps; empty where there is nothing to do, or no command does it."""


@dataclass(frozen=True)
class Diagnosis:
    """All that was found."""

    host: Host
    targets_here: tuple[str, ...]
    """Shipped targets that this machine is."""
    target: str | None
    is_target: bool | None
    """Whether this machine is that target; None without one."""
    findings: tuple[Finding, ...]

    @property
    def is_ready(self) -> bool:
        """Nothing that is needed is missing or wrong."""
        return all(finding.status in (Status.OK, Status.NOTE) for finding in self.findings)


def fix_here(install: str) -> str:
    """A target's install line, for this Python."""
    return pip_line(install.removeprefix("pip ")) if install.startswith("pip ") else install

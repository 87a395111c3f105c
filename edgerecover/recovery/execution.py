"""How every rung of recovery is executed: where it computes, reports and keeps its checkpoints, and who shares it."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.compute import Compute
from edgerecover.distributed import ALONE, Ranks
from edgerecover.progress import SILENT, Progress
from edgerecover.recovery.checkpoints import NO_CHECKPOINTS, Checkpoints


@dataclass(frozen=True)
class Execution:
    """Where and how a rung runs. Nothing here but the device and its precision changes the result."""

    compute: Compute
    """Device, precision and memory format."""
    progress: Progress = SILENT
    """Receives notes and the progress of loops."""
    checkpoints: Checkpoints = NO_CHECKPOINTS
    """Where loops resume from and record how far they got; they must be of the same arguments."""
    ranks: Ranks = ALONE
    """The processes that share the work; only the first writes checkpoints."""

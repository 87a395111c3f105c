"""What is asked of a model by profile and target, as plain numbers. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgerecover.artifacts import ENGINE_RUNTIMES

if TYPE_CHECKING:
    from edgerecover.config import Profile, Target


@dataclass(frozen=True)
class Limits:
    """What profile and target ask. None: no limit."""

    profile: str
    min_agreement: float
    min_parity_top1: float
    max_parity_relative: float
    max_accuracy_drop_points: float
    target: str
    provider: str
    """The target's first choice: what another provider measured does not settle its limits."""
    runtimes: tuple[str, ...] = ()
    """Runtimes whose measurements settle them whatever their provider is called: those of engines, and those that the
    target allows beside its own."""
    max_precision_loss_points: float = 1.0
    max_p99_ms: float | None = None
    max_file_mb: float | None = None
    max_memory_mb: float | None = None


def limits_of(profile: Profile, target: Target) -> Limits:
    """The numbers of both, without their schema."""
    return Limits(
        profile=profile.name,
        min_agreement=profile.gates.min_agreement,
        min_parity_top1=profile.gates.min_parity_top1,
        max_parity_relative=profile.gates.max_parity_relative,
        max_accuracy_drop_points=profile.gates.max_accuracy_drop_points,
        max_precision_loss_points=profile.gates.max_precision_loss_points,
        target=target.name,
        provider=target.providers.value[0],
        runtimes=_settling(target),
        max_p99_ms=target.max_p99_ms.value if target.max_p99_ms else None,
        max_file_mb=target.max_file_mb.value if target.max_file_mb else None,
        max_memory_mb=target.max_memory_mb.value if target.max_memory_mb else None,
    )


def _settling(target: Target) -> tuple[str, ...]:
    also = tuple(target.also_runtimes.value) if target.also_runtimes else ()
    return (target.runtime.value, *also) if target.runtime.value in ENGINE_RUNTIMES else also

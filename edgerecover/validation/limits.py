"""What is asked of a model by profile and target, as plain numbers. Stdlib only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgerecover.artifacts import ENGINE_RUNTIMES
from edgerecover.runtime.machine.mnn_module import MNN

if TYPE_CHECKING:
    from edgerecover.config import Profile, Target

OF_TARGET = ("max_p99_ms", "max_file_mb", "max_memory_mb")
"""Limits that the target sets; the others are the profile's."""


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
    max_agreement_loss_points: float = 5.0
    max_accuracy_loss_points: float = 3.0
    max_latency_regression: float = 0.05
    max_size_regression: float = 0.05
    max_memory_regression: float = 0.1
    sources: dict[str, str] = field(default_factory=dict)
    """Who set a limit instead of profile and target, by the limit's name: "limits strict.toml"."""

    def source_of(self, name: str) -> str:
        """Who set the limit of that name: "profile balanced", "target jetson-orin", "--max-latency-regression"."""
        asked_by = f"target {self.target}" if name in OF_TARGET else f"profile {self.profile}"
        return self.sources.get(name, asked_by)

    def changed(self, values: Mapping[str, float], source: str) -> Limits:
        """The same limits but for these, by name."""
        return replace(self, **values, sources={**self.sources, **dict.fromkeys(values, source)})  # type: ignore[arg-type]


def limits_of(profile: Profile, target: Target) -> Limits:
    """The numbers of both, without their schema."""
    return Limits(
        profile=profile.name,
        **profile.gates.model_dump(),
        target=target.name,
        provider=target.providers.value[0],
        runtimes=_settling(target),
        max_p99_ms=target.max_p99_ms.value if target.max_p99_ms else None,
        max_file_mb=target.max_file_mb.value if target.max_file_mb else None,
        max_memory_mb=target.max_memory_mb.value if target.max_memory_mb else None,
    )


def _settling(target: Target) -> tuple[str, ...]:
    also = tuple(target.also_runtimes.value) if target.also_runtimes else ()
    if target.runtime.value == MNN:  # the file that MNN's was made of is raced beside it
        return (MNN, "onnxruntime", *also)
    return (target.runtime.value, *also) if target.runtime.value in ENGINE_RUNTIMES else also

"""What a run will take, as told before it is spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageEstimate:
    """One stage, on this machine as it is now."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """From a few images through every stage, scaled up to the profile's numbers."""

    stages: tuple[StageEstimate, ...]
    memory_bytes: int
    """Peak of the process, images on disk not counted; of what a GPU holds, nothing is said."""
    num_images: int
    num_steps: int
    """Of distillation."""
    measured_s: float
    """That the trial itself took."""

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

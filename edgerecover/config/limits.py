"""The limits that `edgerecover gate --limits FILE` reads."""

from __future__ import annotations

from pathlib import Path

from edgerecover.config.schema import Fraction, NonNegative, Positive, Settings
from edgerecover.config.toml import parse, read_toml


class LimitsFile(Settings):
    """Limits of `edgerecover gate --limits FILE`, which override the bundle's own; None: not overridden."""

    min_agreement: Fraction | None = None
    min_parity_top1: Fraction | None = None
    max_parity_relative: Positive | None = None
    max_accuracy_drop_points: NonNegative | None = None
    max_precision_loss_points: NonNegative | None = None
    max_agreement_loss_points: NonNegative | None = None
    max_accuracy_loss_points: NonNegative | None = None
    max_latency_regression: NonNegative | None = None
    max_size_regression: NonNegative | None = None
    max_memory_regression: NonNegative | None = None
    max_p99_ms: Positive | None = None
    max_file_mb: Positive | None = None
    max_memory_mb: Positive | None = None


def load_limits(path: Path) -> LimitsFile:
    """Read limits that override a bundle's.

    Raises:
        BadInputError: the file cannot be read, or does not match the schema.
    """
    return parse(LimitsFile, read_toml(path), path)

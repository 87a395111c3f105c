"""The embedded example: a tiny classifier of digits, its pruned copy without recovery, and real test images.

`scripts/train_demo.py` made every file here; `NOTICE` credits the data. Importing this loads nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ARCHITECTURE = "edgerecover.demo.network:digits_net"
"""The demo's network, as `--arch` and model.toml spell it."""

DATA_CREDIT = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
    "UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0"
)
"""The attribution that the licence of the test images requires, in one line."""


@dataclass(frozen=True)
class DemoFiles:
    """Paths of the example's files inside the installed package."""

    dense: Path
    """Weights of the teacher (safetensors)."""
    pruned: Path
    """The teacher's weights after global magnitude pruning, not trained since; zeros without masks."""
    model_file: Path
    """model.toml: architecture, teacher, classes and preprocessing."""
    test_images: Path
    """npz: `images` (uint8, N×8×8×1), `labels` (int64, N), `classes` (names); never used for training."""


def demo_files() -> DemoFiles:
    """Paths of the embedded example; the folder may be read-only, so copy before writing beside them."""
    folder = Path(__file__).parent
    return DemoFiles(
        dense=folder / "dense.safetensors",
        pruned=folder / "pruned.safetensors",
        model_file=folder / "model.toml",
        test_images=folder / "digits_test.npz",
    )

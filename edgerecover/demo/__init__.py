"""The embedded example: a tiny classifier of digits, its collapsed pruned copy, and real test images.

`scripts/train_demo.py` made every file here; `NOTICE` credits the data. Importing this loads nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ARCHITECTURE = "edgerecover.demo.network:digits_net"
"""What `--arch` and model.toml call the demo's network."""

DATA_CREDIT = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
    "UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0"
)
"""The attribution that the licence of the test images asks for, in one line."""


@dataclass(frozen=True)
class DemoFiles:
    """Where the example's files lie inside the installed package."""

    dense: Path
    """Weights of the teacher, safetensors."""
    pruned: Path
    """The same weights after global magnitude pruning, nothing trained since; plain zeros."""
    model_file: Path
    """model.toml: architecture, teacher, classes and preprocessing of both."""
    test_images: Path
    """npz: `images` (uint8, N×8×8×1), `labels` (int64, N), `classes` (names); no training ever saw them."""


def demo_files() -> DemoFiles:
    """Paths of the embedded example; the folder may be read-only, so copy before writing beside them."""
    folder = Path(__file__).parent
    return DemoFiles(
        dense=folder / "dense.safetensors",
        pruned=folder / "pruned.safetensors",
        model_file=folder / "model.toml",
        test_images=folder / "digits_test.npz",
    )

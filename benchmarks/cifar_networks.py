"""torchvision's classifiers with stems for 32×32 images: the first convolution keeps the resolution, no pooling after.

Factories for `architecture = "models.py:NAME"`: the benchmark copies this file beside the checkpoints it trains.
"""

from __future__ import annotations

import torchvision
from torch import nn


def _resnet(name: str, num_classes: int) -> nn.Module:
    network = torchvision.models.get_model(name, num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def resnet18(num_classes: int = 10) -> nn.Module:
    return _resnet("resnet18", num_classes)


def resnet34(num_classes: int = 10) -> nn.Module:
    return _resnet("resnet34", num_classes)


def resnet50(num_classes: int = 10) -> nn.Module:
    return _resnet("resnet50", num_classes)


def wide_resnet50_2(num_classes: int = 10) -> nn.Module:
    return _resnet("wide_resnet50_2", num_classes)


def densenet121(num_classes: int = 10) -> nn.Module:
    network = torchvision.models.densenet121(num_classes=num_classes)
    network.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.features.pool0 = nn.Identity()
    return network


def mobilenet_v2(num_classes: int = 10) -> nn.Module:
    network = torchvision.models.mobilenet_v2(num_classes=num_classes, dropout=0.0)
    network.features[0][0].stride = (1, 1)
    network.features[2].conv[1][0].stride = (1, 1)
    return network


def shufflenet_v2_x1_0(num_classes: int = 10) -> nn.Module:
    network = torchvision.models.shufflenet_v2_x1_0(num_classes=num_classes)
    network.conv1[0].stride = (1, 1)
    network.maxpool = nn.Identity()
    return network


class _Vgg(nn.Module):
    """Convolutions of VGG, then one linear layer: at 32×32 the five poolings leave a single position."""

    def __init__(self, widths: tuple[int | str, ...], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images_NCHW):
        return self.classifier(self.features(images_NCHW).flatten(1))


def vgg_small(num_classes: int = 10) -> nn.Module:
    return _Vgg((32, "M", 64, "M", 128, 128, "M", 256, "M"), num_classes)


def vgg16_bn(num_classes: int = 10) -> nn.Module:
    return _Vgg((*_VGG_TOP, *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M"), num_classes)


def vgg19_bn(num_classes: int = 10) -> nn.Module:
    return _Vgg((*_VGG_TOP, *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"), num_classes)


_VGG_TOP = (64, 64, "M", 128, 128, "M")

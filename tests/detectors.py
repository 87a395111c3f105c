"""torchvision's own detectors with a tiny backbone."""

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d

from edgerecover.artifacts import InputSpec

SIDES = (32, 48)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
INPUT = InputSpec((3, *SIDES), MEAN, STD)
NUM_CLASSES = 4
"""As torchvision counts them: the background of SSD is one."""
SCALE = {"image_mean": list(MEAN), "image_std": list(STD)}


class Backbone(nn.Module):
    """Two maps, of cells of 4 × 4 and of 8 × 8 pixels."""

    def __init__(self, channels, norm):
        super().__init__()
        self.out_channels = channels
        self.near = nn.Sequential(nn.Conv2d(3, 8, 4, 4, bias=False), norm(8), nn.ReLU(), nn.Conv2d(8, channels, 1))
        self.far = nn.Sequential(norm(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1))

    def forward(self, images_NCHW):
        near = self.near(images_NCHW)
        return {"0": near, "1": self.far(near)}


class Listed(Backbone):
    """SSD wants the number of channels of each map."""

    def __init__(self, channels, norm):
        super().__init__(channels, norm)
        self.out_channels = [channels, channels]


def make_ssd(num_classes=NUM_CLASSES, norm=nn.BatchNorm2d):
    boxes = DefaultBoxGenerator([[2], [2, 3]], scales=[0.2, 0.4, 0.6])
    return SSD(Listed(8, norm), boxes, SIDES[::-1], num_classes, **SCALE, score_thresh=0.05)


def make_fcos(num_classes=NUM_CLASSES, norm=nn.BatchNorm2d):
    anchors = AnchorGenerator(((4,), (8,)), ((1.0,),) * 2)
    # GroupNorm of FCOS's head has 32 groups.
    return FCOS(
        Backbone(32, norm), num_classes, min_size=SIDES[0], max_size=SIDES[1], anchor_generator=anchors,
        score_thresh=0.05, **SCALE,
    )  # fmt: skip


def make_retinanet(num_classes=NUM_CLASSES, norm=nn.BatchNorm2d):
    anchors = AnchorGenerator(((6, 8), (12, 16)), ((0.5, 1.0),) * 2)
    head = RetinaNetHead(8, 4, num_classes)
    return RetinaNet(
        Backbone(8, norm), num_classes, min_size=SIDES[0], max_size=SIDES[1], anchor_generator=anchors, head=head,
        score_thresh=0.05, **SCALE,
    )  # fmt: skip


def frozen(num_classes=NUM_CLASSES):
    """As torchvision's with weights have it."""
    return make_retinanet(num_classes, FrozenBatchNorm2d)


MAKERS = {"ssd": make_ssd, "fcos": make_fcos, "retinanet": make_retinanet, "frozen": frozen}


def draw(network):
    """Weights with which scores and boxes differ from place to place, and statistics of noise."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        size = parameter[0].numel() if parameter.dim() > 1 else 4
        drawn = torch.randn(parameter.shape, generator=generator) * (2 / size) ** 0.5
        parameter.data = drawn if parameter.dim() > 1 else drawn / 4 + ("weight" in name)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + name.endswith("var") / 2)
    return network.eval()

"""torchvision's one-stage detectors as networks from images to candidates: no resizing, and no suppression.

They take a list of images, resize them, and return what is left of their boxes. What recovery needs and a device runs
lies between: backbone, head, and decoding of boxes. Weights keep their names.

Shapes: N images, A anchors, K classes, V = 4 + K numbers of a candidate.
"""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.artifacts import NUM_BOX_VALUES, InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.network.subclasses import become

if TYPE_CHECKING:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

_SAME = 1e-3
"""Difference of network inputs."""
_LEAST = 6e-8
"""Lower bound for 1 - p, which float32 cannot tell from 0."""


def return_candidates(network: nn.Module, what: str) -> None:
    """Make a one-stage detector of torchvision return its candidates, in place; other networks stay as they are.

    They are (N, A, 4 + K): centre x and y, width and height in pixels of the input, not clipped to the image; then
    the logit of the score that torchvision gives each class. SSD's background is not a class. Images are normalised,
    and of the size at which the detector runs.

    Args:
        network: as its factory built it. A subclass with a forward of its own stays as it is.
        what: architecture, for messages.

    Raises:
        BadInputError: it is a detector of two stages.
    """
    if "torchvision.models.detection" not in sys.modules:
        return  # then it cannot be one
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD

    if isinstance(network, GeneralizedRCNN) and _runs_as(network, GeneralizedRCNN):
        raise BadInputError(
            f"{what}: a detector of two stages. The second judges the boxes that the first finds, so the number of "
            "outputs differs from image to image, and student and teacher would judge different boxes",
            hint="detectors of one stage are recovered: ssdlite320_mobilenet_v3_large, ssd300_vgg16, "
            "fcos_resnet50_fpn, retinanet_resnet50_fpn. Of this one, a factory may return the candidates of its first "
            "stage: (N, A, 4 + K), boxes in pixels, then scores",
        )
    kinds: tuple[tuple[Any, Callable[..., tuple[Tensor, Tensor]]], ...] = (
        (SSD, _decode_ssd), (FCOS, _decode_fcos), (RetinaNet, _decode_retinanet)
    )  # fmt: skip
    found = [decode for kind, decode in kinds if isinstance(network, kind) and _runs_as(network, kind)]
    if not found:
        return
    decode = found[0]
    own = type(network)

    class Candidates(own):  # type: ignore[valid-type, misc]
        reads_logits = True  # `outputs.own_network` takes it off
        gives_candidates = True

        def forward(self, images_NCHW: Tensor) -> Tensor:
            boxes_NA4, logits_NAK = decode(self, *_run(self, images_NCHW))
            return torch.cat([boxes_NA4, logits_NAK], 2)

    become(network, Candidates)


def gives_candidates(network: nn.Module) -> bool:
    """Whether `return_candidates` has changed the network."""
    return getattr(type(network), "gives_candidates", False)


def check_detector(network: nn.Module, input: InputSpec, what: str) -> None:
    """Check that the input suits a network of `return_candidates`; others pass.

    Raises:
        BadInputError: the input is of another scale than the network's own transform gives images, or so small that
            there are fewer candidates than numbers for each.
    """
    if not gives_candidates(network):
        return
    own = replace(own_input(network), shape=input.shape)
    found, wanted = (torch.tensor(one.bounds()) for one in (input, own))
    if found.shape != wanted.shape or not torch.allclose(found, wanted, atol=_SAME, rtol=_SAME):
        mean, std = (",".join(f"{one:.6g}" for one in ones) for ones in (own.mean, own.std))
        raise BadInputError(
            f"{what}: its own transform makes inputs from {_range(own)}, and mean and std make them from "
            f"{_range(input)}",
            hint=f"--mean {mean} --std {std}, or mean and std in model.toml",
        )
    with torch.no_grad():
        num_anchors, num_values = network(torch.zeros(1, *input.shape)).shape[1:]
    if num_anchors <= num_values:
        raise BadInputError(
            f"{what}: has {num_anchors} candidates of {num_values} numbers each on {list(input.shape)}: too few to "
            "distinguish the two axes",
            hint="give a larger input: --input-shape, or shape in model.toml",
        )


def own_input(network: Any) -> InputSpec:
    """What the transform of a detector of torchvision makes of images: of one size, or else with a shorter side of one.

    Then the input is a square.
    """
    transform: GeneralizedRCNNTransform = network.transform
    width, height = transform.fixed_size or 2 * transform.min_size[-1:]
    return InputSpec(
        (len(transform.image_mean), int(height), int(width)),
        tuple(float(one) for one in transform.image_mean),
        tuple(float(one) for one in transform.image_std),
    )


def warning_of(network: nn.Module) -> str | None:
    """What is left out of a detector of torchvision; None for other networks."""
    if not gives_candidates(network):
        return None
    return (
        f"{type(network).__name__} is recovered and exported without what surrounds it: resizing before, and after it "
        "the clipping to the image, the lowest score, and the suppression of overlapping boxes. The file gives "
        "candidates: centre x, centre y, width and height in pixels of its input, then a logit for each class, whose "
        "sigmoid is torchvision's score"
    )


def _range(input: InputSpec) -> str:
    low, high = input.bounds()
    return f"{min(low):.3g} to {max(high):.3g}"


def _runs_as(network: nn.Module, kind: type[nn.Module]) -> bool:
    return type(network).forward is kind.forward


def _run(network: Any, images_NCHW: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of the head, and anchors (A, 4) as corners in pixels."""
    from torchvision.models.detection.image_list import ImageList

    height, width = images_NCHW.shape[-2:]
    below, beside = (-side % network.transform.size_divisible for side in (height, width))
    if below or beside:  # as the transform fills up a batch
        images_NCHW = F.pad(images_NCHW, (0, beside, 0, below))
    features = network.backbone(images_NCHW)
    maps = [features] if isinstance(features, Tensor) else list(features.values())
    generator = copy.copy(network.anchor_generator)  # it keeps its anchors, which no exporter allows
    anchors_A4 = generator(ImageList(images_NCHW, [(height, width)]), maps)[0]
    return network.head(maps), anchors_A4


def _decode_ssd(network: Any, found: dict[str, Tensor], anchors_A4: Tensor) -> tuple[Tensor, Tensor]:
    """The first class is the background."""
    logits_NAK = _logit_of(F.log_softmax(found["cls_logits"], 2)[..., 1:])
    return _decode_offsets(network.box_coder, found["bbox_regression"], anchors_A4), logits_NAK


def _decode_retinanet(network: Any, found: dict[str, Tensor], anchors_A4: Tensor) -> tuple[Tensor, Tensor]:
    return _decode_offsets(network.box_coder, found["bbox_regression"], anchors_A4), found["cls_logits"]


def _decode_fcos(network: Any, found: dict[str, Tensor], anchors_A4: Tensor) -> tuple[Tensor, Tensor]:
    """A score is the geometric mean of the class's probability and of being in the middle of the object."""
    # Not logsigmoid: exporters write the logarithm of a sigmoid, which ONNX Runtime rounds to 0 below about -18.
    logits_NAK = _logit_of((F.softplus(-found["cls_logits"]) + F.softplus(-found["bbox_ctrness"])) / -2)
    centre_A2, sides_A2 = _centres_and_sides(anchors_A4)
    scale_A4 = sides_A2.repeat(1, 2) if network.box_coder.normalize_by_size else torch.ones_like(anchors_A4)
    distances_NA4 = found["bbox_regression"] * scale_A4  # to left, top, right and bottom
    before_NA2, after_NA2 = distances_NA4[..., :2], distances_NA4[..., 2:]
    return torch.cat([centre_A2 + (after_NA2 - before_NA2) / 2, before_NA2 + after_NA2], 2), logits_NAK


def _decode_offsets(coder: Any, offsets_NA4: Tensor, anchors_A4: Tensor) -> Tensor:
    """As `BoxCoder` does, which gives corners."""
    centre_A2, sides_A2 = _centres_and_sides(anchors_A4)
    offsets_NA4 = offsets_NA4 / torch.tensor(coder.weights, dtype=offsets_NA4.dtype, device=offsets_NA4.device)
    growth_NA2 = offsets_NA4[..., 2:].clamp(max=coder.bbox_xform_clip)
    return torch.cat([centre_A2 + offsets_NA4[..., :2] * sides_A2, sides_A2 * growth_NA2.exp()], 2)


def _centres_and_sides(anchors_A4: Tensor) -> tuple[Tensor, Tensor]:
    starts_A2, ends_A2 = anchors_A4[:, :2], anchors_A4[:, 2:NUM_BOX_VALUES]
    return (starts_A2 + ends_A2) / 2, ends_A2 - starts_A2


def _logit_of(log_p: Tensor) -> Tensor:
    """log p - log(1 - p), which is finite for every p."""
    return log_p - (1 - log_p.exp()).clamp_min(_LEAST).log()

"""torchvision's and timm's networks by name: built with fresh weights, and the input of the library's own weights.

Nothing is ever downloaded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec
from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
)

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torchvision", "timm")
"""Libraries whose networks are built from a name alone."""

TRANSFORMERS = "transformers"
_IMAGENET_CLASSES = 1_000
"""Of all of torchvision's classifiers."""
_VOC_CLASSES = 21
"""Of all of torchvision's segmentation networks: those of Pascal VOC and the background."""
_DETECTORS = ("fcos_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "ssd300_vgg16",
              "ssdlite320_mobilenet_v3_large")  # fmt: skip
"""torchvision's detectors of one stage."""
_DOWNLOADING = re.compile(r"torchvision\.models\.(?:detection|segmentation)[.:](\w+)")
"""Spellings of factories that download a backbone when called without arguments."""


def library_of(architecture: str) -> str | None:
    """ "torchvision", "timm" or "transformers" if the architecture is spelled as theirs; else None."""
    library, colon, _ = architecture.partition(":")
    return library if colon and library in (*LIBRARIES, TRANSFORMERS) else None


def as_library_name(architecture: str | None) -> str | None:
    """`torchvision:NAME` for `torchvision.models.detection:NAME`, which builds the same; others as they are."""
    found = _DOWNLOADING.fullmatch(architecture or "")
    return f"torchvision:{found[1]}" if found else architecture


def is_detector(architecture: str) -> bool:
    """Whether it is one of torchvision's detectors by name."""
    library, _, name = architecture.partition(":")
    return library == "torchvision" and name in _DETECTORS


def transformers_folder(architecture: str | None, base_dir: Path) -> Path | None:
    """The folder in `transformers:FOLDER`, relative to `base_dir`; None for other architectures."""
    library, colon, name = (architecture or "").partition(":")
    return base_dir / name if colon and library == TRANSFORMERS else None


def build_from_library(
    architecture: str, num_classes: int | None, input: InputSpec | None, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build `torchvision:NAME` or `timm:NAME`.

    Args:
        architecture: one of `LIBRARIES`.
        num_classes: K; None leaves the library's default.
        input: timm's networks are built for its channels and, if they have a fixed size, for its size.
        options: further arguments of timm's network.

    Raises:
        BadInputError: the library has no such classifier, or cannot build it with these arguments.
        MissingError: timm is not installed.
    """
    library, _, name = architecture.partition(":")
    if library == "timm":
        return _build_timm(name, num_classes, input, options or {})
    return _build_torchvision(name, num_classes)


def default_input(architecture: str) -> InputSpec | None:
    """Input that the library's own default weights were trained with; None for other architectures.

    Raises:
        MissingError: timm is not installed.
    """
    library, _, name = architecture.partition(":")
    if library == "torchvision" and name in torchvision_names():
        return _default_input_of_torchvision(name)
    if library == "timm" and _timm().is_model(name):
        return _default_input_of_timm(name)
    return None


def default_num_classes(architecture: str) -> int | None:
    """K of a library's own default weights; None for other architectures, and where the library does not say.

    Raises:
        MissingError: timm is not installed.
    """
    library, _, name = architecture.partition(":")
    if is_detector(architecture):
        return None  # their own transform is part of the network, whatever its classes
    if library == "torchvision":
        return _VOC_CLASSES if name in _segmentation_names() else _IMAGENET_CLASSES
    if library == "timm" and _timm().is_model(name):
        configured = _timm().get_pretrained_cfg(name)
        return configured.num_classes if configured else None
    return None


def classifier_key(architecture: str) -> str | None:
    """For `timm:NAME`, the state_dict key of the weight with one row per class; else None.

    Raises:
        MissingError: timm is not installed.
    """
    library, _, name = architecture.partition(":")
    if library != "timm" or not _timm().is_model(name):
        return None
    configured = _timm().get_pretrained_cfg(name)
    layer = configured.classifier if configured else None
    first = layer[0] if isinstance(layer, tuple) else layer  # a distilled network has two
    return f"{first}.weight" if first else None


def nearest(name: str, known: list[str]) -> str | None:
    """The known name with the most similar spelling; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, known, 1)), None)


# --- torchvision ----------------------------------------------------------------------------------------


def _build_torchvision(name: str, num_classes: int | None) -> nn.Module:
    from torchvision import models

    names = torchvision_names()
    if name not in (*names, *_of_two_stages()):
        near = nearest(name, names)
        raise BadInputError(
            f"torchvision has no classifier, segmentation network or detector {name!r}"
            + (f"; did you mean {near!r}?" if near else ""),
            hint="torchvision.models.list_models(module=torchvision.models) lists classifiers, "
            "module=torchvision.models.segmentation or torchvision.models.detection the others",
        )
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # As torchvision sets them for its own weights; inference never uses the auxiliary heads.
        options |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    if name not in models.list_models(module=models):
        options["weights_backbone"] = None  # by default it is downloaded in spite of weights=None (torchvision 0.29.1)
    network: nn.Module = models.get_model(name, weights=None, **options)
    return network


def torchvision_names() -> list[str]:
    """Names of all classifiers, segmentation networks and one-stage detectors of the installed torchvision."""
    from torchvision import models

    return [*models.list_models(module=models), *_segmentation_names(), *_DETECTORS]


def _of_two_stages() -> list[str]:
    """Names that are built to be refused by what they are."""
    from torchvision import models

    return [name for name in models.list_models(module=models.detection) if name not in _DETECTORS]


def _segmentation_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models.segmentation)
    return names


def _default_input_of_torchvision(name: str) -> InputSpec:
    if name in _DETECTORS:
        import torch

        from edgerecover.models.network.detectors import own_input

        with torch.device("meta"):
            return own_input(_build_torchvision(name, None))
    from torchvision import models

    transforms = models.get_model_weights(name).DEFAULT.transforms()
    # Segmentation networks see whole images, whose shorter side has this size.
    side = (transforms.resize_size if name in _segmentation_names() else transforms.crop_size)[0]
    return InputSpec((3, side, side), tuple(transforms.mean), tuple(transforms.std))


# --- timm -----------------------------------------------------------------------------------------------


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingError(
            "an architecture timm:NAME needs timm, which is not installed", hint=pip_line("install 'edgerecover[timm]'")
        ) from error
    return timm


def _build_timm(name: str, num_classes: int | None, input: InputSpec | None, said: Mapping[str, Any]) -> nn.Module:
    timm = _timm()
    if not timm.is_model(name):  # create_model would look up other names (hf-hub:...) on the network
        near = nearest(name, timm.list_models())
        raise BadInputError(
            f"timm {timm.__version__} has no network {name!r}" + (f"; did you mean {near!r}?" if near else ""),
            hint="timm.list_models() lists all",
        )
    options: dict[str, Any] = {**said} if num_classes is None else {**said, "num_classes": num_classes}
    options |= _timm_input_options(timm.get_pretrained_cfg(name), input)
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # 1,300 constructors, each with its own demands on sizes
        raise BadInputError(
            f"timm:{name}: building the network failed with {type(error).__name__}: {error}",
            hint="check the input's shape [C, H, W] (--input-shape or model.toml)"
            if options
            else "another version of timm may build it",
        ) from error
    return network


def _timm_input_options(configured: Any, input: InputSpec | None) -> dict[str, Any]:
    """Arguments for an input that differs from that of timm's own weights."""
    if configured is None or input is None:
        return {}
    channels, *size = configured.input_size
    options: dict[str, Any] = {}
    if input.shape[0] != channels:
        options["in_chans"] = input.shape[0]
    if configured.fixed_input_size and list(input.shape[1:]) != size:
        options["img_size"] = input.shape[1:]
    return options


def _default_input_of_timm(name: str) -> InputSpec | None:
    from timm.data.config import resolve_data_config

    configured = _timm().get_pretrained_cfg(name)
    if configured is None:
        return None
    found: dict[str, Any] = resolve_data_config(pretrained_cfg=configured.to_dict())
    channels, height, width = found["input_size"]
    return InputSpec((channels, height, width), tuple(found["mean"]), tuple(found["std"]))

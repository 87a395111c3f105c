"""What `config.json` and `preprocessor_config.json` of timm and Hugging Face transformers say about a network.

The first names the architecture, its options and the classes, the second the input's size, mean and standard
deviation. Both are read as JSON; code that they name is never fetched and never run. A value that is not as the
libraries write it counts as unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.read.records import printable

CARD_FILE = "config.json"
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
MAX_CARD_BYTES = 16 << 20
"""A card of 21,000 classes takes two megabytes."""

_CLASSIFIER_ENDS = ("ForImageClassification", "ForImageClassificationWithTeacher", "ForSemanticSegmentation")
"""Of names of classes whose output has one score for each class, of the image or of every pixel."""
_NOT_OPTIONS = frozenset(
    ("num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
)
"""Arguments of timm.create_model that are not options of the network: files, downloads, and what the weights tell."""
_MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class PartialInput:
    """A description of an input that may be incomplete; None where nothing is said."""

    shape: tuple[int, int, int] | None = None
    """(C, H, W)."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    range: tuple[float, float] | None = None
    """Lowest and highest pixel value before mean and std."""

    def complete(self, usual: InputSpec | None) -> InputSpec | None:
        """Fill the gaps with the architecture's usual input; None if the shape, or mean and std, stay unknown."""
        shape = self.shape or (usual.shape if usual else None)
        mean, std = self.mean, self.std
        if mean is None and std is None and usual is not None:
            mean, std = usual.mean, usual.std
        if shape is None or mean is None or std is None:
            return None
        channels = shape[0]
        mean, std = (one * channels if len(one) == 1 else one for one in (mean, std))
        if len(mean) != channels or len(std) != channels:
            return None
        pixels = self.range or (usual.range if usual and self.mean is None else (0.0, 1.0))
        return InputSpec(shape, mean, std, pixels)

    @property
    def is_whole(self) -> bool:
        """Whether shape, mean and std are all known."""
        return self.shape is not None and self.mean is not None and self.std is not None


@dataclass(frozen=True)
class Card:
    """What files beside the weights, or the checkpoint itself, say about a network."""

    source: str
    """For people: "config.json"."""
    architecture: str | None = None
    """`timm:NAME` or `transformers:FOLDER`; a bare name where the checkpoint itself says it."""
    base_dir: Path = Path()
    """What FOLDER in `architecture` is relative to."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that the network must be built with, besides the number of classes."""
    classes: tuple[str, ...] | None = None
    input: PartialInput | None = None
    input_source: str = ""
    files: tuple[Path, ...] = ()
    """The files that the card was read from."""


def read_card(folder: Path) -> Card | None:
    """Read the card in a folder; None if there is none, or it belongs to another program.

    Raises:
        BadInputError: the card is timm's or transformers', but damaged, or not that of an image classifier.
    """
    path = folder / CARD_FILE
    config = _read_json(path)
    if config is None:
        return None
    if isinstance(config.get("architecture"), str) and _is_name(config["architecture"]):
        return _timm_card(path, config)
    if isinstance(config.get("model_type"), str) and isinstance(config.get("architectures"), list):
        return _transformers_card(path, config)
    return None


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file, or it holds something else."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
            return None
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add a byte order mark
    except (OSError, ValueError, RecursionError):  # another program's, or damaged: the weights may do without it
        return None
    return content if isinstance(content, dict) else None


# --- timm -----------------------------------------------------------------------------------------------------


def _timm_card(path: Path, config: Mapping[str, Any]) -> Card | None:
    """The card that `timm.models.save_for_hf` writes; in its first form, the pretrained_cfg is the whole file."""
    configured = config.get("pretrained_cfg", config)
    if not isinstance(configured, dict) or not {"input_size", "mean", "std"} & configured.keys():
        return None
    options = config.get("model_args")
    options = (
        {key: value for key, value in options.items() if isinstance(key, str)} if isinstance(options, dict) else {}
    )
    options = {key: value for key, value in options.items() if key not in _NOT_OPTIONS}
    shape = shape_of(configured.get("input_size"))
    if shape is not None and side_of(options.get("in_chans")):
        shape = (options["in_chans"], *shape[1:])
    said = PartialInput(shape, numbers_of(configured.get("mean")), numbers_of(configured.get("std"), above=0.0))
    labels = config.get("label_names", configured.get("label_names", configured.get("labels")))
    return Card(
        source=CARD_FILE,
        architecture=f"timm:{config['architecture']}",
        options=options,
        classes=labels_of(labels),
        input=said,
        input_source=CARD_FILE,
        files=(path,),
    )


# --- transformers ---------------------------------------------------------------------------------------------


def _transformers_card(path: Path, config: Mapping[str, Any]) -> Card:
    class_name = next((name for name in config["architectures"] if isinstance(name, str)), "")
    folder = path.parent.resolve()
    processor_path, processor = _processor(path.parent)
    found = processor_path.name if processor_path else CARD_FILE
    if processor.get("do_flip_channel_order") is True:
        found += ", channels blue, green, red"
    return Card(
        source=f"{CARD_FILE}: {printable(class_name)}",
        architecture=f"transformers:{folder.name}",
        base_dir=folder.parent,
        classes=labels_of(config.get("id2label")),
        input=_transformers_input(config, processor),
        input_source=found,
        files=(path, processor_path) if processor_path else (path,),
    )


def require_classifier(folder: Path, config: Mapping[str, Any]) -> str:
    """Name of the transformers class of the image classifier in a folder.

    Raises:
        BadInputError: the folder holds something else, or needs code of its own.
    """
    names = config.get("architectures")
    name = next((name for name in names if isinstance(name, str)), "") if isinstance(names, list) else ""
    if not name.endswith(_CLASSIFIER_ENDS) or not name.isidentifier():
        raise BadInputError(
            f"{folder / CARD_FILE}: describes transformers' {printable(name) or 'no class'}, not an image classifier",
            hint="give the folder of a fine-tuned ...ForImageClassification or ...ForSemanticSegmentation",
        )
    return name


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a transformers folder.

    Raises:
        BadInputError: there is none that can be read.
    """
    config = _read_json(folder / CARD_FILE)
    if config is None or not isinstance(config.get("model_type"), str):
        raise BadInputError(
            f"{folder}: holds no {CARD_FILE} of Hugging Face transformers",
            hint="save_pretrained(folder) writes one beside the weights",
        )
    return config


def _processor(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    for name in PROCESSOR_FILES:
        found = _read_json(folder / name)
        if found is not None:
            inner = found.get("image_processor")
            return folder / name, inner if isinstance(inner, dict) else found
    return None, {}


def _transformers_input(config: Mapping[str, Any], processor: Mapping[str, Any]) -> PartialInput:
    """What transformers' image processors make of an image: (pixel * rescale_factor [- 1] - mean) / std."""
    mean, std = numbers_of(processor.get("image_mean")), numbers_of(processor.get("image_std"), above=0.0)
    channels = side_of(config.get("num_channels")) or (len(mean) if mean else 3)
    size = _processed_size(processor) if processor else sides_of(config.get("image_size"))
    shape = (channels, *size) if size else None
    if not processor:
        return PartialInput(shape)
    pixels = _pixel_range(processor)
    if _normalises(processor) is False:
        return PartialInput(shape, (0.0,), (1.0,), pixels) if pixels else PartialInput(shape)
    if pixels is None or _normalises(processor) is None:
        return PartialInput(shape)
    if std is not None and processor.get("include_top") is True:
        std = tuple(one * one for one in std)  # EfficientNet's divides by the deviation a second time
    return PartialInput(shape, mean, std, pixels)


def _pixel_range(processor: Mapping[str, Any]) -> tuple[float, float] | None:
    """Lowest and highest pixel value before mean and std; the first generation of processors always divided by 255."""
    if processor.get("do_rescale") is False:
        return 0.0, 255.0
    factor = processor.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or not 0 < factor < math.inf:
        return None
    high = 1.0 if math.isclose(factor, 1 / 255, rel_tol=1e-6) else 255 * factor
    return (-1.0, high - 1.0) if processor.get("rescale_offset") is True else (0.0, high)


def _normalises(processor: Mapping[str, Any]) -> bool | None:
    """Whether the processor normalises; None if unknown: MobileViT's have an unused mean and no `do_normalize`."""
    said = processor.get("do_normalize")
    if isinstance(said, bool):
        return said
    kind = str(processor.get("image_processor_type", processor.get("feature_extractor_type", "")))
    return False if "image_mean" not in processor or kind.startswith("MobileViT") else None


def _processed_size(processor: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the images that an image processor hands to the network."""
    if processor.get("do_center_crop") is True and (size := sides_of(processor.get("crop_size"))):
        return size
    if processor.get("do_resize") is False:
        return None
    return sides_of(processor.get("size"))


# --- values out of JSON ---------------------------------------------------------------------------------------


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 200 and text.replace(".", "").replace("_", "").replace("-", "").isalnum()


def side_of(value: Any) -> int | None:
    """A whole number of pixels or channels; None for anything else."""
    return value if type(value) is int and 0 < value < _MAX_SIDE else None


def sides_of(value: Any) -> tuple[int, int] | None:
    """Height and width from 224, [224, 192], {"height": 224, "width": 192} or {"shortest_edge": 224}."""
    if isinstance(value, dict):
        value = value.get("shortest_edge", [value.get("height"), value.get("width")])
    pair = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    height, width = side_of(pair[0]), side_of(pair[1])
    return (height, width) if height and width else None


def shape_of(value: Any) -> tuple[int, int, int] | None:
    """(channels, height, width) from a list of three numbers."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    channels, height, width = (side_of(side) for side in value)
    return (channels, height, width) if channels and height and width else None


def numbers_of(value: Any, above: float = -math.inf) -> tuple[float, ...] | None:
    """A tuple from a number or a list of numbers, all finite and greater than `above`; None for anything else."""
    given = value if isinstance(value, list | tuple) else [value]
    if not 0 < len(given) < _MAX_SIDE or not all(type(one) in (int, float) for one in given):
        return None
    numbers = tuple(float(one) for one in given)
    return numbers if all(math.isfinite(one) and one > above for one in numbers) else None


def labels_of(value: Any) -> tuple[str, ...] | None:
    """Class names from a list, or from a dictionary by class index; None if they are not names."""
    if isinstance(value, dict):
        by_index = {int(key): name for key, name in value.items() if isinstance(key, str) and key.isdecimal()}
        value = [by_index.get(index) for index in range(len(value))]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        return None
    names = tuple(printable(name, 200) for name in value)
    is_numbered = all(name == f"LABEL_{index}" for index, name in enumerate(names))  # as transformers fills them in
    return None if is_numbered or len(set(names)) != len(names) or len(names) < 2 else names

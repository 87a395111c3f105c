"""What a checkpoint itself says about its network and images, as common training scripts write it.

    timm's and torchvision's scripts   args: mean, std, input_size, img_size, val_crop_size
    Lightning                          hyper_parameters: the same names
    MMEngine                           meta: classes, and the configuration as Python text, of which literals are read
    ultralytics                        names and transforms of the module, imgsz in train_args
    fastai                             vocabulary of the loaders

Nothing is run; anything spelled otherwise is ignored.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from edgerecover.models.read.cards import Card, PartialInput, labels_of, numbers_of, shape_of, side_of, sides_of
from edgerecover.models.read.records import Made, entries_of

_MAX_CONFIG_CHARACTERS = 1 << 20
_MAX_RECORDS = 20_000
_SIDES = ("img_size", "image_size", "val_crop_size")
_MEANS, _STDS = ("mean", "image_mean", "norm_mean"), ("std", "image_std", "norm_std")
_TOLD = (("args", "args in the file"), ("hyper_parameters", "hyper_parameters in the file"))
_ULTRALYTICS = "ultralytics.nn.tasks.ClassificationModel"


def card_in(root: Any) -> Card | None:
    """Find the card inside a checkpoint's tree; None if there is none.

    Args:
        root: the tree, as in `torch_files.Content`.
    """
    if isinstance(root, Made) and root.maker == "fastai.learner.Learner":
        return _fastai_card(root)
    entries = entries_of(root) or {}
    if isinstance(entries.get("meta"), dict) and "state_dict" in entries:
        return _mmengine_card(entries["meta"])
    for key in ("ema", "model"):
        if isinstance(entries.get(key), Made) and entries[key].maker == _ULTRALYTICS:
            return _ultralytics_card(entries[key], _arguments_of(entries.get("train_args")))
    for key, source in _TOLD:
        told = _arguments_of(entries.get(key))
        said = _input(told)
        if said is not None:
            return Card(source=source, input=said, input_source=source)
    return None


def _arguments_of(value: Any) -> Mapping[Any, Any]:
    """Arguments as a dictionary, from a dictionary, a Namespace, or an object of a subclass of dict."""
    if isinstance(value, Made) and value.entries is None and isinstance(value.state, dict):
        return value.state
    return entries_of(value) or {}


def _input(told: Mapping[Any, Any]) -> PartialInput | None:
    mean = next((found for key in _MEANS if (found := numbers_of(told.get(key)))), None)
    std = next((found for key in _STDS if (found := numbers_of(told.get(key), above=0.0))), None)
    mean, std = (mean, std) if mean and std else (None, None)
    shape = shape_of(told.get("input_size"))
    size = next((found for key in _SIDES if (found := sides_of(told.get(key)))), None)
    if shape is None and size is not None:
        channels = side_of(told.get("in_chans")) or side_of(told.get("in_channels")) or (len(mean) if mean else 3)
        shape = (max(channels, len(mean) if mean else 1), *size)
    return PartialInput(shape, mean, std) if shape or mean else None


# --- MMEngine -------------------------------------------------------------------------------------------------


def _mmengine_card(meta: Mapping[Any, Any]) -> Card | None:
    source = "meta in the file"
    told = _arguments_of(meta.get("dataset_meta"))
    classes = next((labels for key in ("classes", "CLASSES") if (labels := labels_of(told.get(key)))), None)
    classes = classes or labels_of(meta.get("CLASSES"))
    processor = _preprocessor(meta.get("cfg", meta.get("config")))
    mean, std = numbers_of(processor.get("mean")), numbers_of(processor.get("std"), above=0.0)
    said = PartialInput(mean=mean, std=std, range=(0.0, 255.0)) if mean and std else None
    if classes is None and said is None:
        return None
    flips = processor.get("to_rgb") is True or processor.get("bgr_to_rgb") is True
    order = "" if flips or said is None or len(said.mean or ()) != 3 else ", channels blue, green, red"
    return Card(source=source, classes=classes, input=said, input_source=f"cfg in the file{order}")


def _preprocessor(text: Any) -> Mapping[str, Any]:
    """Literals of the first `data_preprocessor` or `img_norm_cfg` with a mean, in a configuration's text."""
    if not isinstance(text, str) or len(text) > _MAX_CONFIG_CHARACTERS:
        return {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for name, value in _named_values(tree):
        if name in ("data_preprocessor", "img_norm_cfg"):
            found = dict(_literals(value))
            if "mean" in found:
                return found
    return {}


def _named_values(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Named values in Python text: variables, keywords of dict(...), keys of {...}."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value, value


def _literals(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The pairs in dict(a=1) or {"a": 1} whose values are literals."""
    pairs: list[tuple[Any, ast.AST]] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
    elif isinstance(node, ast.Dict):
        pairs = [
            (key.value if isinstance(key, ast.Constant) else None, value)
            for key, value in zip(node.keys, node.values, strict=True)
        ]
    for key, value in pairs:
        if isinstance(key, str):
            try:
                yield key, ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue


# --- ultralytics and fastai -----------------------------------------------------------------------------------


def _ultralytics_card(module: Made, told: Mapping[Any, Any]) -> Card:
    state = module.state if isinstance(module.state, dict) else {}
    size = sides_of(told.get("imgsz"))
    names = state.get("names")
    names = {str(key): name for key, name in names.items()} if isinstance(names, dict) else names
    normalise = next(_records_by(state.get("transforms"), "torchvision.transforms.transforms.Normalize"), None)
    values = normalise.state if normalise is not None and isinstance(normalise.state, dict) else {}
    said = PartialInput(
        (3, *size) if size else None, numbers_of(values.get("mean")), numbers_of(values.get("std"), above=0.0)
    )
    return Card(
        source="the module in the file",
        classes=labels_of(names),
        input=said,
        input_source="train_args and transforms in the file" if values else "train_args in the file",
    )


def _fastai_card(learner: Made) -> Card | None:
    loaders = learner.state.get("dls") if isinstance(learner.state, dict) else None
    found = next(_records_by(loaders, "fastai.data.transforms.CategoryMap"), None)
    vocabulary = found.state.get("items") if found is not None and isinstance(found.state, dict) else None
    listed = (
        vocabulary.state.get("items")
        if isinstance(vocabulary, Made) and isinstance(vocabulary.state, dict)
        else vocabulary
    )
    classes = labels_of(listed)
    return Card(source="the vocabulary in the file", classes=classes) if classes else None


def _records_by(root: Any, maker: str) -> Iterator[Made]:
    """Records of a class anywhere inside another record, the nearest first."""
    waiting, seen = [root], set[int]()
    for value in waiting:
        if id(value) in seen or len(seen) > _MAX_RECORDS:
            continue
        seen.add(id(value))
        if isinstance(value, Made):
            if value.maker == maker:
                yield value
            waiting.extend((value.state, value.args, value.entries, value.elements))
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)

"""What a built engine consists of: layers by type, sparse kernels, read from the inspector's JSON or the build log."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from edgerecover.artifacts.engines import SparseLayers

_LAYER_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[\w ]+), Inputs: (?P<inputs>.*?), Constants: .*?"
    r"Outputs: (?P<outputs>\[.*?\]), TacticName: (?P<tactic>.*?), StreamId",
    re.MULTILINE,
)
_TYPE_IN_LINE = re.compile(r"Datatype: (\w+)")
_PLUMBING = frozenset({"signal", "wait"})
"""Layers that compute nothing: they order the streams."""
_SPARSE_COUNTS = re.compile(
    r"\(Sparsity\) (?:Found (?P<found>\d+) layer\(s\) eligible|Chose (?P<chose>\d+) layer\(s\) using)"
)
_SPARSE_NAMES = re.compile(
    r"\(Sparsity\) (?P<which>Layers eligible for sparse math|"
    r"TRT inference plan picked sparse implementation for layers):(?P<names>.*)",
    re.DOTALL,
)


def layers_of_inspector(information: str) -> list[dict[str, Any]]:
    """The layers of `EngineInspector.get_engine_information(JSON)`; those of an engine without details are names."""
    try:
        layers = json.loads(information).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    return [layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in layers]


def layers_of_log(texts: Iterable[str]) -> list[dict[str, Any]]:
    """The layers that the build log ends with, in the shape of the inspector's.

    Without a GPU an engine cannot be opened, so there is no inspector; the builder's verbose log lists the same layers.
    """
    layers = []
    for text in texts:
        for found in _LAYER_LINE.finditer(text):
            layers.append(
                {
                    "Name": found["name"],
                    "LayerType": found["kind"],
                    "Inputs": [{"Datatype": kind} for kind in _TYPE_IN_LINE.findall(found["inputs"])],
                    "Outputs": [{"Datatype": kind} for kind in _TYPE_IN_LINE.findall(found["outputs"])],
                    "TacticName": found["tactic"],
                }
            )
    return layers


def by_type(layers: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Layers that compute, counted by the type of their first input, most first.

    That is what a layer multiplies in: one that quantises counts as floating, one that takes int8 as int8.
    """
    counts = Counter(_type_of(layer) for layer in layers if layer.get("LayerType") not in _PLUMBING)
    return dict(counts.most_common())


def _type_of(layer: dict[str, Any]) -> str:
    tensors = layer.get("Inputs") or layer.get("Outputs") or [{}]
    first = tensors[0] if isinstance(tensors[0], dict) else {}
    # "Datatype" since 10.x; before, "Format/Datatype" holds both: "Row major linear FP32".
    said = str(first.get("Datatype") or first.get("Format/Datatype") or "")
    words = re.findall(r"\b(FP32|Float|FP16|Half|BF16|FP8|FP4|Int8|INT8|UInt8|Int4|INT4|Int32|Int64|Bool)\b", said)
    return _ONE_NAME.get(words[-1], words[-1]) if words else "unknown"


_ONE_NAME = {"FP32": "Float", "FP16": "Half", "INT8": "Int8", "INT4": "Int4"}


def sparse_layers(texts: Iterable[str]) -> SparseLayers | None:
    """Eligible and picked layers as the build log counts them; None when it does not say.

    Some versions name them ("Layers eligible for sparse math: a, b"), others count them ("Found 2 layer(s) eligible to
    use sparse tactics"). Counts are logged after each pass of tactic selection: the last ones are the engine's.
    """
    eligible: int | None = None
    picked: int | None = None
    for text in texts:
        if counted := _SPARSE_COUNTS.search(text):
            eligible = int(counted["found"]) if counted["found"] else eligible
            picked = int(counted["chose"]) if counted["chose"] else picked
        elif named := _SPARSE_NAMES.search(text):
            number = len([name for name in named["names"].split(",") if name.strip()])
            if named["which"].startswith("Layers"):
                eligible = number
            else:
                picked = number
    return None if eligible is None else SparseLayers(eligible, picked or 0)

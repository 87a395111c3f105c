"""What the benchmark runs: methods, patterns, and the default table of cells. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal


@dataclass(frozen=True)
class Method:
    """A way to bring the student back, and the images it is done on."""

    meaning: str
    images: str
    """Profile whose synthetic sets are used: train and calibration by the recovery, held-out by the judgement."""
    recovery: str
    """Profile whose recovery settings are used."""
    kind: Literal["as is", "plain bn", "recover", "recover on real", "shorter"] = "recover"
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the profile's, by dotted key."""


METHODS = {
    "none": Method("pruned, as it is", "balanced", "balanced", "as is"),
    "bn": Method("plain re-estimation of BN statistics on dreams", "balanced", "balanced", "plain bn"),
    "repair": Method("our ladder without distillation", "balanced", "balanced", changes={"recovery.num_steps": 0}),
    "noise": Method("our recovery on Gaussian noise", "balanced", "balanced", changes={"synthesis.source": "noise"}),
    "fractal": Method("our recovery on fractals", "balanced", "balanced", changes={"synthesis.source": "fractal"}),
    "paper": Method("the published recipe, arXiv 2511.20702", "paper-2511.20702", "paper-2511.20702"),
    "fast": Method("our profile `fast`", "fast", "fast"),
    "balanced": Method("our profile `balanced`", "balanced", "balanced"),
    "quality": Method("our profile `quality`", "quality", "quality"),
    "race": Method("`fast` with fewer steps: which is the first to pass the paper?", "fast", "fast", "shorter"),
    "ceiling": Method(
        "`quality`'s steps on 7,216 real train images",
        "balanced",
        "quality",
        "recover on real",
        {"recovery.zoom_fraction": 0.0, "recovery.cutmix_share": 0.0, "recovery.refresh": None},
    ),
    "ceiling600": Method("`balanced`'s recovery on the same real images", "balanced", "balanced", "recover on real"),
}
RACE: tuple[dict[str, Any], ...] = (
    {"num_steps": 0, "layerwise": False},
    {"num_steps": 0},
    {"num_steps": 25},
    {"num_steps": 50},
    {"num_steps": 100},
)
"""Shorter and shorter forms of `fast`, from statistics repair alone upwards."""

PATTERNS = ("50", "75", "90", "95", "2:4", "channel50")
_PATTERN = re.compile(r"2:4|(layerwise|channel)?([1-9]\d?)")


def pattern_flags(pattern: str) -> list[str]:
    """The flags of `edgerecover prune`: 75 → --pattern unstructured --sparsity 0.75; channel50 → half of the MACs."""
    found = _PATTERN.fullmatch(pattern)
    if not found:
        raise SystemExit(f"--patterns {pattern}: 75, layerwise75, 2:4 or channel50 was expected")
    kind, percent = found.groups()
    if percent is None:
        return ["--pattern", "2:4"]
    return ["--pattern", kind or "unstructured", "--sparsity", f"{int(percent) / 100:g}"]


@dataclass(frozen=True)
class Cell:
    """One student to be recovered and judged."""

    network: str
    seed: int
    method: str
    pattern: str


@dataclass(frozen=True)
class Block:
    """All combinations of its four lists."""

    networks: tuple[str, ...]
    methods: tuple[str, ...]
    patterns: tuple[str, ...]
    seeds: tuple[int, ...]

    def cells(self) -> list[Cell]:
        return [Cell(*values) for values in product(self.networks, self.seeds, self.methods, self.patterns)]


# The table of README and docs. Methods without much randomness, and those that cost most for what they tell, have one
# seed; what the goals are stated for has three. Masks follow from magnitudes alone, so seeds share them.
DEFAULT = (
    Block(("resnet20",), ("none", "bn", "repair"), PATTERNS, (0,)),
    Block(("resnet20",), ("noise", "fractal"), ("75",), (0,)),
    Block(("resnet20",), ("race",), ("75",), (0, 1, 2)),
    Block(("resnet20",), ("paper",), ("50", "75", "90"), (0,)),
    Block(("resnet20",), ("fast",), ("75", "90"), (0, 1, 2)),
    Block(("resnet20",), ("balanced",), PATTERNS, (0,)),
    Block(("resnet20",), ("balanced",), ("75", "90"), (1, 2)),
    Block(("resnet20",), ("quality", "ceiling"), ("90",), (0, 1, 2)),
    Block(("resnet20",), ("ceiling600",), ("75", "95", "2:4", "channel50"), (0,)),
    Block(("resnet56",), ("none", "repair", "fast"), ("75", "90"), (0,)),
)


def chosen_cells(
    networks: Iterable[str] | None,
    methods: Iterable[str] | None,
    patterns: Iterable[str] | None,
    seeds: Iterable[int] | None,
) -> list[Cell]:
    """The default table when nothing is chosen; else all combinations, ResNet-20 and seed 0 where that is left open."""
    if networks is methods is patterns is seeds is None:
        blocks: tuple[Block, ...] = DEFAULT
    else:
        blocks = (
            Block(
                tuple(networks or ("resnet20",)),
                tuple(methods or METHODS),
                tuple(patterns or PATTERNS),
                tuple(seeds if seeds is not None else (0,)),
            ),
        )
    cells = dict.fromkeys(cell for block in blocks for cell in block.cells())
    order = {method: number for number, method in enumerate(METHODS)}
    return sorted(cells, key=lambda cell: (cell.network, cell.seed, order[cell.method]))

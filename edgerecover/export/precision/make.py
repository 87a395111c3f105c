"""Making an exported network's variants: each precision is made, measured on calibration images, and kept or refused.

Nothing here sees the held-out images, on which the chosen variants are judged later.
"""

# Shapes: N images, K classes.

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import Exported, InputSpec, Int8Sums, Precision, PrecisionTry, RefusedVariant, Variant
from edgerecover.artifacts.int8 import Int8Scheme
from edgerecover.errors import BadInputError, StageError
from edgerecover.export.precision.bias import correct_biases
from edgerecover.export.precision.graph import Graph, prepare, write
from edgerecover.export.precision.half import SENSITIVE, describe, nodes_of_types, nodes_that_overflow, to_half
from edgerecover.export.precision.integers import CLIPS, Clip, layers_of, quantize
from edgerecover.export.precision.ranges import Ranges, scan
from edgerecover.export.precision.trial import Calibration, Cost, Trial
from edgerecover.progress import SILENT, Progress

if TYPE_CHECKING:
    import onnx

MAX_POINTS_LOST = 1.0
"""Default for how many points of agreement with the teacher a lower precision may cost on the calibration images."""
_MAX_SCANNED = 256
_MAX_SHARE_KEPT = 0.25
"""Largest fraction of layers that may stay in float32; with more, it is not an int8 network."""
_NUM_RANKED_ON = 64
"""Images. Never fewer because of a clock: it would leave other layers in float32 whenever the machine is busy."""


@dataclass(frozen=True)
class _Made:
    model: onnx.ModelProto
    cost: Cost
    name: str
    seconds: float
    kept: tuple[str, ...] = ()


def make_variants(
    float32: Exported,
    wanted: Sequence[Precision],
    scheme: Int8Scheme,
    calibration: Calibration,
    input: InputSpec,
    folder: Path,
    *,
    counted_from: Exported | None = None,
    max_points_lost: float = MAX_POINTS_LOST,
    sums: Int8Sums = Int8Sums.EXACT,
    progress: Progress = SILENT,
) -> tuple[Variant | RefusedVariant, ...]:
    """Write the wanted ones of `fp16.onnx` and `int8.onnx` into `folder`; returns one answer for each precision.

    A precision is refused if every way to make it costs more than `max_points_lost`, or it cannot be made; a refusal is
    an answer, not an error.

    Args:
        float32: the exported file, which is its own variant.
        wanted: precisions, in the order of the answers.
        scheme: the int8 scheme that the target's runtime needs.
        calibration: images and the teacher's scores on them.
        input: the network's input.
        folder: where the files go; must exist.
        counted_from: the float32 file whose agreement counts as 0 points lost; None for `float32` itself.
        max_points_lost: how far agreement with the teacher may be below the float32 file's, in percentage points; one
            image may be lost however few there are, unless this is 0.
        sums: how int8 sums are computed in the trials.
        progress: where to report.

    Raises:
        BadInputError: the float32 file cannot be prepared or run.
    """
    lower = [precision for precision in wanted if precision is not Precision.FP32]
    if not lower:
        return tuple(Variant(Precision.FP32, float32, "fp32", (), "") for _ in wanted)
    graph = prepare(Path(float32.path))
    ranges = scan(
        graph,
        calibration.images,
        max_images=_MAX_SCANNED,
        with_histograms=Precision.INT8 in lower,
        progress=progress,
    )
    reference = Path((counted_from or float32).path)
    trial = Trial(reference, calibration, input.shape, sums)
    maker = _Maker(float32, graph, ranges, trial, folder, max_points_lost, progress)
    answers: list[Variant | RefusedVariant] = []
    for precision in wanted:
        try:
            if precision is Precision.FP32:
                answers.append(Variant(precision, float32, "fp32", (), ""))
            elif precision is Precision.FP16:
                answers.append(maker.half())
            else:
                answers.append(maker.int8(scheme))
        except (BadInputError, StageError) as error:
            answers.append(RefusedVariant(precision, error.message))
    return tuple(answers)


@dataclass(frozen=True)
class _Way:
    """A way to quantise: how ranges are chosen, and whether biases are corrected."""

    scheme: Int8Scheme
    clip: Clip
    corrected: bool

    def __str__(self) -> str:
        return f"ranges by {self.clip}{', biases corrected' if self.corrected else ''}"


@dataclass(frozen=True)
class _Maker:
    float32: Exported
    graph: Graph
    ranges: Ranges
    trial: Trial
    folder: Path
    max_points_lost: float
    progress: Progress

    # --- fp16 ------------------------------------------------------------------------------------------------

    def half(self) -> Variant | RefusedVariant:
        """float16 for every node that fits; if that costs too much, without the operators that lose most."""
        reasons = nodes_that_overflow(self.graph, self.ranges)
        tries = [self._half_without(reasons, "all that fits")]
        if not self._passes(tries[-1]):
            sensitive = nodes_of_types(self.graph, SENSITIVE) - set(reasons)
            reasons |= dict.fromkeys(sorted(sensitive), "its operator loses most in float16, and too much was lost")
            tries.append(self._half_without(reasons, "sensitive operators kept in float32"))
        scheme = f"fp16, checked on {self.ranges.num_images} calibration images"
        return self._answer(Precision.FP16, tries, scheme, describe(reasons))

    def _half_without(self, kept: Collection[str], name: str) -> _Made:
        started = time.perf_counter()
        model = to_half(self.graph, kept)
        in_order = tuple(node.name for node in self.graph.nodes if node.name in kept)
        return self._make(model, name, started, in_order)

    # --- int8 ------------------------------------------------------------------------------------------------

    def int8(self, scheme: Int8Scheme) -> Variant | RefusedVariant:
        """int8 for all layers, with the best choice of ranges and biases; if that loses too much, without the worst."""
        layers = layers_of(self.graph)
        if not layers:
            return RefusedVariant(Precision.INT8, "no layer can be int8: none has a stored float32 weight")
        ways = [_Way(scheme, clip, corrected) for corrected in (False, True) for clip in CLIPS]
        tries = []
        with self.progress.task("int8", len(ways), "ways") as task:
            for way in ways:
                tries.append(self._quantize(way))
                task.advance(points_lost=tries[-1].cost.points_lost)
        reason = ""
        if not any(self._passes(made) for made in tries):
            least = min(made.cost.points_lost for made in tries)
            _, way = min(zip(tries, ways, strict=True), key=lambda pair: pair[0].cost.distance)
            tries += self._without_worst(way, layers)
            reason = (
                f"all layers in int8 lose {least:.1f} points of {self.trial.words.name} on the calibration images, "
                f"more than the {self.max_points_lost:g} allowed; these lose most"
            )
        described = (
            f"int8 Q/DQ ({scheme.name}), weights per channel, {scheme.description}, "
            f"calibrated on {self.ranges.num_images} images"
        )
        return self._answer(Precision.INT8, tries, described, reason)

    def _quantize(self, way: _Way, kept: tuple[str, ...] = ()) -> _Made:
        started = time.perf_counter()
        name = f"{way}, {len(kept)} {'layer' if len(kept) == 1 else 'layers'} kept in float32" if kept else str(way)
        model = quantize(self._graph_of(way, kept), self.ranges, way.scheme, kept=kept, clip=way.clip)
        return self._make(model, name, started, kept)

    def _graph_of(self, way: _Way, kept: Collection[str]) -> Graph:
        """The graph to quantise, with corrected biases if asked; layers that stay float32 keep theirs."""
        return correct_biases(self.graph, self.ranges, way.scheme, kept=kept) if way.corrected else self.graph

    def _without_worst(self, way: _Way, layers: tuple[str, ...]) -> list[_Made]:
        """Tries with the costliest layers in float32, as few as reach the limit, by bisection; [most] if none does."""

        def without(num_kept: int) -> _Made:
            worst = set(ranked[:num_kept])
            return self._quantize(way, tuple(layer for layer in layers if layer in worst))

        most = max(1, int(_MAX_SHARE_KEPT * len(layers)))
        ranked = self._by_cost(way, layers)
        with self.progress.task("keep layers", 1 + math.ceil(math.log2(most)), "tries") as task:
            made = [without(most)]
            low, high = 0, most
            while self._passes(made[0]) and high - low > 1:
                task.advance(points_lost=made[-1].cost.points_lost)
                middle = (low + high) // 2
                made.append(without(middle))
                low, high = (low, middle) if self._passes(made[-1]) else (middle, high)
            task.advance(points_lost=made[-1].cost.points_lost)
        return made

    def _by_cost(self, way: _Way, layers: tuple[str, ...]) -> list[str]:
        """Layers by what each costs if it alone is int8, the most expensive first."""
        costs: dict[str, float] = {}
        with self.progress.task("rank layers", len(layers), "layers") as task:
            for layer in layers:
                graph = self._graph_of(way, set(layers) - {layer})
                model = quantize(graph, self.ranges, way.scheme, only=layer, clip=way.clip)
                costs[layer] = self.trial.cost_of(model, num_images=_NUM_RANKED_ON).distance
                task.advance(1)
        return sorted(layers, key=lambda layer: -costs[layer])

    # --- answers ---------------------------------------------------------------------------------------------

    def _make(self, model: onnx.ModelProto, name: str, started: float, kept: tuple[str, ...]) -> _Made:
        cost = self.trial.cost_of(model)
        return _Made(model, cost, name, time.perf_counter() - started, kept)

    def _passes(self, made: _Made) -> bool:
        """Whether a try loses few enough points; a single image may be lost, unless none may be."""
        one_image = 100 / len(self.trial.images) if self.max_points_lost > 0 else self.max_points_lost
        return made.cost.points_lost <= max(self.max_points_lost, one_image)

    def _answer(self, precision: Precision, made: list[_Made], scheme: str, reason: str) -> Variant | RefusedVariant:
        """The try that passes with the fewest float32 nodes, then with the least changed scores; or a refusal."""
        passing = [one for one in made if self._passes(one)]
        chosen = min(passing, key=lambda one: (len(one.kept), one.cost.distance), default=None)
        tries = tuple(
            PrecisionTry(one.name, one.cost.points_lost, one.cost.distance, one.seconds, one is chosen) for one in made
        )
        if chosen is None:
            least = min(one.cost.points_lost for one in made)
            return RefusedVariant(
                precision,
                f"the best of {len(made)} tries loses {least:.1f} points of {self.trial.words.agreement} on the "
                f"calibration images; {self.max_points_lost:g} are allowed",
                tries,
            )
        file = write(chosen.model, self.folder / f"{precision.value}.onnx", self.float32)
        how = chosen.name if precision is Precision.INT8 else ""
        return Variant(
            precision, file, f"{scheme}, {how}" if how else scheme, chosen.kept, reason if chosen.kept else "", tries
        )

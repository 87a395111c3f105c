"""What the gate measures on this machine: the golden answers of a bundle's model, and its latency.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import ENGINE_RUNTIMES, GoldenCheck, Latency
from edgerecover.errors import UNREADABLE_HINT, BadInputError
from edgerecover.gate.opening import Opened
from edgerecover.progress import Progress
from edgerecover.runner.answers import answers_of, check
from edgerecover.runner.contents import GOLDEN_INPUTS, MODEL, Contents, read_contents
from edgerecover.runner.engines import engine_of
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.surfaces import Surface, surface_of

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

NOW, BEFORE = "this bundle", "the baseline"


@dataclass(frozen=True)
class Measure:
    """How long to measure, and where."""

    seconds: float
    """Minimum seconds per model in each race."""
    queries: int
    """Minimum queries per model in each race."""
    cores: tuple[int, ...] = ()


@dataclass(frozen=True)
class Model:
    """The shipped model of a bundle, as this machine runs it."""

    contents: Contents
    surface: Surface
    file: Path
    """The ONNX file, or the engine that was built from it."""

    def entrant(self, name: str) -> Entrant:
        """For a race."""
        return Entrant(name, self.file, self.surface.runtime, self.surface.providers)


def ready(opened: Opened, surface: Surface | None, progress: Progress) -> Model:
    """The model of a bundle, its engine built where the runtime needs one.

    Args:
        opened: the bundle.
        surface: to run it on; None: what its own target asks of this machine.
        progress: told of engines.

    Raises:
        BadInputError: its runner's files are missing or cannot be read, or the runtime does not take the model.
        MissingError: the runtime, or a GPU for it, is not here.
    """
    contents = read_contents(opened.verified, opened.folder)
    where = surface or surface_of(contents.task.deployment)
    file = contents.folder / MODEL
    if where.runtime in ENGINE_RUNTIMES:
        file = engine_of(contents, contents.models[0], where.runtime, None, progress).file
    return Model(contents, where, file)


def golden_check(model: Model) -> GoldenCheck:
    """Its answers here beside those it gave where it was packed.

    Raises:
        BadInputError: the runtime cannot run it.
        MissingError: the runtime is not here.
    """
    contents = model.contents
    answers_ND = answers_of(
        model.file,
        contents.folder / GOLDEN_INPUTS,
        model.surface.runtime,
        model.surface.providers,
        contents.measure.output.num_values_in_file,
    )
    precision = contents.task.precision
    return check(answers_ND, contents.outputs, contents.teacher, contents.measure, precision, precision)


def race_of(models: Sequence[tuple[str, Model]], measure: Measure, seed: int, progress: Progress) -> list[Latency]:
    """One race of all of them, each in its own process.

    Args:
        models: with their names; the first one's golden images are what all are asked about.
        measure: how long.
        seed: of the order in each round.
        progress: where to report.

    Raises:
        EdgeRecoverError: one of them does not run.
    """
    task = models[0][1].contents.task
    raced = race(
        [model.entrant(name) for name, model in models],
        models[0][1].contents.folder / GOLDEN_INPUTS,
        Timing(task.num_warmup, max(measure.queries, task.min_queries), max(measure.seconds, task.min_duration_s)),
        target=task.machine,
        cores=measure.cores,
        strict=True,
        seed=seed,
        progress=progress,
    )
    return [one.latency_or_error() for one in raced]


def query_shape(model: Model) -> tuple[int, ...]:
    """C, H, W of its golden images."""
    inputs: NDArray[numpy.float32] = _map(model.contents.folder / GOLDEN_INPUTS)
    return tuple(inputs.shape[1:])


def _map(path: Path) -> NDArray[numpy.float32]:
    import numpy as np

    try:
        mapped: NDArray[numpy.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(
            f"{path} cannot be read: {error}",
            hint=UNREADABLE_HINT,
        ) from error
    return mapped

"""What a user said about a model, on the command line or in Python, as one value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from edgerecover.artifacts import InputSpec, TaskKind, TaskName
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from torch import nn

_EXAMPLES = {
    "--input-shape": "3,224,224",
    "--mean": "0.485,0.456,0.406",
    "--std": "0.229,0.224,0.225",
    "--pixel-range": "0,255",
}


@dataclass(frozen=True)
class Said:
    """What a user says of one of several outputs."""

    task: TaskKind | None = None
    weight: float = 1.0
    """0: the output is left out."""
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class LiveNetwork:
    """A network in memory, which takes the place of a named architecture. It is copied and never changed."""

    network: nn.Module
    """Without wrappers for training; see `whole_modules.unwrap`."""

    @property
    def name(self) -> str:
        """Its class, spelled as an architecture: "torchvision.models.resnet:ResNet"."""
        own = type(self.network)
        return f"{own.__module__}:{own.__qualname__}"


@dataclass(frozen=True)
class ModelFlags:
    """How to open a model, as far as the user says; files beside the checkpoint and its keys say the rest.

    The defaults stand for a user who typed no flag.
    """

    arch: str | LiveNetwork | None = None
    """`--arch`: `file.py:factory` (relative to the working directory), `package.module:factory`, `torchvision:NAME`,
    `timm:NAME` or `transformers:FOLDER`; from Python, a network in memory. None: a TOML file, a card or the
    checkpoint's keys and shapes name it."""
    input: InputSpec | None = None
    """`--input-shape`, `--mean`, `--std` and `--pixel-range`. None: a TOML file, a card or the library's own weights
    describe the input."""
    trust_code: bool = False
    """`--trust-code`: Python that a TOML file names runs without a trust record."""
    trust_pickle: bool = False
    """`--trust-pickle`: a file that is a whole pickled module is unpickled, which runs whatever code it names."""
    assume: bool = False
    """`--assume`: an input that nobody named, and that may be another's, is accepted."""
    assumes_scale: bool = False
    """`input` has a mean of 0 and a deviation of 1 because nobody gave any."""
    task: TaskKind | None = None
    """`--task` of the only output. None: a TOML file or the network's outputs tell."""
    tasks: Mapping[str, TaskKind] = field(default_factory=dict)
    """`--task` of several outputs, by name."""


NO_FLAGS = ModelFlags()


def flags_of(
    arch: str | LiveNetwork | None,
    shape: Sequence[int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    pixel_range: Sequence[float] | None,
    *,
    trust_code: bool,
    trust_pickle: bool,
    assume: bool,
    task: str | Mapping[str, str] | None = None,
) -> ModelFlags:
    """What a user said, checked, as one value; arguments are those of `ModelFlags` and `input_of`.

    Raises:
        BadInputError: the input that is described makes no sense.
    """
    input = input_of(shape, mean, std, pixel_range)
    assumes_scale = input is not None and mean is None and std is None
    one = None if task is None or isinstance(task, Mapping) else kind_of(task)
    several = {name: kind_of(kind) for name, kind in task.items()} if isinstance(task, Mapping) else {}
    return ModelFlags(arch, input, trust_code, trust_pickle, assume, assumes_scale, one, several)


def kind_of(task: str) -> TaskKind:
    """A task by its name.

    Raises:
        BadInputError: there is no such task.
    """
    names = get_args(TaskName)
    if task not in names:
        near = difflib.get_close_matches(task, names, 1)
        raise BadInputError(
            f"--task: {task!r} is not one of {', '.join(map(repr, names))}",
            hint=f"did you mean {near[0]}?" if near else "of several outputs: --task age=regression,sick=binary",
        )
    return TaskKind(task)


def input_of(
    shape: Sequence[int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    pixel_range: Sequence[float] | None,
) -> InputSpec | None:
    """The flags about preprocessing as one value; None if none was given.

    Args:
        shape: C, H, W.
        mean: one number per channel; None: 0.
        std: one number per channel; None: 1.
        pixel_range: lowest and highest pixel before mean and std; None: 0 and 1.

    Raises:
        BadInputError: the wrong number of values, values that make no sense, or anything without a shape.
    """
    if shape is None:
        if mean is not None or std is not None or pixel_range is not None:
            raise BadInputError(
                "--mean, --std and --pixel-range need --input-shape", hint="for example --input-shape 3,224,224"
            )
        return None
    sides = _shape_of(shape)
    channels = sides[0]
    per_channel = f"one number for each of {channels} channel{'' if channels == 1 else 's'}"
    means = _numbers("--mean", mean, channels, per_channel) or (0.0,) * channels
    deviations = _numbers("--std", std, channels, per_channel) or (1.0,) * channels
    if min(deviations) <= 0:
        raise wrong_value("--std", std, "numbers above 0")
    low, high = _numbers("--pixel-range", pixel_range, 2, "the lowest and the highest pixel") or (0.0, 1.0)
    if low >= high:
        raise wrong_value("--pixel-range", pixel_range, "the lowest pixel before the highest")
    if not all(low - (high - low) <= one <= high + (high - low) for one in means):
        raise BadInputError(
            f"--mean {means[0]:g} is far from every pixel: they go from {low:g} to {high:g}",
            hint="--pixel-range 0,255 is for a mean and a std of such pixels; else give both for pixels from 0 to 1",
        )
    return InputSpec(sides, means, deviations, (low, high))


def _shape_of(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise wrong_value("--input-shape", shape, f"three numbers C,H,W (no batch), found {len(shape)}")
    if any(side != int(side) for side in shape):
        raise wrong_value("--input-shape", shape, "whole numbers C,H,W")
    if min(shape) < 1:
        raise wrong_value("--input-shape", shape, "sides of at least 1")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _numbers(flag: str, numbers: Sequence[float] | None, length: int, what: str) -> tuple[float, ...] | None:
    if numbers is None:
        return None
    if not all(map(math.isfinite, numbers)):
        raise wrong_value(flag, numbers, "finite numbers")
    if len(numbers) != length:
        raise wrong_value(flag, numbers, f"{what}, found {len(numbers)}")
    return tuple(map(float, numbers))


def wrong_value(flag: str, value: str | Sequence[float] | None, expected: str) -> BadInputError:
    """The error for a flag whose value makes no sense, with an example of one that does."""
    text = value if isinstance(value, str) or value is None else ",".join(f"{number:g}" for number in value)
    return BadInputError(f"{flag} {text}: expected {expected}", hint=f"for example {flag} {_EXAMPLES[flag]}")

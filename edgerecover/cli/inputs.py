"""Flags and paths as values, checked before anything heavy is loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from edgerecover.artifacts import InputSpec
    from edgerecover.models.name.flags import ModelFlags
    from edgerecover.remote.ssh import Access


def require_file(path: Path) -> None:
    """Refuse a path that does not exist."""
    if not path.exists():
        raise BadInputError(f"{path} does not exist", hint="check the path")


def require_checkpoint(path: Path) -> None:
    """Refuse what cannot be trained, pruned or synthesized from: a missing file, or an ONNX file."""
    if not path.exists():
        raise BadInputError(f"{path} does not exist", hint="check the path; a checkpoint is expected")
    if path.suffix.lower() == ".onnx":
        raise BadInputError(
            f"{path} is an ONNX file, which can be validated but not trained",
            hint="give the PyTorch checkpoint, or use `edgerecover validate` on this file",
        )


_EXAMPLES = {"--input-shape": "3,224,224", "--mean": "0.485,0.456,0.406", "--std": "0.229,0.224,0.225"}
_EXAMPLES["--pixel-range"] = "0,255"


def _wrong(flag: str, text: str, expected: str) -> BadInputError:
    return BadInputError(f"{flag} {text}: expected {expected}", hint=f"for example {flag} {_EXAMPLES[flag]}")


def _numbers(flag: str, text: str | None, length: int, what: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise _wrong(flag, text, "numbers with commas between them") from error
    if not all(map(math.isfinite, numbers)):
        raise _wrong(flag, text, "finite numbers")
    if len(numbers) != length:
        raise _wrong(flag, text, f"{what}, found {len(numbers)}")
    return numbers


def input_shape_of(text: str) -> tuple[int, int, int]:
    """The value of --input-shape: channels, height and width.

    Raises:
        BadInputError: not three whole numbers of 1 or more.
    """
    flag = "--input-shape"
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise _wrong(flag, text, "whole numbers C,H,W with commas between them") from error
    if len(sides) != 3:
        raise _wrong(flag, text, f"three numbers C,H,W (no batch), found {len(sides)}")
    if min(sides) < 1:
        raise _wrong(flag, text, "sides of at least 1")
    return sides[0], sides[1], sides[2]


def whole_numbers(flag: str, text: str | None, *, least: int) -> tuple[int, ...]:
    """The whole numbers of a flag, without duplicates; empty if it was not given."""
    if text is None:
        return ()
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < least:
        raise BadInputError(
            f"{flag} {text!r} is not a list of whole numbers, {least} or more", hint=f"for example {flag} 1,2"
        )
    return numbers


def model_flags(
    arch: str | None,
    shape: str | None,
    mean: str | None = None,
    std: str | None = None,
    pixel_range: str | None = None,
    *,
    trust_code: bool,
    trust_pickle: bool = False,
    assume: bool = False,
) -> ModelFlags:
    """The flags about how to open a model as one value.

    Raises:
        BadInputError: the input that they describe makes no sense.
    """
    from edgerecover.models.name.flags import ModelFlags

    return ModelFlags(arch, _input_spec(shape, mean, std, pixel_range), trust_code, trust_pickle, assume)


def _input_spec(shape: str | None, mean: str | None, std: str | None, pixel_range: str | None) -> InputSpec | None:
    """The flags about preprocessing as one value; None when none was given."""
    if shape is None:
        if mean or std or pixel_range:
            raise BadInputError(
                "--mean, --std and --pixel-range need --input-shape",
                hint="for example --input-shape 3,224,224",
            )
        return None
    from edgerecover.artifacts import InputSpec

    sides = input_shape_of(shape)
    channels = sides[0]
    per_channel = f"one number for each of {channels} channel{'' if channels == 1 else 's'}"
    deviations = _numbers("--std", std, channels, per_channel)
    if std is not None and deviations is not None and min(deviations) <= 0:
        raise _wrong("--std", std, "numbers above 0")
    low, high = _numbers("--pixel-range", pixel_range, 2, "the lowest and the highest pixel") or (0.0, 1.0)
    if pixel_range is not None and low >= high:
        raise _wrong("--pixel-range", pixel_range, "the lowest pixel before the highest")
    means = _numbers("--mean", mean, channels, per_channel)
    return InputSpec(sides, means or (0.0,) * channels, deviations or (1.0,) * channels, (low, high))


def device_access(on: str | None, config: Path | None, python: str) -> Access | None:
    """The flags about a device as one value; None when none is named.

    Raises:
        BadInputError: not an address, not a Python, or no such configuration.
    """
    if on is None:
        return None
    from edgerecover.remote.destination import parse_destination
    from edgerecover.remote.ssh import Access, check_python

    if config is not None:
        require_file(config)
    return Access(parse_destination(on), config, check_python(python))

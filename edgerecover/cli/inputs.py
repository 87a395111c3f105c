"""Flags and paths as values, checked before anything heavy is loaded."""

from __future__ import annotations

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
        raise BadInputError(f"{path} does not exist", hint="MODEL is the path of a checkpoint")
    if path.suffix.lower() == ".onnx":
        raise BadInputError(
            f"{path} is an ONNX file, which can be validated but not trained",
            hint="give the PyTorch checkpoint, or use `edgerecover validate` on this file",
        )


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInputError(
            f"{flag} {text!r} is not a list of numbers", hint=f"for example {flag} 0.5,0.5,0.5"
        ) from error


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
    given = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "range": _numbers("--pixel-range", pixel_range),
    }
    given = {key: value for key, value in given.items() if value is not None}
    sides = _numbers("--input-shape", shape)
    if sides is None:
        if given:
            raise BadInputError(
                "--mean, --std and --pixel-range need --input-shape",
                hint="for example --input-shape 3,224,224",
            )
        return None
    from pydantic import ValidationError

    from edgerecover.config import ModelFileInput

    try:
        return ModelFileInput.model_validate({"shape": sides, **given}).to_spec()
    except ValidationError as error:
        problem = error.errors()[0]
        where = "--" + str(problem["loc"][0]) if problem["loc"] else "--mean/--std"
        raise BadInputError(
            f"input flags: {where}: {problem['msg'].removeprefix('Value error, ')}",
            hint="for example --input-shape 3,224,224",
        ) from error


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

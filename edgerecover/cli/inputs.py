"""Flags and paths as values, checked before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.commands.inputs import require_file
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from edgerecover.models.name.flags import ModelFlags
    from edgerecover.remote.ssh import Access


def input_shape_of(text: str) -> tuple[int, int, int]:
    """The value of --input-shape: channels, height and width.

    Raises:
        BadInputError: not three whole numbers of 1 or more.
    """
    from edgerecover.models.name.flags import input_of

    input = input_of(_sides(text), None, None, None)
    assert input is not None, "a shape was given"
    return input.shape


def _sides(text: str) -> tuple[int, ...]:
    from edgerecover.models.name.flags import wrong_value

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise wrong_value("--input-shape", text, "whole numbers C,H,W with commas between them") from error


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    from edgerecover.models.name.flags import wrong_value

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise wrong_value(flag, text, "numbers with commas between them") from error


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
    task: str | None = None,
) -> ModelFlags:
    """The flags about how to open a model as one value.

    Raises:
        BadInputError: the input that they describe makes no sense.
    """
    from edgerecover.models.name.flags import flags_of

    return flags_of(
        arch,
        None if shape is None else _sides(shape),
        _numbers("--mean", mean),
        _numbers("--std", std),
        _numbers("--pixel-range", pixel_range),
        trust_code=trust_code,
        trust_pickle=trust_pickle,
        assume=assume,
        task=None if task is None else _tasks(task),
    )


def _tasks(text: str) -> str | dict[str, str]:
    """The value of --task: of the only output, or of several by name.

    Raises:
        BadInputError: an output is named twice.
    """
    named = [part.partition("=") for part in text.split(",")]
    if len(named) == 1 and not named[0][1]:
        return text
    tasks: dict[str, str] = {}
    for name, _, kind in named:
        if name.strip() in tasks:
            raise BadInputError(
                f"--task {text}: output {name.strip()!r} is named twice",
                hint="name each output once: --task age=regression,sick=binary",
            )
        tasks[name.strip()] = kind.strip()
    return tasks


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

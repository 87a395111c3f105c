"""Where commands write: results to stdout, progress and messages to stderr."""

from __future__ import annotations

import codecs
import difflib
import errno
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from edgerecover.errors import BadInputError, EdgeRecoverError, unwritable_hint

if TYPE_CHECKING:
    from rich.console import Console

    from edgerecover.artifacts import Report


_NEAREST = str.maketrans({
    **dict.fromkeys("█", "#"), **dict.fromkeys("░", "."), **dict.fromkeys("─━–—−‐", "-"), "×": "x", "→": ">", "←": "<",
    "±": "~", "≤": "<", "≥": ">", "°": " ", "…": "~", "∞": "~", "·": "*", "²": "2",
    **dict.fromkeys("‘’“”„", "'"),
})  # fmt: skip
"""Substitutes for characters that a terminal cannot write, of the same width to keep columns aligned."""


def write_nearest(stream: io.TextIOWrapper) -> None:
    """Make a stream substitute characters that its encoding lacks: the nearest one, or "?"."""
    codecs.register_error("edgerecover.nearest", _nearest)
    stream.reconfigure(errors="edgerecover.nearest")


class _Lasting(io.TextIOWrapper):
    """A stream that still accepts writes after its reader has gone, as in `run … | head`.

    A full device is raised once; what is written after that is lost silently.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._let_go(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._let_go(error)

    def _let_go(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise error


def outlive_pipe(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, for which a closed pipe is no error: a reader cannot end a run or change its exit code."""
    stream.flush()
    return _Lasting(
        io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream is sys.stderr,
    )


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wanted = error.object[error.start : error.end].translate(_NEAREST)
    return "".join(character if character.isascii() else "?" for character in wanted), error.end


def show_error(error: EdgeRecoverError) -> None:
    """Print an error, what to do next, and where its log is."""
    console = stderr()
    console.print(f"[bold red]error:[/] {_escape(error.message)}", highlight=False, soft_wrap=True)
    if error.hint:
        console.print(f"[bold]next:[/]  {_escape(error.hint)}", highlight=False, soft_wrap=True)
    if error.log:
        console.print(f"[dim]log:[/]   {_escape(str(error.log))}", highlight=False, soft_wrap=True)


_NOT_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""Faults of a disk or of its permissions, not of this program."""


def internal_error(error: Exception) -> EdgeRecoverError:
    """An unforeseen exception as an EdgeRecoverError; what a disk refuses is not reported as a bug."""
    if isinstance(error, OSError) and error.errno in _NOT_OURS:
        where = f"{error.filename}: " if error.filename else ""
        return BadInputError(f"{where}{error.strerror}", hint=unwritable_hint(error, "write elsewhere"))
    return EdgeRecoverError(
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a bug in edgerecover; run again with --debug and report the traceback",
    )


def usage_error(error: typer.TyperException) -> BadInputError | None:
    """What Typer refused, with what to do next; None: nothing was asked for, and Typer has shown the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgerecover"
    hint = f"`{command} --help` shows what it takes"
    name, near = getattr(error, "option_name", None), getattr(error, "possibilities", None) or ()
    parameter = getattr(error, "param", None)
    if type(error).__name__ == "MissingParameter" and parameter is not None:
        spelling = _spelling(parameter)
        if spelling == "--target":
            hint = "name the device that the model is for; `edgerecover targets list` shows all"
        return BadInputError(f"{spelling} is missing", hint=hint)
    if parameter is not None:
        return BadInputError(f"{_spelling(parameter)}: {_fault(error)}", hint=hint)
    if name is not None and near:
        likely = [flag for flag in near if flag.endswith(name.lstrip("-"))]
        likely = likely or difflib.get_close_matches(name, near, 2, cutoff=0.75)
        advice = f"; did you mean {' or '.join(likely)}?" if likely else ""
        return BadInputError(f"no such option: {name}{advice}", hint=hint)
    message = error.format_message().rstrip(".").replace("Got unexpected extra argument(s)", "not expected:")
    return BadInputError(message[:1].lower() + message[1:], hint=hint)


def _spelling(parameter: Any) -> str:
    """An option as it is typed, or an argument's name: "--batch", "MODEL"."""
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper())


def _fault(error: typer.TyperException) -> str:
    """What is wrong with the value of a parameter; Typer passes on what pydantic says."""
    from pydantic import ValidationError

    from edgerecover.config.words import in_words, with_found

    cause = error.__cause__ or error.__context__
    if not isinstance(cause, ValidationError):
        return error.message
    return with_found(in_words(problem := cause.errors()[0]), problem["input"])


def _escape(text: str) -> str:
    from rich.markup import escape

    from edgerecover.report.plain import plain

    return escape(plain(text))


def stderr() -> Console:
    """Console for progress and messages."""
    from rich.console import Console

    return Console(stderr=True)


def stdout() -> Console:
    """Console for results."""
    from rich.console import Console

    return Console()


def print_json(value: Any) -> None:
    """Write a result as JSON to stdout."""
    sys.stdout.write(as_json_text(value))


def as_json_text(value: Any) -> str:
    """A result as JSON, indented for people."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def show_report(report: Report, bundle: str | None, as_json: bool) -> None:
    """Show the report of a run and exit with its verdict."""
    from edgerecover.artifacts import to_json
    from edgerecover.report.terminal import print_report
    from edgerecover.validation.gates import exit_code

    if as_json:
        print_json({"bundle": bundle, "verdict": report.verdict.value, **to_json(report)})
    else:
        print_report(stdout(), report, bundle)
    raise typer.Exit(exit_code(report.verdict))


def show_settings(data: dict[str, Any], as_json: bool) -> None:
    """Show the settings of a target or profile, as TOML that can be kept as a file and changed."""
    from edgerecover.config.toml import to_toml

    if as_json:
        print_json(data)
    else:
        typer.echo(to_toml(data), nl=False)

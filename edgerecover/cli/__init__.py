"""The command line: parse, one call, render, exit code. The only place that prints or exits.

stdout is for results, stderr for progress and messages. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from edgerecover import __version__
from edgerecover.cli import (
    bench,
    bundle,
    compare,
    demo,
    engine,
    help,
    inspect,
    profiles,
    prune,
    record,
    run,
    sweep,
    synthesize,
    targets,
    trust,
    validate,
)
from edgerecover.cli import doctor as doctor_command
from edgerecover.cli import gate as gate_command
from edgerecover.cli.console import internal_error, outlive_pipe, show_error, usage_error, write_nearest
from edgerecover.cli.options import switch
from edgerecover.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_PASS, BadInputError, EdgeRecoverError

app = typer.Typer(
    name="edgerecover",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Recover a pruned network for images without data, validate the exported file and bundle it for the device.",
)
app.command("run")(run.run_command)
app.command("sweep")(sweep.sweep_command)
app.command("validate")(validate.validate)
app.command("synthesize")(synthesize.synthesize)
app.command("bench")(bench.bench)
app.command("gate")(gate_command.gate)
app.command("compare")(compare.compare)
app.command("inspect")(inspect.inspect)
app.command("prune")(prune.prune)
app.command("record")(record.record_command)
app.command("doctor")(doctor_command.doctor)
app.command("demo")(demo.demo)
app.command("trust")(trust.trust)
app.command("help")(help.help_command)
app.add_typer(bundle.app, name="bundle")
app.add_typer(engine.app, name="engine")
app.add_typer(targets.app, name="targets")
app.add_typer(profiles.app, name="profiles")


_LAST_WORD_S = 3.0
"""torchrun stops all processes when one ends: silent processes wait this long for the one that reports."""


def main() -> None:
    """Run the command line, and turn any error into a message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            write_nearest(stream)  # bars and dashes must not end a run on an ASCII terminal
    if type(sys.stdout) is io.TextIOWrapper and type(sys.stderr) is io.TextIOWrapper:  # not in a program that calls us
        sys.stdout, sys.stderr = outlive_pipe(sys.stdout), outlive_pipe(sys.stderr)
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupt)
    try:
        _refuse_several(arguments)
        try:
            ended = app([a for a in arguments if a != "--debug"], prog_name="edgerecover", standalone_mode=False)
        finally:
            sys.stdout.flush()  # a full device is reported here, not by the interpreter at exit
        sys.exit(ended if isinstance(ended, int) else EXIT_PASS)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except typer.TyperException as error:
        refused = usage_error(error)
        if refused is not None:  # None: no command was given, and the help was shown
            show_error(refused)
        sys.exit(EXIT_BAD_INPUT)
    except EdgeRecoverError as error:
        if _speaks():
            show_error(error)
        else:
            time.sleep(_LAST_WORD_S)
        if debug:
            raise
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        internal = internal_error(error)
        show_error(internal)
        sys.exit(internal.exit_code)


def _refuse_several(arguments: Sequence[str]) -> None:
    """Only `run` may be started in several processes: other commands would write their files twice."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "run")
    num_processes = os.environ.get("WORLD_SIZE", "1")
    if num_processes != "1" and command != "run":
        raise BadInputError(
            f"`{command}` cannot run in {num_processes} processes",
            hint="start it without torchrun; only `run` can use several processes",
        )


def _speaks() -> bool:
    """Whether this process reports errors: of those that torchrun started on a machine, one does."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C ends the run cleanly; a second one kills the process at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgerecover {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Show the version and exit.", metavar="", callback=_show_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[bool, switch("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    """`main` has already read --debug, at any position; it is declared here to appear in the help."""

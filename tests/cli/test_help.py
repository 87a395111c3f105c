"""The help of every command: whole, in panels, and of one vocabulary."""

import io
from collections import defaultdict
from contextlib import redirect_stdout

import pytest
import typer
from rich.markup import render

from edgerecover.cli import app


def commands(command, name="edgerecover"):
    yield name, command
    for inner in getattr(command, "commands", {}):
        yield from commands(command.commands[inner], f"{name} {inner}")


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_help_text_is_shown_whole():
    for name, command in COMMANDS.items():
        texts = {name: command.help or ""} | {p.opts[0]: getattr(p, "help", None) or "" for p in command.params}
        for option, text in texts.items():
            assert render(text).plain == text, f"{name} {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_of_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    with redirect_stdout(shown):
        app([*name.split()[1:], "--help"], prog_name="edgerecover", standalone_mode=False)
    assert max(len(line) for line in shown.getvalue().splitlines()) <= 80
    panels = shown.getvalue().partition("╭")[2]
    assert "--help" in panels
    assert "…" not in panels, "a name or an example was cut"


def test_a_flag_means_the_same_in_every_command():
    """One flag: one panel and one short form, wherever it is; --profile names gates where nothing is recovered."""
    looks = defaultdict(set)
    for command in COMMANDS.values():
        for option in command.params:
            if option.param_type_name == "option":
                short = tuple(spelling for spelling in option.opts if spelling[1] != "-")
                looks[option.opts[0]].add((option.rich_help_panel, short))
    assert len(looks) > 60
    assert {flag for flag, ways in looks.items() if len(ways) > 1} == {"--profile"}


def test_commands_that_open_a_checkpoint_take_the_same_flags_for_it():
    for name in ("run", "sweep", "validate", "synthesize", "record", "inspect", "prune"):
        flags = {option.opts[0] for option in COMMANDS[f"edgerecover {name}"].params}
        assert {"--arch", "--input-shape", "--trust-code", "--trust-pickle"} <= flags, name


def test_what_shows_progress_can_be_quiet():
    for name, command in COMMANDS.items():
        flags = {option.opts[0] for option in command.params}
        assert "--events" not in flags or "--quiet" in flags, name

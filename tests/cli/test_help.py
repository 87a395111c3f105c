"""The help of every command: nothing of it is lost where rich reads brackets as markup."""

import typer
from rich.markup import render

from edgerecover.cli import app


def commands(command, name):
    yield name, command
    for inner in getattr(command, "commands", {}):
        yield from commands(command.commands[inner], f"{name} {inner}")


def test_every_help_text_is_shown_whole():
    for name, command in commands(typer.main.get_command(app), "edgerecover"):
        texts = {name: command.help or ""} | {p.opts[0]: getattr(p, "help", None) or "" for p in command.params}
        for option, text in texts.items():
            assert render(text).plain == text, f"{name} {option}"

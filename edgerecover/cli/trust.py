"""`trust`: allow the Python code that a model.toml names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def trust(
    folder: Annotated[Path, typer.Argument(help="Folder whose model.toml and Python files you have reviewed.")],
) -> None:
    """Trust the Python code that the model.toml in FOLDER names, until one of its files changes."""
    from edgerecover.models.name.trust import trust as trust_folder

    record = trust_folder(folder)
    typer.echo(f"trusted {len(record.files)} files in {record.folder}; run `trust` again after any change")

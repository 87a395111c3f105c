"""`trust`: allow the Python code that a model.toml names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def trust(
    folder: Annotated[Path, typer.Argument(help="Folder whose model.toml and Python files you have read.")],
) -> None:
    """Allow the Python code that a model.toml in FOLDER names, as long as its files stay as they are now."""
    from edgerecover.models.name.trust import trust as trust_folder

    record = trust_folder(folder)
    typer.echo(f"trusted {len(record.files)} files in {record.folder}; a changed or new one needs `trust` again")

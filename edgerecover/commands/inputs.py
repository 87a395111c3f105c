"""Which paths a command may be given, checked before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path

from edgerecover.errors import BadInputError


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

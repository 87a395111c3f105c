"""What the user said about a checkpoint, by flags and by the TOML file beside it, before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec
from edgerecover.models.trust import require_trust

if TYPE_CHECKING:
    from edgerecover.config import ModelFile
    from edgerecover.models.whole_modules import WholeModule

MODEL_FILE = "model.toml"

UNKNOWN = "unknown"

_OWN_CODE = "edgerecover.demo.network"
"""The demo's network is edgerecover's own code: whoever runs edgerecover trusts it already."""


@dataclass(frozen=True)
class ModelSpec:
    """How to open a checkpoint; None where neither a flag nor a file says."""

    architecture: str | None
    architecture_source: str
    """"--arch", the name of the TOML file, or "unknown"."""
    base_dir: Path
    """What the file in `architecture` is relative to."""
    teacher_path: Path | None
    input: InputSpec | None
    input_source: str
    """"--input-shape", the name of the TOML file, or "unknown"."""
    classes: tuple[str, ...] | None
    module: WholeModule | None = None
    """The trusted pickle whose own module is the network."""


def resolve(
    model_path: Path,
    *,
    arch: str | None,
    teacher: Path | None,
    input_flags: InputSpec | None,
    trust_code: bool,
) -> ModelSpec:
    """Join flags and the TOML file beside the checkpoint; flags win.

    `dense.toml` beside `dense.pt` wins over `model.toml`. Python that only the file names must be trusted; an
    architecture typed by the user (`arch`, relative to the working directory) is the user's own word.

    Raises:
        BadInputError: a TOML file that is wrong, or that names Python code in a folder the user has not trusted.
    """
    toml_path = _model_file_beside(model_path)
    file = _read(toml_path)
    name = toml_path.name if toml_path else UNKNOWN
    if not arch and file.architecture and toml_path and not trust_code:
        _require_trust_in(file.architecture, toml_path)
    given_input = file.input.to_spec() if file.input else None
    given_teacher = model_path.parent / file.teacher if file.teacher else None
    return ModelSpec(
        architecture=arch or file.architecture,
        architecture_source="--arch" if arch else name if file.architecture else UNKNOWN,
        base_dir=Path.cwd() if arch else model_path.parent,
        teacher_path=teacher or given_teacher,
        input=input_flags or given_input,
        input_source="--input-shape" if input_flags else name if given_input else UNKNOWN,
        classes=file.classes,
    )


def _model_file_beside(model_path: Path) -> Path | None:
    candidates = (model_path.with_suffix(".toml"), model_path.with_name(MODEL_FILE))
    return next((path for path in candidates if path.is_file()), None)


def _read(toml_path: Path | None) -> ModelFile:
    from edgerecover.config import ModelFile, parse, read_toml

    return parse(ModelFile, read_toml(toml_path), toml_path) if toml_path else ModelFile()


def _require_trust_in(architecture: str, toml_path: Path) -> None:
    where = architecture.rpartition(":")[0]
    if not where or where in ("torchvision", _OWN_CODE):
        return
    require_trust(toml_path.parent, toml_path.parent / where if where.endswith(".py") else toml_path)

"""What flags and the TOML file beside a checkpoint say about it, before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec, Stated, TaskKind
from edgerecover.models.name.flags import LiveNetwork, ModelFlags, Said
from edgerecover.models.name.libraries import as_library_name, library_of, transformers_folder
from edgerecover.models.name.trust import require_trust
from edgerecover.models.read.cards import Card, read_card
from edgerecover.models.read.folders import home_of, weights_in

if TYPE_CHECKING:
    from edgerecover.config import ModelFile
    from edgerecover.models.build.whole_modules import WholeModule

MODEL_FILE = "model.toml"

UNKNOWN = "unknown"

LIVE = "in memory"
"""The `architecture_source` of a network that is given itself."""

INPUT_FLAGS = "--input-shape"
"""The `input_source` of an input that comes from flags."""

OWN_TRANSFORM = "the network's own transform"
"""The `input_source` of a detector of torchvision where nobody says more."""

_OWN_CODE = "edgerecover.demo.network"
"""The demo's network is edgerecover's own code: whoever runs edgerecover trusts it already."""


@dataclass(frozen=True)
class ModelSpec:
    """How to open a checkpoint; a field is None where neither a flag nor a file says."""

    architecture: str | None
    architecture_source: str
    """"--arch", "in memory", the name of the TOML file, or "unknown"."""
    base_dir: Path
    """Folder that the file in `architecture` is relative to."""
    teacher_path: Path | None
    input: InputSpec | None
    input_source: str
    """"--input-shape", the name of the TOML file, "assumed: timm's own weights", or "unknown"."""
    classes: tuple[str, ...] | None
    module: WholeModule | LiveNetwork | None = None
    """The trusted pickle whose module is the network, or the network itself."""
    toml_path: Path | None = None
    """The TOML file beside the checkpoint."""
    teacher_architecture: str | None = None
    """`teacher_architecture` in the TOML file: the teacher's, if it differs from the student's."""
    card: Card | None = None
    """What timm's or transformers' `config.json` beside the weights says."""
    classes_source: str = UNKNOWN
    """Where the class names come from."""
    assumed_of: str | None = None
    """The architecture whose library's own weights have this input, where nothing else names one."""
    assumes_scale: bool = False
    """`input` names a shape, and nobody has named a mean or a deviation: they are 0 and 1."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of timm's network, besides its number of classes and its input."""
    task: TaskKind | None = None
    """As a flag or a TOML file names it."""
    outputs: Mapping[str, Said] = field(default_factory=dict)
    """What flags and a TOML file say of outputs by name."""


def resolve(model_path: Path, flags: ModelFlags, *, teacher: Path | None) -> ModelSpec:
    """Join the command line's flags and the TOML file beside the checkpoint; flags win.

    `dense.toml` beside `dense.pt` wins over `model.toml`. Python that only the TOML file names must be trusted; what
    the user typed as `--arch` is the user's own word.

    Args:
        model_path: the checkpoint, or a folder that holds it.
        flags: what the command line says about it.
        teacher: `--teacher`; None: the TOML file may name one.

    Raises:
        BadInputError: the TOML file is invalid, or names Python code in a folder that the user has not trusted.
    """
    model_path = weights_in(model_path)
    home, toml_path = home_of(model_path), _model_file_beside(model_path)
    file = _read(toml_path)
    name = toml_path.name if toml_path else UNKNOWN
    if not flags.arch and file.architecture and toml_path:
        _require_trust(file.architecture, toml_path, flags)
    given_input = file.input.to_spec() if file.input else None
    given_teacher = teacher or (home / file.teacher if file.teacher else None)
    live = flags.arch if isinstance(flags.arch, LiveNetwork) else None
    architecture = as_library_name(_named(flags.arch) or file.architecture)
    base_dir = Path.cwd() if flags.arch else home
    return ModelSpec(
        architecture=architecture,
        architecture_source=LIVE if live else "--arch" if flags.arch else name if file.architecture else UNKNOWN,
        base_dir=base_dir,
        teacher_path=weights_in(given_teacher) if given_teacher else None,
        input=flags.input or given_input,
        input_source=INPUT_FLAGS if flags.input else name if given_input else UNKNOWN,
        assumes_scale=flags.assumes_scale if flags.input else bool(file.input and not file.input.names_scale),
        classes=file.classes,
        classes_source=name if file.classes else UNKNOWN,
        module=live,
        toml_path=toml_path,
        task=flags.task or (TaskKind(file.task) if file.task and not flags.tasks else None),
        outputs=_join(flags.tasks, file),
        teacher_architecture=file.teacher_architecture,
        card=read_card(transformers_folder(architecture, base_dir) or home),
    )


def _join(tasks: Mapping[str, TaskKind], file: ModelFile) -> dict[str, Said]:
    outputs = {
        name: Said(TaskKind(table.task) if table.task else None, table.weight, table.classes)
        for name, table in file.outputs.items()
    }
    return outputs | {name: replace(outputs.get(name, Said()), task=task) for name, task in tasks.items()}


def read_stated(model_path: Path) -> Stated:
    """Read the licence and the card that the TOML file beside a checkpoint states.

    Raises:
        BadInputError: the file is invalid.
    """
    return _read(_model_file_beside(weights_in(model_path))).stated()


def _named(arch: str | LiveNetwork | None) -> str | None:
    return arch.name if isinstance(arch, LiveNetwork) else arch


def resolve_teacher(student: ModelSpec, flags: ModelFlags, *, teacher_arch: str | LiveNetwork | None) -> ModelSpec:
    """What is said about the teacher alone: its input, and its architecture if it differs from the student's.

    `teacher_arch` (relative to the working directory) wins over `teacher_architecture` in the student's TOML file,
    and that over `dense.toml` beside `dense.pt`. A `model.toml` beside a teacher in another folder may be about any
    checkpoint there: see `resolve_neighbour`.

    Raises:
        BadInputError: a TOML file is invalid, or names Python code in a folder that the user has not trusted.
    """
    own_toml = _existing(student.teacher_path.with_suffix(".toml")) if student.teacher_path else None
    own_toml = own_toml if own_toml != student.toml_path else None
    own = _read(own_toml)
    live = teacher_arch if isinstance(teacher_arch, LiveNetwork) else None
    if teacher_arch:
        architecture, source, base_dir = _named(teacher_arch), LIVE if live else "--teacher-arch", Path.cwd()
    elif student.teacher_architecture and student.toml_path:
        architecture, source = student.teacher_architecture, student.toml_path.name
        base_dir = student.toml_path.parent
        _require_trust(architecture, student.toml_path, flags)
    elif own.architecture and own_toml:
        architecture, source, base_dir = own.architecture, own_toml.name, own_toml.parent
        _require_trust(architecture, own_toml, flags)
    else:
        architecture, source, base_dir = None, UNKNOWN, student.base_dir
    return ModelSpec(
        architecture=as_library_name(architecture),
        architecture_source=source,
        base_dir=base_dir,
        teacher_path=student.teacher_path,
        input=own.input.to_spec() if own.input else None,
        input_source=own_toml.name if own_toml and own.input else UNKNOWN,
        assumes_scale=bool(own.input and not own.input.names_scale),
        classes=student.classes,
        classes_source=student.classes_source,
        task=student.task,
        outputs=student.outputs,
        module=live,
        toml_path=own_toml,
        card=_card_of_teacher(student, architecture, base_dir),
    )


def resolve_neighbour(student: ModelSpec, teacher: ModelSpec, flags: ModelFlags) -> ModelSpec | None:
    """The teacher's spec with the architecture from `model.toml` in its own folder; None if that says nothing.

    Raises:
        BadInputError: the TOML file is invalid, or names Python code in a folder that the user has not trusted.
    """
    toml_path = _existing(home_of(teacher.teacher_path) / MODEL_FILE) if teacher.teacher_path else None
    architecture = _read(toml_path).architecture
    if toml_path is None or architecture is None or toml_path == student.toml_path:
        return None
    _require_trust(architecture, toml_path, flags)
    return replace(
        teacher,
        architecture=as_library_name(architecture),
        architecture_source=f"{MODEL_FILE} beside it",
        base_dir=toml_path.parent,
        toml_path=toml_path,
    )


def _card_of_teacher(student: ModelSpec, architecture: str | None, base_dir: Path) -> Card | None:
    path = student.teacher_path
    folder = transformers_folder(architecture, base_dir) or (home_of(path) if path else None)
    return read_card(folder) if folder else None


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _model_file_beside(model_path: Path) -> Path | None:
    candidates = (model_path.with_suffix(".toml"), home_of(model_path) / MODEL_FILE)
    return next((path for path in candidates if path.is_file()), None)


def _read(toml_path: Path | None) -> ModelFile:
    from edgerecover.config import ModelFile, parse, read_toml

    return parse(ModelFile, read_toml(toml_path), toml_path) if toml_path else ModelFile()


def _require_trust(architecture: str, toml_path: Path, flags: ModelFlags) -> None:
    """Require trust in code that a TOML file names, unless it is a library's or `--trust-code` allows it this once."""
    where = architecture.rpartition(":")[0]
    if flags.trust_code or not where or library_of(as_library_name(architecture) or "") or where == _OWN_CODE:
        return
    require_trust(toml_path.parent, toml_path.parent / where if where.endswith(".py") else toml_path)

"""What callers hand in, networks in memory or paths, as the paths and flags that commands take."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from edgerecover.artifacts import Precision, TaskName
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerecover.models.name.flags import LiveNetwork, ModelFlags
    from edgerecover.pruning import Pruning, PruningPattern
    from edgerecover.validation.evaluation import LabelledArrays

FilePath: TypeAlias = "str | os.PathLike[str]"
"""A path."""
Network: TypeAlias = "nn.Module | str | os.PathLike[str]"
"""A network in memory, or the path of a checkpoint."""
Device: TypeAlias = Literal["auto", "cuda", "cpu"]
DEVICES: tuple[str, ...] = get_args(Device)
Task: TypeAlias = TaskName | Mapping[str, TaskName]
"""What a network is for: `TaskKind` by name; of several outputs, by the name of each."""
Classes: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of classes, in the network's order; of several outputs, by the name of each."""


@dataclass(frozen=True)
class Given:
    """A network as commands take it."""

    path: Path
    """Its checkpoint; of a network in memory, one that was written for it."""
    live: LiveNetwork | None
    """The network in memory."""


def network_of(
    given: Network,
    name: str,
    folder: Path,
    masks: Mapping[str, Tensor] | None = None,
    classes: Classes | None = None,
) -> Given:
    """The checkpoint of a network: the path that was given, or a file with the weights of the one in memory.

    Args:
        given: as handed in; a network is not changed.
        name: of the parameter, and of the file.
        folder: where the file goes.
        masks: of a network in memory, by parameter name: nonzero where a weight is kept.
        classes: names of the classes of a network in memory, which a file's `model.toml` would give; of several
            outputs, by the name of each.

    Raises:
        BadInputError: neither a path nor a network, its weights cannot be read, or masks or classes for a path.
    """
    from torch import nn

    if isinstance(given, str | os.PathLike):
        if masks is not None or classes is not None:
            what = "masks" if masks is not None else "classes"
            raise BadInputError(
                f"{what}= belongs to a network in memory, and {name}= is a path",
                hint="a checkpoint holds its own masks" if masks is not None else "name them in model.toml beside it",
            )
        return Given(Path(given), None)
    if not isinstance(given, nn.Module):
        raise BadInputError(
            f"{name}=: a torch.nn.Module or a path was expected, found {type(given).__name__}",
            hint="give its .model"
            if isinstance(getattr(given, "model", None), nn.Module)
            else "give the network itself, not its state_dict(); or save that, and give the path with arch=",
        )
    from edgerecover.models.build.whole_modules import unwrap
    from edgerecover.models.name.flags import LiveNetwork

    network = unwrap(given)
    path = folder / f"{name}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    _write(network, name, path, masks)
    if classes is not None:
        path.with_suffix(".toml").write_text(_as_toml(classes), encoding="utf-8")
    return Given(path, LiveNetwork(network))


def _as_toml(classes: Classes) -> str:
    if not isinstance(classes, Mapping):
        return f"classes = {json.dumps(list(classes))}\n"
    tables = ((json.dumps(str(name)), json.dumps(list(names))) for name, names in classes.items())
    return "".join(f"[outputs.{name}]\nclasses = {names}\n" for name, names in tables)


def _write(network: nn.Module, name: str, path: Path, masks: Mapping[str, Tensor] | None) -> None:
    import torch
    from torch import Tensor

    try:
        state = {
            key: value.detach().cpu().contiguous().clone()
            for key, value in network.state_dict().items()
            if isinstance(value, Tensor)
        }
    except Exception as error:  # lazy layers, tensors without storage, anyone's state_dict
        raise BadInputError(
            f"{name}=: its weights cannot be read: {type(error).__name__}: {error}",
            hint="run the network once, on images, and see that state_dict() gives its weights",
        ) from error
    torch.save({"state_dict": state, "masks": _checked(masks, state)} if masks is not None else state, path)


def _checked(masks: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that fit the weights.

    Raises:
        BadInputError: there is no such weight, or it has another shape.
    """
    import torch

    kept = {}
    for key, mask in masks.items():
        as_bool = torch.as_tensor(mask).detach().cpu() != 0
        if key not in state or state[key].shape != as_bool.shape:
            found = f"of shape {list(state[key].shape)}" if key in state else "not in its state_dict()"
            raise BadInputError(
                f"masks=: a mask of shape {list(as_bool.shape)} for {key}, which is {found}",
                hint="give a mask of the same shape for each name in student.state_dict(): nonzero keeps a weight",
            )
        kept[key] = as_bool
    return kept


def path_of(given: FilePath | None) -> Path | None:
    """A path that may be left out."""
    return None if given is None else Path(given)


def eval_data_of(given: FilePath | tuple[object, object] | None) -> Path | LabelledArrays | None:
    """Real images: a path, or images and labels in memory.

    Raises:
        BadInputError: neither.
    """
    if given is None or isinstance(given, str | os.PathLike):
        return path_of(given)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise BadInputError(
            f"eval_data=: a path or (images, labels) was expected, found {type(given).__name__}",
            hint="give an .npz file, a folder with one subfolder per class, or two arrays or tensors",
        )
    from edgerecover.validation.evaluation import LabelledArrays

    return LabelledArrays(*given)


def architecture_of(network: Given, named: str | None, parameter: str) -> str | LiveNetwork | None:
    """The architecture that a caller gives: its name, or the network in memory.

    Raises:
        BadInputError: both.
    """
    if network.live is not None and named is not None:
        raise BadInputError(
            f"{parameter}={named!r} names the architecture of a file, and a network in memory is one already",
            hint=f"leave {parameter}= out",
        )
    return network.live or named


def architecture_of_student(student: Given, teacher: Given | None, named: str | None) -> str | LiveNetwork | None:
    """The student's architecture; of a file whose own nobody names, that of a teacher in memory.

    Raises:
        BadInputError: the student is in memory and an architecture is named, too; or its TOML file is invalid.
    """
    from edgerecover.models.name.flags import ModelFlags
    from edgerecover.models.name.spec import resolve

    own = architecture_of(student, named, "arch")
    if own is not None or teacher is None or teacher.live is None:
        return own
    said = resolve(student.path, ModelFlags(trust_code=True), teacher=None)
    return None if said.architecture or said.card else teacher.live


def flags_from(
    architecture: str | LiveNetwork | None,
    input_shape: Sequence[int] | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_range: Sequence[float] | None = None,
    *,
    trust_code: bool,
    trust_pickle: bool,
    assume: bool = False,
    task: Task | None = None,
) -> ModelFlags:
    """What a caller says of a model as `flags.flags_of` checks it, from tuples, lists, arrays or tensors of numbers.

    Raises:
        BadInputError: not numbers, they make no sense, or there is no such task.
    """
    from edgerecover.models.name.flags import flags_of

    for one in [task] if isinstance(task, str) else (task or {}).values():
        require_choice("task", one, get_args(TaskName))
    return flags_of(
        architecture,
        _numbers("input_shape", input_shape, "(3, 224, 224)"),
        _numbers("mean", mean, "(0.485, 0.456, 0.406)"),
        _numbers("std", std, "(0.229, 0.224, 0.225)"),
        _numbers("pixel_range", pixel_range, "(0, 255)"),
        trust_code=trust_code,
        trust_pickle=trust_pickle,
        assume=assume,
        task=task,
    )


def _numbers(parameter: str, values: Iterable[float] | None, example: str) -> Any:
    if values is None:
        return None
    try:
        if isinstance(values, str):
            raise TypeError("a text")
        return tuple(int(value) if float(value).is_integer() else float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise BadInputError(
            f"{parameter}={values!r}: several numbers were expected", hint=f"for example {parameter}={example}"
        ) from error


def pruning_of(pattern: PruningPattern | None, sparsity: float | None, for_runtime: str | None) -> Pruning | None:
    """How to prune a dense network first; None: not at all.

    Raises:
        BadInputError: there is no such pattern or runtime, or they do not fit each other or the fraction.
    """
    from edgerecover.pruning import PruningPattern, pruning_from_flags

    if pattern is not None:
        require_choice("pattern", pattern, get_args(PruningPattern))
    return pruning_from_flags(pattern, sparsity, for_runtime)


def precisions_from(names: Iterable[str]) -> tuple[Precision, ...]:
    """Precisions by name; one name alone is one precision.

    Raises:
        BadInputError: there is no such precision.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        require_choice("precision", name, [one.value for one in Precision])
    return tuple(Precision(name) for name in names)


def require_choice(parameter: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise BadInputError(
            f"{parameter}={value!r}: expected one of {', '.join(map(repr, choices))}",
            hint=f"for example {parameter}={choices[0]!r}",
        )


def require_least(parameter: str, value: float, least: float) -> None:
    """Refuse a number below `least`."""
    if not value >= least:
        raise BadInputError(
            f"{parameter}={value!r}: expected {least:g} or more", hint=f"for example {parameter}={least:g}"
        )

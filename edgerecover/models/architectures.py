"""From the name of an architecture to a network, and from a checkpoint's tensors into it."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from torch import Tensor, nn

SPELLINGS = "file.py:factory, package.module:factory or torchvision:NAME"

_NUM_SHOWN = 3


def build(architecture: str, base_dir: Path, num_classes: int | None) -> nn.Module:
    """Build the network that `architecture` names, with fresh weights, on the CPU.

    Runs the user's code for the first two spellings: whoever calls this has settled that it may run.

    Args:
        architecture: `file.py:factory`, `package.module:factory` or `torchvision:NAME`.
        base_dir: what a file is relative to. Its folder, or for a package this one, is on `sys.path` meanwhile.
        num_classes: handed to the factory if it has a parameter of that name; None leaves its default.

    Raises:
        BadInputError: no such file, module, factory or torchvision classifier, or code that fails.
    """
    where, _, factory_name = architecture.rpartition(":")
    if not where or not factory_name:
        near = _nearest(architecture, _torchvision_names())
        raise BadInputError(
            f"architecture {architecture!r} is not understood; it is written {SPELLINGS}",
            hint=f"did you mean torchvision:{near}?" if near else "",
        )
    if where == "torchvision":
        return _build_torchvision(factory_name, num_classes)
    path = base_dir / where if where.endswith(".py") else None
    with _importable(path.parent if path else base_dir), _reported(architecture):
        module = _load_file(path) if path else importlib.import_module(where)
        factory = _factory_of(module, factory_name, architecture)
        return _checked_network(_call(factory, num_classes), architecture)


def default_input(architecture: str) -> InputSpec | None:
    """Shape, mean and std that a torchvision architecture's own default weights were trained with; else None."""
    from torchvision import models

    source, _, name = architecture.partition(":")
    if source != "torchvision" or name not in _torchvision_names():
        return None
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    side = transforms.crop_size[0]
    return InputSpec((3, side, side), tuple(transforms.mean), tuple(transforms.std))


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str, flag: str = "--arch") -> None:
    """Copy a checkpoint's tensors into a network; keys and shapes must match (see `mismatch`).

    Args:
        module: the network, changed in place.
        tensors: the state_dict.
        what: names the checkpoint and the architecture in the message: "model.pt (models.py:resnet20)".
        flag: names the architecture on the command line.

    Raises:
        BadInputError: names the first missing and unexpected keys and the first differing shapes.
    """
    if differences := mismatch(module, tensors):
        raise BadInputError(
            f"{what}: the checkpoint does not fit the architecture\n{differences}",
            hint=f"name the architecture that the checkpoint was trained with ({flag} or model.toml)",
        )
    # The network's own state fills what may be missing, and carries the layers' version numbers.
    state = module.state_dict()
    state.update(tensors)
    module.load_state_dict(state)


def mismatch(module: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """How a checkpoint differs from a network, a line per kind of difference; empty when it fits.

    May be missing: `num_batches_tracked`, and names of a tensor that is shared and present under another name.
    """
    wanted = module.state_dict()
    shared = {wanted[key].data_ptr() for key in tensors if key in wanted}
    missing = [
        key
        for key, tensor in wanted.items()
        if key not in tensors and not key.endswith("num_batches_tracked") and tensor.data_ptr() not in shared
    ]
    unexpected = [key for key in tensors if key not in wanted]
    reshaped = [
        f"{key}: checkpoint {list(tensor.shape)}, architecture {list(wanted[key].shape)}"
        for key, tensor in tensors.items()
        if key in wanted and tensor.shape != wanted[key].shape
    ]
    faults = [
        _first("missing from the checkpoint", missing),
        _first("unknown to the architecture", unexpected),
        _first("of another shape", reshaped),
    ]
    return "\n".join(filter(None, faults))


def _first(fault: str, items: list[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - _NUM_SHOWN} more" if len(items) > _NUM_SHOWN else ""
    return f"  {len(items)} {fault}: {', '.join(items[:_NUM_SHOWN])}{more}"


# --- torchvision ----------------------------------------------------------------------------------------


def _build_torchvision(name: str, num_classes: int | None) -> nn.Module:
    from torchvision import models

    names = _torchvision_names()
    if name not in names:
        near = _nearest(name, names)
        raise BadInputError(
            f"torchvision has no classifier {name!r}" + (f"; did you mean {near!r}?" if near else ""),
            hint="torchvision.models.list_models(module=torchvision.models) lists all",
        )
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # As torchvision sets them for its own weights; inference never uses the auxiliary heads.
        options |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    network: nn.Module = models.get_model(name, weights=None, **options)
    return network


def _torchvision_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


# --- the user's code ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let code import its neighbours, from source alone, and keep what it prints away from stdout.

    Cached bytecode beside the source is ignored: it could hold other code than the source that was trusted.
    """
    entry, cache_prefix = str(folder.resolve()), sys.pycache_prefix
    with tempfile.TemporaryDirectory() as empty_cache, contextlib.redirect_stdout(sys.stderr):
        sys.path.insert(0, entry)
        sys.pycache_prefix = empty_cache
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.pycache_prefix = cache_prefix
            if entry in sys.path:
                sys.path.remove(entry)


@contextlib.contextmanager
def _reported(architecture: str) -> Iterator[None]:
    try:
        yield
    except BadInputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code raises anything
        raise BadInputError(
            f"architecture {architecture}: building the network failed with {type(error).__name__}: {error}",
            hint="the factory must build the network when called with no arguments, or with num_classes alone",
        ) from error


def _load_file(path: Path) -> Any:
    if not path.is_file():
        near = _nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        raise BadInputError(f"architecture file {path} does not exist", hint=f"did you mean {near}?" if near else "")
    # A name of its own: "models.py" must not hide behind, or replace, another module called models.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"edgerecover_user_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise BadInputError(f"architecture file {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:  # whatever the user's code raises, exit() included, leaves no half-loaded module
        del sys.modules[spec.name]
        raise
    return module


def _factory_of(module: Any, name: str, architecture: str) -> Callable[..., Any]:
    factory = getattr(module, name, None)
    if callable(factory):
        return factory  # type: ignore[no-any-return]  # callable() narrows Any to Any
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    near = _nearest(name, public)
    raise BadInputError(
        f"architecture {architecture}: {module.__file__ or module.__name__} has no function {name!r}",
        hint=f"did you mean {near}?" if near else f"it has {', '.join(sorted(public)[:8]) or 'none'}",
    )


def _call(factory: Callable[..., Any], num_classes: int | None) -> Any:
    if num_classes is not None and "num_classes" in inspect.signature(factory).parameters:
        return factory(num_classes=num_classes)
    return factory()


def _checked_network(network: Any, architecture: str) -> nn.Module:
    from torch import nn

    if not isinstance(network, nn.Module):
        raise BadInputError(
            f"architecture {architecture}: the factory returned {type(network).__name__}, not a torch.nn.Module"
        )
    return network.cpu().float()


def _nearest(name: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, 1)), None)

"""Building the network that an architecture names, and loading a checkpoint's tensors into it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError
from edgerecover.models.build.misfits import hint_of_misfit
from edgerecover.models.build.transformers_folders import build_from_folder
from edgerecover.models.name.libraries import (
    build_from_library,
    library_of,
    nearest,
    torchvision_names,
    transformers_folder,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerecover.artifacts import InputSpec

SPELLINGS = "file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or transformers:FOLDER"

_NUM_SHOWN = 3


def build(
    architecture: str,
    base_dir: Path,
    num_classes: int | None,
    input: InputSpec | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the network that `architecture` names, with fresh weights, on the CPU.

    The first two spellings run the user's code: callers have made sure that it may run.

    Args:
        architecture: `file.py:factory`, `package.module:factory`, `torchvision:NAME`, `timm:NAME`, or
            `transformers:FOLDER`, which holds a config.json.
        base_dir: folder that a file is relative to. The file's folder, or for a package `base_dir`, is on `sys.path`
            meanwhile.
        num_classes: passed to the factory if it has a parameter of that name; None leaves its default.
        input: the network's input, if known; timm's networks are built for it, and lazy layers take their sizes from
            it.
        options: further arguments of timm's networks.

    Raises:
        BadInputError: there is no such file, module, factory or classifier, or its code fails.
        MissingError: timm or transformers is not installed.
    """
    where, _, factory_name = architecture.rpartition(":")
    if not where or not factory_name:
        near = nearest(architecture, torchvision_names())
        raise BadInputError(
            f"architecture {architecture!r} is not understood; write {SPELLINGS}",
            hint=f"did you mean torchvision:{near}?" if near else "for example torchvision:resnet18, or model.py:make",
        )
    if folder := transformers_folder(architecture, base_dir):
        return build_from_folder(folder)
    if library_of(architecture):
        return build_from_library(architecture, num_classes, input, options)
    path = base_dir / where if where.endswith(".py") else None
    with importable(path.parent if path else base_dir), _report_errors(architecture):
        module = _load_file(path) if path else importlib.import_module(where)
        factory = _factory_of(module, factory_name, architecture)
        network = _check_network(_call(factory, num_classes), architecture)
        _initialise_lazy_layers(network, input, architecture)
        return network


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str, flag: str = "--arch") -> None:
    """Copy a checkpoint's tensors into a network; keys and shapes must match (see `mismatch`).

    Args:
        module: the network, changed in place.
        tensors: the state_dict.
        what: checkpoint and architecture, for the message: "model.pt (models.py:resnet20)".
        flag: the flag that names the architecture on the command line.

    Raises:
        BadInputError: they do not match; the message names the first missing and unexpected keys and differing shapes.
    """
    if differences := mismatch(module, tensors):
        raise BadInputError(
            f"{what}: the checkpoint does not fit the architecture\n{differences}",
            hint=hint_of_misfit(module.state_dict(), tensors, flag),
        )
    load_state(module, tensors)


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors from a `state_dict()` of the same network back into it, in place.

    `load_state_dict` alone refuses a plain dictionary if a layer asks for its version (torchvision's MNASNet does).
    """
    # The network's own state fills what may be missing, and carries the layers' version numbers.
    state = module.state_dict()
    state.update(tensors)
    # torch.ao.pruning's parametrizations require buffers that their state_dict leaves out.
    module.load_state_dict(state, strict=False)


def mismatch(module: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """How a checkpoint differs from a network, one line per kind of difference; empty if it fits.

    `num_batches_tracked` may be missing, and so may names of a shared tensor that is present under another name.
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


# --- the user's code ------------------------------------------------------------------------------------


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let code import its neighbours, from source only, and keep what it prints away from stdout.

    Cached bytecode beside the source is ignored: it could hold other code than the trusted source.
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
def _report_errors(architecture: str) -> Iterator[None]:
    try:
        yield
    except BadInputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code raises anything
        raise BadInputError(
            f"architecture {architecture}: building the network failed with {type(error).__name__}: {error}",
            hint=_hint_of_build(error),
        ) from error


def _hint_of_build(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "importing the file must not run a script: put parsing of arguments under if __name__ == '__main__'"
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name}, or start where it can be imported: its folder may be missing from PYTHONPATH"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "the file belongs to a package: name it as --arch package.module:factory, from the folder above"
    if "meta tensor" in str(error):
        return "let the factory build the network on the CPU, not on the device meta"
    return "the factory must build the network when called without arguments, or with num_classes alone"


def _load_file(path: Path) -> Any:
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        raise BadInputError(
            f"architecture file {path} does not exist", hint=f"did you mean {near}?" if near else "check the path"
        )
    # Under a unique name: "models.py" must neither shadow nor be shadowed by another module called models.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"edgerecover_user_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise BadInputError(f"architecture file {path} cannot be loaded as Python", hint="name a .py file")
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
    near = nearest(name, public)
    raise BadInputError(
        f"architecture {architecture}: {module.__file__ or module.__name__} has no function {name!r}",
        hint=f"did you mean {near}?" if near else f"it has {', '.join(sorted(public)[:8]) or 'none'}",
    )


def _call(factory: Callable[..., Any], num_classes: int | None) -> Any:
    if num_classes is not None and "num_classes" in inspect.signature(factory).parameters:
        return factory(num_classes=num_classes)
    return factory()


def _check_network(network: Any, architecture: str) -> nn.Module:
    from torch import nn

    if not isinstance(network, nn.Module):
        raise BadInputError(
            f"architecture {architecture}: the factory returned {type(network).__name__}, not a torch.nn.Module",
            hint=_hint_of_return(network),
        )
    from edgerecover.models.network.train_modes import let_eval_return, take_off_compilation

    return let_eval_return(take_off_compilation(network).cpu().float())


def _hint_of_return(returned: Any) -> str:
    from torch import nn

    if isinstance(returned, tuple | list):
        where = next((place for place, one in enumerate(returned) if isinstance(one, nn.Module)), None)
        if where is not None:
            return f"name a function that returns the network alone, which is now its element [{where}]"
    if isinstance(returned, type) and issubclass(returned, nn.Module):
        return f"it is a class: name {returned.__name__} itself, or return {returned.__name__}(...)"
    return "name a function without arguments that returns the network"


def _initialise_lazy_layers(network: nn.Module, input: InputSpec | None, architecture: str) -> None:
    """Run the network once if it has layers that take their sizes from their first input (`nn.LazyConv2d`)."""
    import torch
    from torch.nn.parameter import is_lazy

    if not any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
        return
    if input is None:
        raise BadInputError(
            f"architecture {architecture}: it has lazy layers, whose sizes depend on the input, which is not known",
            hint="give --input-shape, --mean and --std, or an [input] table in model.toml",
        )
    was_training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(2, *input.shape))
    network.train(was_training)

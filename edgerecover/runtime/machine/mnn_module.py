"""MNN's two compiled modules: the one that runs its files, and the one that converts to them.

The package's tools (`MNN.tools`) are left alone: when they are imported they install a client of a log service with
pip, and they report each conversion to MNN's makers. The compiled modules do neither.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from edgerecover.errors import MissingError, pip_line
from edgerecover.runtime.machine.silence import silence

MNN = "mnn"
"""Its name among runtimes."""
_ENGINE, _CONVERTER = "_mnncengine", "_tools"


def import_mnn() -> ModuleType:
    """The module that opens and runs .mnn files.

    Raises:
        MissingError: it is not installed, or does not load here.
    """
    return _import(_ENGINE, sys.path)


def import_converter() -> ModuleType:
    """The module that converts ONNX files, from the folder of the first: its name alone could be anyone's.

    Raises:
        MissingError: it is not installed, or does not load here.
    """
    return _import(_CONVERTER, [str(Path(str(import_mnn().__file__)).parent)])


def _import(name: str, folders: list[str]) -> ModuleType:
    spec = PathFinder.find_spec(name, folders)
    loaded = sys.modules.get(name)
    if loaded is not None and spec is not None and loaded.__file__ == spec.origin:
        return loaded
    hint = pip_line("install 'MNN>=3.6.1,<4'")
    if spec is None or spec.loader is None:
        raise MissingError("MNN is not installed", hint=hint)
    try:
        with silence():  # it prints which instructions the processor has
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
    except ImportError as error:
        raise MissingError(f"MNN cannot be imported: {error}", hint=hint) from error
    sys.modules[name] = module
    return module

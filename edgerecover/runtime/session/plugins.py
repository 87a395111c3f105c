"""Execution providers that come as libraries of their own, beside onnxruntime instead of in a build of it.

Such a provider is listed as available once its library is registered, and yet a list of providers that names it is
dropped without a word: it runs only if its devices are added to the session's options
(https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries.html).
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import Any

from edgerecover.errors import MissingError, pip_line
from edgerecover.runtime.session.providers import QNN

_MODULES = {QNN: "onnxruntime_qnn"}
_PACKAGES = {QNN: "onnxruntime-qnn"}


def is_plugin(provider: str) -> bool:
    """Whether the library of this provider is installed beside onnxruntime."""
    module = _MODULES.get(provider)
    return module is not None and importlib.util.find_spec(module) is not None


def plugin_version(provider: str) -> str:
    """Of the installed package: "2.7.0"."""
    return version(_PACKAGES[provider])


def devices_of(provider: str, runtime: Any) -> list[Any]:
    """The devices that an installed plugin can use here, a true NPU first; its library is registered if it is not yet.

    Args:
        provider: for which `is_plugin` holds.
        runtime: the onnxruntime module.

    Raises:
        MissingError: this onnxruntime takes no plugins, or the library does not load.
    """
    if not hasattr(runtime, "register_execution_provider_library"):
        raise MissingError(
            f"{_PACKAGES[provider]} needs a newer onnxruntime than {runtime.__version__}",
            hint=pip_line("install 'onnxruntime>=1.24.2'"),
        )
    if not _found(provider, runtime):
        module = importlib.import_module(_MODULES[provider])
        try:
            runtime.register_execution_provider_library(provider, module.get_library_path())
        except Exception as error:  # its error classes share no base but Exception
            raise MissingError(
                f"the library of {_PACKAGES[provider]} does not load: {str(error).strip().splitlines()[0][:300]}",
                hint=f"{pip_line(f'install --force-reinstall {_PACKAGES[provider]}')}; on Linux it needs glibc 2.35",
            ) from error
    return _found(provider, runtime)


def _found(provider: str, runtime: Any) -> list[Any]:
    found = [device for device in runtime.get_ep_devices() if device.ep_name == provider]
    return sorted(found, key=lambda device: not is_npu(device))


def is_npu(device: Any) -> bool:
    """Whether it is an NPU; a library may offer its emulation on the CPU under the same name."""
    return str(device.device.type).rpartition(".")[2].partition(":")[0] == "NPU"

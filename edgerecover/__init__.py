"""Recover a pruned network for images without data, validate the exported file and bundle it for the device.

From Python: `recover`, `prune`, `dream`, `inspect`, `validate` and `open_bundle`; see docs/reference/api.md.
Importing this package loads nothing heavy: torch, onnx and onnxruntime come in where they are used.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgerecover.api import (
        Bundle,
        Dreams,
        EdgeRecoverError,
        Inspection,
        PrunedModel,
        RecoveryReport,
        Report,
        dream,
        inspect,
        open_bundle,
        prune,
        recover,
        validate,
    )

# onnxruntime from 1.29 on reports each process and model to its makers as soon as it is imported; these are its words
# for no, which have to be there before. Nothing of a user's model leaves the machine.
for _variable in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_variable, "1")

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Dreams",
    "EdgeRecoverError",
    "Inspection",
    "PrunedModel",
    "RecoveryReport",
    "Report",
    "__version__",
    "dream",
    "inspect",
    "open_bundle",
    "prune",
    "recover",
    "validate",
]

if not TYPE_CHECKING:  # type checkers see the imports above, and that there is no other name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # The command line and what runs on a device import this package without any of it.
        value = getattr(importlib.import_module(f"{__name__}.api"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

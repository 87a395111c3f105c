"""Recover a pruned image classifier without data, validate the exported file and bundle it for the device.

Importing this package loads nothing heavy: torch, onnx and onnxruntime come in where they are used.
"""

import os

# onnxruntime from 1.29 on reports each process and model to its makers as soon as it is imported; these are its words
# for no, which have to be there before. Nothing of a user's model leaves the machine.
for _variable in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_variable, "1")

__version__ = "0.1.0"

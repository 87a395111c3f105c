"""Recover a pruned image classifier without data, export it, judge the exported file, pack it for the device.

Importing this package loads nothing heavy: torch, onnx and onnxruntime come in where they are used.
"""

__version__ = "0.1.0"

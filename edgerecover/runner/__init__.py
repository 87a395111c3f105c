"""On the device: verify a bundle, ready its engine, check its answers, time it, settle its gates.

Stdlib, numpy, and onnxruntime or tensorrt; no network, nothing installed, nothing written into the bundle.
"""

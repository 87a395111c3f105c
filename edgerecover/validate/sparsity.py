"""What the zeros are worth on a device, in words. Stdlib only."""

from __future__ import annotations

from edgerecover.artifacts import Pattern

_NEGLIGIBLE = 0.01


def sparsity_verdict(pattern: Pattern, sparsity: float, sparse: str, runtime: str) -> str:
    """One or two sentences on what this pattern of zeros brings.

    Args:
        pattern: of the recovered network.
        sparsity: fraction of zeros, 0 to 1.
        sparse: the pattern that the target's kernels can skip: "none" or "2:4".
        runtime: what runs the file on the target: "onnxruntime" or "tensorrt".
    """
    if pattern is Pattern.CHANNEL:
        return f"Whole channels are gone: {runtime} has less to compute on any device, and the file is smaller."
    if pattern is Pattern.DENSE or sparsity < _NEGLIGIBLE:
        return "The weights are dense: there are no zeros to use."
    zeros = f"{sparsity:.0%} {pattern.value} zeros"
    packing = "The file is as large as a dense one; the zeros shrink it only when it is compressed (zip, gzip)."
    if pattern is Pattern.UNSTRUCTURED:
        remedy = " Its sparse tensor cores need the 2:4 pattern." if sparse == "2:4" else ""
        return f"{zeros} bring no speed-up in {runtime}, which multiplies by them.{remedy} {packing}"
    if sparse != "2:4":
        return f"{zeros} bring no speed-up: this target has no sparse tensor cores. {packing}"
    if runtime != "tensorrt":
        return f"{zeros} fit the target's sparse tensor cores, which TensorRT uses and {runtime} does not. {packing}"
    return (
        f"{zeros} fit the target's sparse tensor cores: TensorRT can use them when the engine is built with "
        f"sparse weights, layer by layer where that is faster. {packing}"
    )

"""What the zeros are worth on a device, in words. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator

from edgerecover.artifacts import Exported, Pattern, Race, Ratio

_NEGLIGIBLE = 0.01
_TENSORRT = ("tensorrt", "tensorrt-rtx")


def sparsity_verdict(
    pattern: Pattern,
    sparsity: float,
    sparse: str,
    runtime: str,
    exported: Exported,
    race: Race | None = None,
    zero_channels: str = "",
) -> str:
    """A few sentences on what this pattern of zeros brings: what the target's kernels do, and what was measured.

    Args:
        pattern: of the recovered network.
        sparsity: fraction of zeros, 0 to 1.
        sparse: the pattern that the target's kernels can skip: "none" or "2:4".
        runtime: what runs the file on the target: "onnxruntime", "openvino", "mnn", "tensorrt" or "tensorrt-rtx".
        exported: the float32 file.
        race: where the dense network ran beside it.
        zero_channels: how many batch norm channels are zero, in words; empty where none is.
    """
    parts = [
        _on_the_target(pattern, sparsity, sparse, runtime, zero_channels),
        *_describe_race(race),
        _file(pattern, exported, race),
    ]
    return " ".join(part for part in parts if part)


def _on_the_target(pattern: Pattern, sparsity: float, sparse: str, runtime: str, zero_channels: str) -> str:
    if pattern is Pattern.CHANNEL:
        return f"Whole channels are gone: {runtime} has less to compute on any device."
    if _is_dense(pattern, sparsity) and zero_channels:
        return (
            f"{zero_channels[0].upper()}{zero_channels[1:]}. They bring no speed-up in {runtime}, which computes them "
            "all the same, until a tool such as Torch-Pruning takes them out of the layers."
        )
    if _is_dense(pattern, sparsity):
        return "The weights are dense: there are no zeros to use."
    zeros = f"{100 * sparsity:.0f} % {pattern.value} zeros"
    if pattern is Pattern.UNSTRUCTURED:
        remedy = " Its sparse tensor cores need the 2:4 pattern." if sparse == "2:4" else ""
        return f"{zeros} bring no speed-up in {runtime}, which multiplies by them.{remedy}"
    if sparse != "2:4":
        return f"{zeros} bring no speed-up: this target has no sparse tensor cores."
    if runtime not in _TENSORRT:
        return f"{zeros} fit the target's sparse tensor cores, which TensorRT uses and {runtime} does not."
    if runtime == "tensorrt-rtx":
        return (
            f"{zeros} fit the target's sparse tensor cores, but nothing shows that TensorRT-RTX uses them: it builds "
            "the same engine with sparse weights and without."
        )
    return (
        f"{zeros} fit the target's sparse tensor cores: TensorRT can use them when the engine is built with "
        "sparse weights, layer by layer where that is faster."
    )


def _describe_race(race: Race | None) -> Iterator[str]:
    """Against the dense twin, in the same rounds; and what fewer channels would bring instead."""
    float32 = race.float32 if race else None
    if race is None or float32 is None or (speedup := race.speedup(float32.latency)) is None:
        return
    where = "on the target" if race.on_target else "on this host"
    yield f"Measured {where}, float32 by {float32.runtime}: {_times(speedup)} the speed of the dense network."
    for twin in race.twins:
        if twin.macs_kept < 1 and (speedup := race.speedup(twin.latency)):
            yield (
                f"With {100 * (1 - twin.macs_kept):.0f} % of the MACs gone by channels it would be {_times(speedup)} "
                "(latency alone: such a network was not recovered)."
            )


def _times(speedup: Ratio) -> str:
    return f"{speedup.value:.2f}× ({speedup.low:.2f}–{speedup.high:.2f})"


def _file(pattern: Pattern, exported: Exported, race: Race | None) -> str:
    dense = race.dense if race else None
    if exported.compressed_bytes is None or dense is None:
        if pattern in (Pattern.UNSTRUCTURED, Pattern.TWO_FOUR):
            return "The file is as large as a dense one; the zeros shrink it only when it is compressed (zip, gzip)."
        return ""
    return (
        f"The float32 file takes {exported.size_bytes / 1e6:.2f} MB (dense {dense.size_bytes / 1e6:.2f}), "
        f"compressed by gzip {exported.compressed_bytes / 1e6:.2f} MB (dense {dense.compressed_bytes / 1e6:.2f})."
    )


def _is_dense(pattern: Pattern, sparsity: float) -> bool:
    return pattern is Pattern.DENSE or sparsity < _NEGLIGIBLE

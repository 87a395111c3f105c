"""What the zeros are worth on a device, in words. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgerecover.artifacts import ENGINE_RUNTIMES, TENSORRT_RTX, Exported, Pattern, Precision, Race, Ratio, Runner
from edgerecover.runtime.machine.mnn_module import MNN

_NEGLIGIBLE = 0.01
_DIFFERENT = 0.02
"""Two processes of one file differ by about half of it (docs/adr/0022)."""


def sparsity_verdict(
    pattern: Pattern,
    sparsity: float,
    sparse: str,
    runtimes: Sequence[str],
    exported: Exported,
    race: Race | None = None,
    zero_channels: str = "",
) -> str:
    """A few sentences on what this pattern of zeros brings: what kernels do with it, and what was measured.

    Args:
        pattern: of the recovered network.
        sparsity: fraction of zeros, 0 to 1.
        sparse: the pattern that the target's kernels can skip: "none" or "2:4".
        runtimes: the target's own runtime, then those raced beside it.
        exported: the float32 file.
        race: where the dense network ran beside it.
        zero_channels: how many batch norm channels are zero, in words; empty where none is.
    """
    parts = [
        _on_the_target(pattern, sparsity, sparse, runtimes, zero_channels),
        *_measured_zeros(pattern, sparsity, runtimes, race),
        *_fewer_channels(race),
        _file(pattern, exported, race),
    ]
    return " ".join(part for part in parts if part)


def _on_the_target(pattern: Pattern, sparsity: float, sparse: str, runtimes: Sequence[str], zero_channels: str) -> str:
    runtime = runtimes[0]
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
    if pattern is Pattern.TWO_FOUR and sparse == "2:4":
        if runtime not in ENGINE_RUNTIMES:
            return f"{zeros} fit the target's sparse tensor cores, which TensorRT uses and {runtime} does not."
        if runtime == TENSORRT_RTX:
            return (
                f"{zeros} fit the target's sparse tensor cores, but nothing shows that TensorRT-RTX uses them: it "
                "builds the same engine with sparse weights and without."
            )
        return (
            f"{zeros} fit the target's sparse tensor cores: TensorRT can use them when the engine is built with "
            "sparse weights, layer by layer where that is faster."
        )
    if runtime == MNN:
        return f"{zeros}: MNN leaves them out of layers that are mostly zeros."
    said = f"{zeros}: {runtime} multiplies by them."
    if sparse == "2:4":
        return f"{said} Its sparse tensor cores need the 2:4 pattern."
    if MNN in runtimes:
        return f"{said} MNN leaves them out of layers that are mostly zeros."
    return f"{said} None of this target's runtimes leaves them out."


def _measured_zeros(pattern: Pattern, sparsity: float, runtimes: Sequence[str], race: Race | None) -> Iterator[str]:
    """In each runtime that ran: against the dense network in the same runtime, in the same rounds."""
    found = list(_beside_dense(race)) if race else []
    has_zeros = pattern in (Pattern.UNSTRUCTURED, Pattern.TWO_FOUR) and not _is_dense(pattern, sparsity)
    if race is not None and found:
        where = "on the target" if race.on_target else "on this host"
        told = "; ".join(
            f"{runner.runtime} {_times(speedup)} the speed" + (f", {size:.2f} of the size" if size else "")
            for runner, speedup, size in found
        )
        yield f"Measured {where}, float32 against the dense network in the same runtime: {told}."
        if has_zeros:
            yield from _conclusion(found)
    if has_zeros and MNN in runtimes and MNN not in [runner.runtime for runner, _, _ in found]:
        yield "MNN was not measured here: `pip install 'edgerecover[mnn]'` puts it into the race."


_Beside = tuple[Runner, Ratio, "float | None"]
"""A float32 file in one runtime, how many times as fast as the dense one there, and its size as a fraction of it."""


def _beside_dense(race: Race) -> Iterator[_Beside]:
    for runner in race.runners:
        dense = race.dense_in(runner.runtime) if runner.precision is Precision.FP32 else None
        if dense is not None and dense.latency is not None and runner.latency is not None:
            size = runner.size_bytes / dense.size_bytes if runner.size_bytes and dense.size_bytes else None
            yield runner, dense.latency.slower_than(runner.latency), size


def _conclusion(found: Sequence[_Beside]) -> Iterator[str]:
    pay = [runner.runtime for runner, speedup, _ in found if speedup.low > 1 + _DIFFERENT]
    cost = [runner.runtime for runner, speedup, _ in found if speedup.high < 1 - _DIFFERENT]
    if pay:
        yield f"The zeros make it faster in {' and '.join(pay)}."
    else:
        yield "The zeros make it faster in none of them."
    if cost:
        yield f"They make it slower in {' and '.join(cost)}."
    if MNN in cost:
        yield (
            "MNN's kernels for zeros gain in 1×1 and linear layers and can lose in 3×3 ones: "
            "`prune --for mnn` puts the zeros where they gain."
        )


def _fewer_channels(race: Race | None) -> Iterator[str]:
    """What fewer channels would bring instead."""
    for twin in race.twins if race else ():
        if race is not None and twin.macs_kept < 1 and (speedup := race.speedup(twin.latency)):
            yield (
                f"With {100 * (1 - twin.macs_kept):.0f} % of the MACs gone by channels it would be {_times(speedup)} "
                "the speed of the dense one (latency alone: such a network was not recovered)."
            )


def _times(speedup: Ratio) -> str:
    return f"{speedup.value:.2f}× ({speedup.low:.2f}–{speedup.high:.2f})"


def _file(pattern: Pattern, exported: Exported, race: Race | None) -> str:
    dense = race.dense if race else None
    if exported.compressed_bytes is None or dense is None:
        if pattern in (Pattern.UNSTRUCTURED, Pattern.TWO_FOUR):
            return "The ONNX file is as large as a dense one; compressed (zip, gzip) it is smaller."
        return ""
    return (
        f"The float32 ONNX file takes {exported.size_bytes / 1e6:.2f} MB (dense {dense.size_bytes / 1e6:.2f}), "
        f"compressed by gzip {exported.compressed_bytes / 1e6:.2f} MB (dense {dense.compressed_bytes / 1e6:.2f})."
    )


def _is_dense(pattern: Pattern, sparsity: float) -> bool:
    return pattern is Pattern.DENSE or sparsity < _NEGLIGIBLE

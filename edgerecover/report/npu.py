"""Files for an NPU in words. Stdlib only."""

from __future__ import annotations

from edgerecover.artifacts.npu import NpuFile
from edgerecover.tasks.measure import Words

NPU_TITLE = "NPU, compiled and emulated here; its latency needs the phone"


def npu_lines(made: NpuFile, words: Words) -> list[str]:
    """What was compiled for one generation and how it ran, line by line."""
    lines = []
    if made.compiler:
        lines.append(
            f"{made.size_bytes / 1e6:,.1f} MB, compiled by {made.compiler} in {made.compile_s:.1f} s for {made.chip} "
            "and others of its generation"
        )
    if made.agreement and made.cpu_agreement and made.parity:
        lines.append(
            f"{words.agreement} on {made.agreement.total} images: {100 * made.agreement.value:.1f} % in the "
            f"emulation, {100 * made.cpu_agreement.value:.1f} % on the CPU"
        )
        share = f"{100 * made.parity.top1_agreement:.1f} %"
        same = f"{words.name} {share}" if words.is_graded else f"{share} decided alike"
        lines.append(
            f"against the CPU: {same}, scores off by "
            f"{_share(made.parity.mean_abs, made.parity.logit_scale)} on average and "
            f"{_share(made.parity.max_abs, made.parity.logit_scale)} at most, of their standard deviation"
        )
    if made.golden:
        lines.append(
            f"golden check {'passed' if made.golden.passed else 'failed'}: {made.golden.same_decisions} of "
            f"{made.golden.num_images} images {words.alike}"
        )
    if made.on_cpu:
        lines.append(f"left to the CPU: {', '.join(made.on_cpu)}")
    lines.append(made.file or f"not shipped: {made.problem}")
    return lines


def _share(difference: float, scale: float) -> str:
    return f"{100 * difference / scale:.1f} %" if scale else "an unknown share"

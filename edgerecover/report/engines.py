"""Engines in words. Stdlib only."""

from __future__ import annotations

from edgerecover.artifacts import Acceptance, EngineFacts
from edgerecover.artifacts.engines import TENSORRT_RTX
from edgerecover.runtime.machine.tensorrt_module import WORDS

_SHOWN = 8
"""Entries shown of a long list."""


def engine_lines(facts: EngineFacts) -> list[str]:
    """What an engine is, line by line."""
    key = facts.key
    lines = [
        f"{facts.size_bytes / 1e6:,.1f} MB, built by {WORDS.get(key.runtime, key.runtime)} {key.version} in "
        f"{facts.build_s:.1f} s",
        f"for {_machine(facts)}; batch {_batch(facts)}",
    ]
    if kinds := ", ".join(f"{number} in {kind}" for kind, number in facts.layers_by_type.items()):
        lines.append(f"layers by input type: {kinds} ({facts.layers_source})")
    if facts.recipe.sparse_weights:
        lines.append(f"sparse kernels: {sparse_words(facts)}")
    if facts.dla_fallbacks:
        lines.append(f"run on the GPU instead of the deep learning accelerator: {_list(facts.dla_fallbacks)}")
    lines.extend(f"warning: {text}" for text in facts.warnings[:_SHOWN])
    return lines


def _machine(facts: EngineFacts) -> str:
    key = facts.key
    capabilities = ", ".join(key.compute_capabilities) or (
        "8.0 and later" if key.runtime == TENSORRT_RTX else "unknown"
    )
    return f"{key.gpu} (compute capability {capabilities})" if key.gpu else f"compute capability {capabilities}"


def _batch(facts: EngineFacts) -> str:
    batch = facts.recipe.batch
    return "as in the file" if batch is None else f"{batch.min} to {batch.max}, tuned for {batch.opt}"


def sparse_words(facts: EngineFacts) -> str:
    """How many layers skip zeros: "0 of 53 eligible layers"."""
    if not facts.recipe.sparse_weights:
        return "not requested"
    if facts.sparse is None:
        if facts.key.runtime == TENSORRT_RTX:
            return "requested, with no effect that could be seen: TensorRT-RTX 1.7 builds the same engine without"
        return "allowed; the build log does not say whether any was used"
    return f"used in {facts.sparse.picked} of {facts.sparse.eligible} layers whose weights have the 2:4 pattern"


def acceptance_lines(acceptance: Acceptance) -> list[str]:
    """Whether a parser accepts a file, which parser that is, and what it objects to."""
    verdict = "accepts it" if acceptance.accepted else "rejects it"
    lines = [f"the parser of {acceptance.by} {verdict}"]
    if acceptance.stand_in:
        lines.append("it stands in for the device's own TensorRT, which decides when it builds the engine")
    lines.extend(acceptance.problems[:_SHOWN])
    lines.extend(f"warning: {text}" for text in acceptance.warnings[:_SHOWN])
    return lines


def _list(names: tuple[str, ...]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")

"""One network of the zoo: random weights with statistics of their own, half of them zero, through `commands.run.run`.

Meant for a process of its own. What comes of it is a `Row`.
"""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgerecover.artifacts import InputSpec, Report
from edgerecover.commands.run import run
from edgerecover.config import load_profile, load_target
from edgerecover.errors import BadInputError, EdgeRecoverError
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.name.libraries import build_from_library, default_input
from edgerecover.progress import Silent
from edgerecover.stages.request import Request

PROFILE = """
name = "zoo"
description = "A few images and steps that touch every part"
extends = "smoke"
[synthesis]
num_train = 4
num_calibration = 4
num_held_back = 4
batch_size = 4
num_steps = 2
[without_norms.synthesis]
num_train = 4
num_steps = 2
[recovery]
num_steps = 2
batch_size = 4
lr = 1e-4
[without_norms.recovery]
num_steps = 2
[latency]
num_warmup = 1
min_queries = 2
min_duration_s = 0.0
"""
SIDES = (32, 48, 56, 64, 96, 112, 128)
"""Tried before the network's own size; 56 and 112 are for patches of 14."""
NUM_CLASSES = 10
SPARSITY = 0.5
_NOISE_BATCHES, _NOISE_IMAGES = 2, 4
_BEFORE_WORK = ("", "load", "probe", "prune")
"""Stages in which a network may be refused."""
_MUST_HOLD = ("mask_kept", "parity_top1", "parity_logits")
"""Gates that even a network of random weights passes."""

COMPUTED_AWAY = "are not zero where the network multiplies by them"
"""Of the warning that zeros do not survive what the network makes of its weights."""
_BIAS_BEHIND_RELU = 3.0
"""Above the spread of the logits, which is 1."""

THROUGH, REFUSED, WRONG, FAILED, OVER, UNBUILT = "through", "refused", "wrong", "failed", "over the bound", "not built"
OUTCOMES = (THROUGH, REFUSED, UNBUILT, OVER, WRONG, FAILED)


@dataclass(frozen=True)
class Row:
    """What came of one network."""

    name: str
    """timm:NAME or torchvision:NAME."""
    family: str
    outcome: str
    """One of `OUTCOMES`."""
    reason: str = ""
    stage: str = ""
    """In which it ended, where it is not through."""
    exit_code: int | None = None
    num_parameters: int = 0
    input: tuple[int, ...] = ()
    seconds: float = 0.0
    """Of the pipeline, building and pruning the network left out."""
    cpu_seconds: float = 0.0
    """Of the whole process, and of those that it started."""
    seconds_by_stage: dict[str, float] | None = None
    peak_mb: float = 0.0
    notes: str = ""
    trace: str = ""
    """The last lines of an exception that nobody foresaw."""


class NotBuiltError(Exception):
    """The library itself cannot build or run the network; no fault of ours."""


def run_network(name: str, family: str, folder: Path) -> Row:
    """Build, prune and recover `name` in the empty `folder`; never raises but for what kills the process."""
    stages = _Stages()
    facts: dict[str, Any] = {}
    started_s = time.perf_counter()

    def row(outcome: str, reason: str = "", **more: Any) -> Row:
        return Row(
            name, family, outcome, reason, **facts, **more,
            seconds=round(time.perf_counter() - started_s, 2),
            cpu_seconds=round(_cpu_seconds(), 2),
            peak_mb=round(_peak_mb(), 1),
        )  # fmt: skip

    try:
        with torch.random.fork_rng(devices=[]):
            network, input = build(name)
        facts["num_parameters"] = sum(parameter.numel() for parameter in network.parameters())
        facts["input"] = input.shape
        write_pair(network, folder)
        del network
    except NotBuiltError as error:
        return row(UNBUILT, _one_line(str(error)))
    started_s = time.perf_counter()
    (folder / "zoo.toml").write_text(PROFILE)
    request = Request(
        folder / "pruned.pt",
        load_target("onnx-generic"),
        load_profile(str(folder / "zoo.toml")),
        folder / "out.bundle",
        folder / "work",
        flags=ModelFlags(arch=name, input=input),
        teacher=folder / "dense.pt",
        device="cpu",
    )
    try:
        report = run(request, stages)
    except EdgeRecoverError as error:
        outcome = REFUSED if isinstance(error, BadInputError) and stages.now in _BEFORE_WORK else FAILED
        text = _one_line(f"{error.message} | {error.hint}" if error.hint else error.message)
        return row(
            outcome, text.replace(f"{folder}/", ""), stage=stages.now, exit_code=error.exit_code, trace=_cause(error)
        )
    except Exception as error:
        reason = _one_line(f"{type(error).__name__}: {error}")
        return row(FAILED, reason, stage=stages.now, exit_code=70, trace=_last_lines(error))
    by_stage = {time.stage: round(time.seconds, 2) for time in report.stages}
    broken = list(faults(report))
    return row(
        WRONG if broken else THROUGH, "; ".join(broken), seconds_by_stage=by_stage, notes="; ".join(_notes(report))
    )


class _Stages(Silent):
    """Remembers in which stage the run is."""

    def __init__(self) -> None:
        self.now = ""

    def began(self, stage: str) -> None:
        self.now = stage


# --- the network ----------------------------------------------------------------------------------------------


def build(name: str) -> tuple[nn.Module, InputSpec]:
    """The network at the smallest of `SIDES` that it takes, or its own, with weights and statistics of noise.

    Raises:
        NotBuiltError: it takes none of them.
    """
    own = default_input(name) or InputSpec((3, 224, 224), (0.5,) * 3, (0.25,) * 3)
    channels, *size = own.shape
    network: nn.Module | None = None
    error: Exception | None = None
    for shape in (*((channels, side, side) for side in SIDES if side < min(size)), own.shape):
        input = InputSpec(shape, own.mean, own.std, own.range)
        try:
            torch.manual_seed(0)
            if network is None or _depends_on_size(name):
                network = None
                network = build_from_library(name, NUM_CLASSES, input).eval()
            seed_weights(network, shape)
        except Exception as caught:  # each network has demands of its own
            error = caught
            continue
        return network, input
    raise NotBuiltError(f"{type(error).__name__}: {error}")


def _depends_on_size(name: str) -> bool:
    library, _, bare = name.partition(":")
    if library != "timm":
        return bare.startswith("vit_")
    import timm

    configured = timm.get_pretrained_cfg(bare)
    return configured is None or bool(configured.fixed_input_size)


@torch.no_grad()
def seed_weights(network: nn.Module, shape_CHW: tuple[int, ...]) -> None:
    """Statistics of noise in batch norm, no weight at zero, and decisions of its own, in place."""
    for name, parameter in network.named_parameters():
        if parameter.numel() and not parameter.count_nonzero():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif not name.endswith("bias"):
                nn.init.constant_(parameter, 0.1)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # type: ignore[assignment]
        norm.train()
    for _ in range(_NOISE_BATCHES if norms else 0):
        network(torch.randn(_NOISE_IMAGES, *shape_CHW))
    for norm in norms:
        norm.eval().momentum = 0.1
    images_NCHW = torch.randn(_NOISE_IMAGES, *shape_CHW)
    logits_NK = network(images_NCHW)
    if not isinstance(logits_NK, torch.Tensor) or logits_NK.shape != (_NOISE_IMAGES, NUM_CLASSES):
        raise ValueError(f"no logits ({_NOISE_IMAGES}, {NUM_CLASSES}) come out")
    spread = float(logits_NK.std(0).mean())
    for head in heads(network):
        head.weight /= max(spread, 1e-6)
        if head.bias is not None:
            head.bias -= logits_NK.mean(0) / max(spread, 1e-6)
    if not bool(network(images_NCHW).std(0).all()):  # a ReLU behind the head, which is never on
        for head in heads(network):
            head.bias += _BIAS_BEHIND_RELU


def heads(network: nn.Module) -> list[nn.Module]:
    """Layers that end in the classes: one, or two of a distilled network."""
    found = [
        layer
        for layer in network.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.weight.shape[0] == NUM_CLASSES
    ]
    return found[-2:]


def write_pair(network: nn.Module, folder: Path) -> None:
    """dense.pt, and pruned.pt with `SPARSITY` of each matrix and kernel at zero, the smallest."""
    state = {key: value.detach().clone().contiguous() for key, value in network.state_dict().items()}
    torch.save(state, folder / "dense.pt")
    parameters = {name for name, value in network.named_parameters() if value.dim() > 1 and name.endswith("weight")}
    for key in parameters & set(state):
        flat = state[key].view(-1)
        count = int(SPARSITY * flat.numel())
        if count:
            flat[flat.abs().topk(count, largest=False).indices] = 0
    torch.save(state, folder / "pruned.pt")


# --- what came of it ------------------------------------------------------------------------------------------


def faults(report: Report) -> Iterator[str]:
    """What is wrong with a run that came to its end."""
    is_told = any(COMPUTED_AWAY in warning for warning in report.warnings)
    for gate in report.gates:
        if gate.name == "mask_kept" and is_told:
            continue  # weight standardisation: the gate fails, as it should, and load has said so
        if gate.name in _MUST_HOLD and gate.status.value == "fail":
            yield f"gate {gate.name}: {gate.message}"
    if report.student.sparsity.sparsity < SPARSITY / 2:
        yield f"only {report.student.sparsity.sparsity:.1%} zeros were seen in the pruned file"
    rungs = {rung.name for rung in report.rungs}
    if diverged := [name for name in rungs if "diverged" in name]:
        yield ", ".join(diverged)


def _notes(report: Report) -> Iterator[str]:
    """What a reader of the table may want to know of a network that is through."""
    if report.exported.exporter != "dynamo":
        yield f"exporter {report.exported.exporter}"
    if any(COMPUTED_AWAY in warning for warning in report.warnings):
        yield "zeros computed away, said at load"
    yield "rungs: " + ", ".join(rung.name for rung in report.rungs)


def _cause(error: EdgeRecoverError) -> str:
    return _last_lines(error) if error.exit_code not in (2, 3) else ""


def _last_lines(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    return "\n".join(lines[-14:])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def _cpu_seconds() -> float:
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_mb() -> float:
    """Of this process and of those it waited for, MB; Linux counts KiB, macOS bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * unit / 1e6


def alone(work: Callable[[], None], log: Path) -> None:
    """Do `work` with all that is printed in a file, and end the process without the parent's clean-up."""
    with log.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115  # a descriptor, for good
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

"""What dreams lack beside real images at high sparsity: the tries of docs/adr/0008, one distillation each.

    python benchmarks/frontier.py DATA                               # every try, ResNet-20 at 90 %
    python benchmarks/frontier.py DATA --tries plain colours real --pattern 95 --steps 600

From the same student, whose statistics are repaired, on the same dreams of `balanced`; least squares and blocks come
before only with --after-layers, as in the profiles.
Judged on 1,500 real training images that nothing learnt from; test images are not touched. DATA is described in
docs/explanation/benchmarks.md. Finished tries are kept in --results, and not made again.
"""

# Shapes: N images in a batch, C channels, H height, W width.

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from networks import prepare, prune, pruned_file
from torch import Tensor, nn
from worker import on_disk

from edgerecover.compute import choose_compute
from edgerecover.config import Recovery, load_profile
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import open_models
from edgerecover.recovery import batches, distill
from edgerecover.recovery.blocks import block_names
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.statistics import repair_statistics
from edgerecover.synthesis.image_set import PixelScale
from edgerecover.synthesis.procedural import fractals
from edgerecover.synthesis.sets import synthesis_key, synthesize
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source

_NUM_JUDGED = 1500
_NUM_FRACTALS = 4096
_SHARE = 0.5
"""Of the batches in which a try that mixes does so."""

Change = Callable[[Tensor, PixelScale, np.random.Generator], Tensor]
"""From a batch (N, C, H, W) to what is shown in its place."""


@dataclass(frozen=True)
class Try:
    """One thing that is done otherwise than in plain distillation."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    change: Change | None = None
    mixes_features: bool = False
    is_real: bool = False
    """Learns from real training images."""


def mix_images(batch_NCHW: Tensor, _: PixelScale, rng: np.random.Generator) -> Tensor:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412); the teacher labels what comes of it."""
    share_N111 = torch.from_numpy(rng.random((len(batch_NCHW), 1, 1, 1), np.float32))
    return share_N111 * batch_NCHW + (1 - share_N111) * batch_NCHW[rng.permutation(len(batch_NCHW))]


class Fractals:
    """Fractals in the place of a batch, from one large pool."""

    def __init__(self) -> None:
        self._pool: np.ndarray | None = None

    def __call__(self, batch_NCHW: Tensor, scale: PixelScale, rng: np.random.Generator) -> Tensor:
        if self._pool is None:
            self._pool = fractals(_NUM_FRACTALS, tuple(batch_NCHW.shape[1:]), rng)
        low, high = (np.asarray(bound, np.float32)[:, None, None] for bound in (scale.low, scale.high))
        return torch.from_numpy(low + (high - low) * self._pool[rng.integers(_NUM_FRACTALS, size=len(batch_NCHW))])


_COLOURS = {"colour_jitter": 0.5}
_ZOOMS = {"zoom_fraction": 0.5, "cutmix_share": 0.3}
TRIES = {
    "plain": Try(),
    "real": Try(is_real=True),
    "real, colours": Try(_COLOURS, is_real=True),
    "real, colours, zooms, cutmix": Try(_COLOURS | _ZOOMS, is_real=True),
    "zooms, cutmix": Try(_ZOOMS),
    "colours": Try(_COLOURS),
    "colours, strongly": Try({"colour_jitter": 1.0}),
    "colours, zooms, cutmix": Try(_COLOURS | _ZOOMS),
    "colours, more zooms and cutmix": Try(_COLOURS | {"zoom_fraction": 0.25, "cutmix_share": 0.6}),
    "mixup": Try(change=mix_images),
    "colours, mixup": Try(_COLOURS, change=mix_images),
    "fractals in half of the batches": Try(change=Fractals()),
    "colours, fractals": Try(_COLOURS, change=Fractals()),
    "mixed features": Try(mixes_features=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tries", nargs="+", choices=TRIES, default=list(TRIES))
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--pattern", default="90")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--after-layers", action="store_true", help="start from least squares and blocks, as profiles do"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    folder = options.results / options.network
    prepare(options.network, options.data, folder, teacher_steps=6000, device="auto")
    prune(folder, options.pattern)
    rows = {}
    for seed in options.seeds:
        scene = None
        for name in options.tries:
            start = "layers" if options.after_layers else "repair"
            stem = f"{options.pattern.replace(':', '-')}-{start}-{options.steps}-{name}-{seed}"
            kept = folder / "frontier" / f"{stem}.json"
            if not kept.exists():
                scene = scene or Scene(folder, options.pattern, seed, after_layers=options.after_layers)
                kept.parent.mkdir(exist_ok=True)
                kept.write_text(json.dumps(scene.measure(TRIES[name], options.steps)))
            rows.setdefault(name, []).append(json.loads(kept.read_text()))
            print(f"{name}, seed {seed}: {rows[name][-1]}", flush=True)
    print(table(rows))


def table(rows: Mapping[str, list[dict[str, float]]]) -> str:
    """Means over seeds, in Markdown."""
    lines = ["| try | agreement, % | accuracy, % | CPU s |", "|---|---|---|---|"]
    for name, of_seeds in rows.items():
        means = (np.mean([row[key] for row in of_seeds]) for key in ("agreement", "accuracy", "cpu_s"))
        lines.append("| {} | {:.1f} | {:.1f} | {:.0f} |".format(name, *means))
    return "\n".join(lines)


class Scene:
    """A student before distillation, its teacher, dreams, and real images to judge by."""

    def __init__(self, folder: Path, pattern: str, seed: int, *, after_layers: bool) -> None:
        self._compute, self._seed = choose_compute("auto"), seed
        models = open_models(pruned_file(folder, pattern), ModelFlags(trust_code=True), will_prune=False)
        source = Source(models.teacher, models.input, models.output, self._compute)
        self._profile = settle(load_profile("balanced"), source).profile
        dreams = folder / f"dreams-{synthesis_key(source, self._profile.synthesis, seed)}"
        sets, _ = synthesize(source, self._profile.synthesis, seed=seed, folder=dreams)
        self._dreams, self._pair = sets.train, Pair.of(models).copy_to(self._compute)
        execution, before = Execution(self._compute), self._profile.recovery.model_copy(update={"num_steps": 0})
        if after_layers:
            student = recover(Pair.of(models), sets, before, execution, seed=seed).student
            self._pair = replace(self._pair, student=self._compute.place(student))
        else:
            repair_statistics(self._pair, self._dreams, before.batch_size, execution)
        with np.load(folder / "train.npz", allow_pickle=False) as arrays:
            pixels_NCHW = np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))
            labels_N = arrays["labels"]
        order_N = np.random.default_rng(7).permutation(len(pixels_NCHW))
        judged_N, learnt_N = order_N[:_NUM_JUDGED], order_N[_NUM_JUDGED:]
        scale = PixelScale(*models.input.bounds())
        self._judged_NCHW, self._labels_N = torch.from_numpy(scale.decode(pixels_NCHW[judged_N])), labels_N[judged_N]
        real = folder / "frontier-real"
        real.mkdir(exist_ok=True)
        self._real = on_disk(real, "train", pixels_NCHW[learnt_N], scale)

    def measure(self, one: Try, num_steps: int) -> dict[str, float]:
        """Distil a copy of the student, and judge it on real training images."""
        pair = replace(self._pair, student=copy.deepcopy(self._pair.student))
        settings: Recovery = self._profile.recovery.model_copy(update={"num_steps": num_steps, **one.settings})
        started = time.process_time()
        with _changed(one, pair, self._seed):
            distill.distill(
                pair, self._real if one.is_real else self._dreams, settings, Execution(self._compute), seed=self._seed
            )
        seconds = time.process_time() - started
        student_N, teacher_N = (self._classes(network) for network in (pair.student, pair.teacher))
        return {
            "agreement": 100 * float((student_N == teacher_N).mean()),
            "accuracy": 100 * float((student_N == self._labels_N).mean()),
            "cpu_s": seconds,
        }

    @torch.no_grad()
    def _classes(self, network: nn.Module) -> np.ndarray:
        parts = (network(self._compute.images(part)).argmax(1) for part in self._judged_NCHW.split(250))
        return torch.cat(list(parts)).cpu().numpy()


def _changed(one: Try, pair: Pair, seed: int) -> AbstractContextManager[Any]:
    rng = np.random.default_rng([seed, 1])
    if one.change is not None:
        return patch.object(distill, "Batches", _changing(one.change, rng))
    return _mix_features(pair, rng) if one.mixes_features else nullcontext()


def _changing(change: Change, rng: np.random.Generator) -> type[batches.Batches]:
    class Changing(batches.Batches):
        def next(self) -> Tensor:
            batch_NCHW = super().next()
            return change(batch_NCHW, self._images.scale, rng) if rng.random() < _SHARE else batch_NCHW

    return Changing


def _mix_features(pair: Pair, rng: np.random.Generator) -> ExitStack:
    """Manifold mixup (Verma et al. 2019, arXiv 1806.05236): at one block, the same for teacher and student."""
    names = block_names(pair.student)[:-1]
    drawn: dict[str, Any] = {}

    def draw(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        n = len(args[0])
        drawn["at"] = names[rng.integers(len(names))] if rng.random() < _SHARE else None
        drawn["share"] = torch.from_numpy(rng.random((n, 1, 1, 1), np.float32))
        drawn["others"] = torch.from_numpy(rng.permutation(n))

    def mix(name: str) -> Callable[..., Tensor]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            if drawn["at"] != name or len(output) != len(drawn["others"]):
                return output
            return drawn["share"] * output + (1 - drawn["share"]) * output[drawn["others"]]

        return hook

    stack = ExitStack()
    stack.callback(pair.teacher.register_forward_pre_hook(draw).remove)  # the teacher is shown each batch first
    for network in (pair.student, pair.teacher):
        for name in names:
            stack.callback(network.get_submodule(name).register_forward_hook(mix(name)).remove)
    return stack


if __name__ == "__main__":
    main()

"""What reaches the edge, against the clock: dense and half the MACs, three precisions, two runtimes, and PyTorch.

    python benchmarks/edge_latency.py DATA [--results DIR] [--networks resnet56 resnet18 mobilenet_v2] [--core 0]

Per network one race, interleaved, batch 1, every entrant held on one core: the dense network and the one with half of
its multiply-accumulates (channels), each as fp32, fp16 and int8 files in ONNX Runtime and OpenVINO, and in PyTorch,
eager and compiled. ResNet-56 is DATA's trained one and its half is recovered without data by `edgerecover run`: its
variants are judged on held-out dreams and on DATA's real test images. The other two have random weights, for latency
alone. TensorRT-RTX engines of every variant are built for three GPUs. What is finished is not run again. DATA holds
models.py, weights/akamaster_resnet56-4bfd9763.th and cifar10_png_test_dev500.npz.
"""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import argparse
import copy
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from edgerecover.artifacts import Exported, InputSpec, OutputSpec, Precision, Variant, from_json, to_json
from edgerecover.artifacts.int8 import scheme_named
from edgerecover.artifacts.latency import Latency
from edgerecover.compute import choose_compute
from edgerecover.config import load_profile, load_target
from edgerecover.export.engines import recipe_for
from edgerecover.export.onnx import export
from edgerecover.export.precision.make import make_variants
from edgerecover.export.precision.trial import Calibration
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.network.macs import count_macs
from edgerecover.models.pair.networks import open_models
from edgerecover.pruning import prune_channels
from edgerecover.recovery.ladder import Recovered
from edgerecover.runtime.engine.engine import build_engine
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.session.onnxruntime import CPU
from edgerecover.runtime.session.opening import open_model
from edgerecover.stages.load import Loaded
from edgerecover.stages.precision import make_variants_of
from edgerecover.stages.probe import Probed
from edgerecover.stages.request import Request
from edgerecover.stages.synthesize import Images, folder_of, make_images, source_of
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.synthesis.procedural import procedural_images
from edgerecover.synthesis.settle import settle
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.evaluation import read_eval_data
from edgerecover.validation.fidelity import proportion, shares_of_truth
from edgerecover.validation.scoring import outputs_of, scorer_of

CIFAR = InputSpec((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET = InputSpec((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NETWORKS = ("resnet56", "resnet18", "mobilenet_v2")
GOALS = {"resnet18": 5.5, "mobilenet_v2": 2.8, "resnet56": 3.0}
"""Dense fp32 in ONNX Runtime over the fastest passing variant of half the MACs, at least."""
MAX_POINTS_LOST = 1.0
RUNTIMES = ("onnxruntime", "openvino")
GPUS = ("rtx-30", "rtx-40", "rtx-50")
BASELINE = "dense fp32 onnxruntime"
_NUM_RANDOM = 64


@dataclass(frozen=True)
class Noise:
    """Network inputs as stages read them."""

    inputs: np.ndarray
    """(N, C, H, W), float32."""

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        return (self.inputs[start : start + batch_size] for start in range(0, len(self), batch_size))


@dataclass(frozen=True)
class Trained:
    """What a run knows when it makes the variants of a recovered network."""

    loaded: Loaded
    images: Images


@dataclass(frozen=True)
class Pair:
    """A network, dense and with half of its work, and what it is calibrated and judged on."""

    dense: nn.Module
    half: nn.Module
    input: InputSpec
    calibration: Noise | ImageSet
    trained: Trained | None = None
    """None for random weights: there is nothing to agree on."""


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        path = options.results / f"{name}.json"
        if not path.exists():
            found = _measured(name, options)
            path.write_text(json.dumps(found, indent=1) + "\n")
    for name in options.networks:
        print(_table(name, json.loads((options.results / f"{name}.json").read_text())))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--results", type=Path, default=Path("edge-latency-results"))
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--min-duration-s", type=float, default=3.0)
    parser.add_argument("--profile", default="balanced", help="of ResNet-56's recovery")
    return parser.parse_args()


# --- networks -------------------------------------------------------------------------------------------------


def _pair(name: str, options: argparse.Namespace) -> Pair:
    if name == "resnet56":
        return _trained_pair(options)
    torch.manual_seed(0)
    dense = torchvision.models.get_model(name, weights=None).eval()
    half = prune_channels(copy.deepcopy(dense), IMAGENET, 0.5)
    return Pair(
        dense,
        half,
        IMAGENET,
        Noise(procedural_images("shapes", _NUM_RANDOM, IMAGENET.shape, IMAGENET.bounds(), seed=0)),
    )


def _trained_pair(options: argparse.Namespace) -> Pair:
    """ResNet-56 and its half, recovered without data by the command that users type."""
    folder = options.results / "resnet56"
    bundle = folder / "half.bundle"
    if not bundle.exists():
        folder.mkdir(exist_ok=True)
        shutil.copy(options.data / "models.py", folder)
        shutil.copy(options.data / "weights" / "akamaster_resnet56-4bfd9763.th", folder / "dense.pt")
        (folder / "model.toml").write_text(
            'architecture = "models.py:resnet56"\n[input]\nshape = [3, 32, 32]\n'
            f"mean = {list(CIFAR.mean)}\nstd = {list(CIFAR.std)}\n"
        )
        _edgerecover(folder, "run", "dense.pt", "--target", "onnx-generic", "--pattern", "channel", "--sparsity", "0.5",
                     "--profile", options.profile, "--trust-code", "-o", "half.bundle", "--work", "work")  # fmt: skip
    models = open_models(
        bundle / "recovered.safetensors",
        ModelFlags(arch=f"{folder / 'models.py'}:resnet56", input=CIFAR, trust_code=True),
        teacher=folder / "dense.pt",
        will_prune=False,
    )
    loaded = Loaded(models, Probed(choose_compute("cpu")))
    source = source_of(loaded)
    settled = settle(load_profile(options.profile), source)
    images = make_images(source, settled, folder_of(source, settled.profile, 0, folder / "work"), seed=0)
    trained = Trained(loaded, images)
    return Pair(models.teacher.eval(), models.student.eval(), CIFAR, images.sets.calibration, trained)


def _edgerecover(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "edgerecover", *arguments], cwd=folder, check=True, stdout=sys.stderr)


# --- measuring ------------------------------------------------------------------------------------------------


def _measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    pair = _pair(name, options)
    folder = (options.results / name).resolve()
    teacher = scorer_of(pair.dense)
    files = {
        f"{size} {precision}": variant
        for size, network in (("dense", pair.dense), ("half", pair.half))
        for precision, variant in _files(network, pair, teacher, folder / size).items()
    }
    golden = folder / "golden.npy"
    np.save(golden, next(iter(pair.calibration.batches(1))))
    entrants = [
        Entrant(f"{kind} {runtime}", Path(variant.file.path), runtime, (CPU,), num_threads=1)
        for kind, variant in files.items()
        for runtime in RUNTIMES
    ]
    for size, network in (("dense", pair.dense), ("half", pair.half)):
        module = folder / f"{size}-module.pt"
        torch.save(_importable(network.cpu().eval(), folder), module)
        entrants += [
            Entrant(f"{size} {runtime}", module, runtime, num_threads=1, worker="torch_worker")
            for runtime in ("torch eager", "torch.compile")
        ]
    timing = Timing(num_warmup=20, min_queries=300, min_duration_s=options.min_duration_s)
    raced = race(entrants, golden, timing, cores=(options.core,))
    return {
        "macs_kept": count_macs(pair.half, pair.input.shape) / count_macs(pair.dense, pair.input.shape),
        "variants": {kind: to_json(variant) for kind, variant in files.items()},
        "latency": {one.name: to_json(one.latency_or_error()) for one in raced},
        "decisions": _decisions(files, pair, pair.trained, teacher, options) if pair.trained else {},
        "engines": _engines(pair, teacher, folder),
    }


def _importable(network: nn.Module, folder: Path) -> nn.Module:
    """The same network; a class out of models.py is the one that the worker imports from the module's folder."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for module in network.modules():
        if type(module).__module__.startswith("edgerecover_user_"):
            module.__class__ = getattr(importlib.import_module("models"), type(module).__name__)
    return network


def _files(network: nn.Module, pair: Pair, teacher: Any, folder: Path, scheme: str = "u8s8") -> dict[str, Variant]:
    folder.mkdir(parents=True, exist_ok=True)
    exported: Exported = export(network, pair.input, folder / "fp32.onnx", opset=18)
    if pair.trained and network is pair.half and scheme == "u8s8":
        # As `run` makes what is shipped, distillation in fake int8 and all.
        known = pair.trained
        target = load_target("x86-avx512-vnni")
        every = target.precisions.model_copy(update={"value": [precision.value for precision in Precision]})
        target = target.model_copy(update={"precisions": every})
        request = Request(Path(), target, known.images.profile, folder, folder)
        made = make_variants_of(request, known.loaded, known.images, Recovered(network, ()), exported, folder)
        for refused in made.refused:
            print(f"refused: {folder.name} {refused.precision.value}: {refused.reason}", file=sys.stderr)
        return {variant.precision.value: variant for variant in made.made}
    measure = measure_of(OutputSpec.one_label(10))
    calibration = Calibration(pair.calibration, outputs_of(teacher, pair.calibration, measure).answers, measure)
    answers = make_variants(
        exported, list(Precision), scheme_named(scheme), calibration, pair.input, folder, max_points_lost=100.0
    )
    return {answer.precision.value: answer for answer in answers if isinstance(answer, Variant)}


def _decisions(
    files: dict[str, Variant], pair: Pair, trained: Trained, teacher: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """Agreement with the dense network on held-out dreams, and accuracy on real images, in each runtime."""
    real = read_eval_data(options.data / "cifar10_png_test_dev500.npz", pair.input, OutputSpec.one_label(10))
    held_back = trained.images.sets.held_back
    measure = measure_of(OutputSpec.one_label(10))
    teacher_N = outputs_of(teacher, held_back, measure).answers
    found = {}
    for kind, variant in files.items():
        for runtime in RUNTIMES:
            session = open_model(Path(variant.file.path), runtime, (CPU,), num_threads=1, shape_CHW=pair.input.shape)
            answers_N = outputs_of(session.run, held_back, measure).answers
            hits = sum(
                int(shares_of_truth(session.run(images), labels, measure).sum()) for images, labels in real.batches(100)
            )
            found[f"{kind} {runtime}"] = {
                "agreement": to_json(proportion(measure.share(answers_N, teacher_N))),
                "real_hits": hits,
                "real_images": len(real),
            }
    return found


def _engines(pair: Pair, teacher: Any, folder: Path) -> dict[str, Any]:
    """One per GPU of each variant; int8 as TensorRT wants it."""
    found = {}
    for size, network in (("dense", pair.dense), ("half", pair.half)):
        files = _files(network, pair, teacher, folder / f"{size}-tensorrt", "tensorrt")
        for precision, variant in files.items():
            for gpu in GPUS:
                out = folder / f"{size}-{precision}-{gpu}.engine"
                facts = build_engine(Path(variant.file.path), recipe_for(load_target(gpu), variant.precision), out)
                found[f"{size} {precision} {gpu}"] = to_json(facts)
    return found


# --- the table ------------------------------------------------------------------------------------------------


def _table(name: str, found: dict[str, Any]) -> str:
    latencies = {kind: from_json(Latency, value) for kind, value in found["latency"].items()}
    baseline = latencies[BASELINE]
    lines = [
        f"### {name}: half keeps {100 * found['macs_kept']:.1f} % of the MACs",
        "",
        "| network | runtime | median ms | p99 ms | × dense fp32 onnxruntime | agreement, held-out | accuracy, real |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, latency in sorted(latencies.items(), key=lambda item: item[1].percentile_ms(50)):
        network, runtime = _split(kind)
        low, high = latency.percentile_interval_ms(50)
        ratio = baseline.slower_than(latency)
        decided = found["decisions"].get(kind)
        lines.append(
            f"| {network} | {runtime} | {latency.percentile_ms(50):.3f} ({low:.3f}–{high:.3f}) | "
            f"{latency.percentile_ms(99):.3f} | {ratio.value:.2f} ({ratio.low:.2f}–{ratio.high:.2f}) | "
            f"{_agreed(decided)} | {_accuracy(decided)} |"
        )
    lines += ["", _verdict(name, found, latencies), "", _engine_line(found["engines"])]
    kept = {kind: v["kept_higher"] for kind, v in found["variants"].items() if v["kept_higher"]}
    lines += [f"Kept higher in {kind}: {', '.join(nodes)}." for kind, nodes in kept.items()]
    return "\n".join(lines) + "\n"


def _split(kind: str) -> tuple[str, str]:
    size, _, rest = kind.partition(" ")
    if rest.startswith("torch"):
        return f"{size} fp32", rest
    precision, _, runtime = rest.partition(" ")
    return f"{size} {precision}", runtime


def _agreed(decided: dict[str, Any] | None) -> str:
    return f"{100 * decided['agreement']['hits'] / decided['agreement']['total']:.1f} %" if decided else "–"


def _accuracy(decided: dict[str, Any] | None) -> str:
    return f"{100 * decided['real_hits'] / decided['real_images']:.1f} %" if decided else "–"


def _verdict(name: str, found: dict[str, Any], latencies: dict[str, Latency]) -> str:
    """The fastest of half the MACs that loses no more than a point of agreement to its own float32."""

    def passes(kind: str) -> bool:
        decided = found["decisions"]
        if not decided:
            return True
        own = decided[f"half fp32 {_split(kind)[1]}"]["agreement"]
        lost = own["hits"] - decided[kind]["agreement"]["hits"]
        return 100 * lost / own["total"] <= MAX_POINTS_LOST

    halves = [kind for kind in latencies if kind.startswith("half") and "torch" not in kind and passes(kind)]
    best = min(halves, key=lambda kind: latencies[kind].percentile_ms(50))
    ratio = latencies[BASELINE].slower_than(latencies[best])
    met = "met" if ratio.value >= GOALS[name] else "NOT met"
    return (
        f"Fastest passing: {best}, {ratio.value:.2f}× ({ratio.low:.2f}–{ratio.high:.2f}); goal {GOALS[name]:g}×: {met}."
    )


def _engine_line(engines: dict[str, Any]) -> str:
    seconds = [facts["build_s"] for facts in engines.values()]
    return f"{len(engines)} TensorRT-RTX engines built for {', '.join(GPUS)} in {sum(seconds):.1f} s."


if __name__ == "__main__":
    main()

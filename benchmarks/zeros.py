"""What zeros bring in each runtime: latency and file size against the dense network, one core, interleaved.

    python benchmarks/zeros.py [--networks mobilenet_v2 timm:tf_efficientnet_lite0 resnet18] [--sparsity 0.8] [--core 0]
    python benchmarks/zeros.py --networks nets.py:resnet56 --input-shape 3,32,32

Per network one race, batch 1, every entrant held on one core, each in ONNX Runtime, OpenVINO and MNN: dense, with
single zeros in all layers, with single zeros in the 1×1 and linear layers alone, with those layers' zeros in blocks of
four output channels (`prune --for mnn`), with 2:4 zeros, and narrowed to half of its MACs. All zeros are by magnitude,
the same share in every layer. The weights are random, with batch norm statistics drawn beside them: kernels take as
long for them as for trained ones. The goal: 80 % zeros in the 1×1 and linear layers take at most 0.7 of the latency of
the fastest dense float32 file of any runtime, in at most 0.35 of the dense file's size.
"""

from __future__ import annotations

import argparse
import copy
import runpy
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.artifacts.latency import Latency
from edgerecover.errors import BadInputError, EdgeRecoverError
from edgerecover.export.mnn import file_for
from edgerecover.export.onnx import export
from edgerecover.pruning import Pruning, apply_masks, prune, prune_channels
from edgerecover.pruning.magnitude import layerwise_magnitude_masks
from edgerecover.report.samples import conditions_words
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.session.onnxruntime import CPU

RUNTIMES = ("onnxruntime", "openvino", "mnn")
MOST_LATENCY, MOST_SIZE = 0.7, 0.35


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "timm:tf_efficientnet_lite0", "resnet18"])
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--input-shape", default="3,224,224", help="C,H,W")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--queries", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.networks:
        with tempfile.TemporaryDirectory(prefix="zeros-") as folder:
            channels, height, width = map(int, options.input_shape.split(","))
            input = InputSpec((channels, height, width), (0.5,) * channels, (0.25,) * channels)
            bench(name, input, options.sparsity, options.core, options.queries, Path(folder))


def bench(name: str, input: InputSpec, sparsity: float, core: int, num_queries: int, folder: Path) -> None:
    """Race one network, and print what came of it."""
    files: dict[str, Path] = {}
    for pattern, network in networks(name, sparsity, input).items():
        files[pattern] = folder / f"{pattern}.onnx"
        export(network, input, files[pattern], opset=18)
    entrants = [
        Entrant(f"{pattern}, {runtime}", file_for(runtime, file), runtime, (CPU,), 1)
        for pattern, file in files.items()
        for runtime in RUNTIMES
    ]
    raced = race(entrants, None, Timing(10, num_queries, 0.0), shape_CHW=input.shape, cores=(core,), strict=True)
    latencies = {one.name: one.latency for one in raced if one.latency is not None}
    for one in raced:
        if one.latency is None:
            print(f"{one.name} did not run: {one.error}")
    sizes = {entrant.name: entrant.model.stat().st_size for entrant in entrants}
    show(name, sparsity, latencies, sizes)


def networks(name: str, sparsity: float, input: InputSpec) -> Mapping[str, nn.Module]:
    """The dense network and those pruned from it, by the names of their patterns."""
    dense = built(name)
    everywhere, single, blocks, two_four, narrow = (copy.deepcopy(dense) for _ in range(5))
    apply_masks(everywhere, layerwise_magnitude_masks(everywhere, sparsity))
    masks = layerwise_magnitude_masks(single, sparsity)
    apply_masks(single, {key: mask for key, mask in masks.items() if mask.shape[1] == mask[0].numel() > 1})
    prune(blocks, Pruning("layerwise", sparsity, "mnn"), None)
    prune(two_four, Pruning("2:4", 0.5), input)
    narrow = halved(narrow, input)
    return {
        "dense": dense, "everywhere": everywhere, "1x1": single, "1x1 in blocks": blocks, "2:4": two_four,
        "half the MACs": narrow,
    }  # fmt: skip


def halved(network: nn.Module, input: InputSpec) -> nn.Module:
    """About half of its MACs; where some layers must keep their width, the others lose more."""
    try:
        return prune_channels(network, input, 0.5, roughly=True)
    except BadInputError:
        return prune_channels(network, input, 0.5)


def built(name: str) -> nn.Module:
    """A network of torchvision, of timm (`timm:NAME`) or of `FILE.py:FACTORY`, with random weights and statistics."""
    torch.manual_seed(0)
    if ".py:" in name:
        path, _, factory = name.rpartition(":")
        network = runpy.run_path(path)[factory]()
    elif name.startswith("timm:"):
        import timm

        network = timm.create_model(name.removeprefix("timm:"), pretrained=False)
    else:
        network = torchvision.models.get_model(name, weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


def show(name: str, sparsity: float, latencies: Mapping[str, Latency], sizes: Mapping[str, int]) -> None:
    dense = {key: latency for key, latency in latencies.items() if key.startswith("dense")}
    fastest = min(dense, key=lambda key: dense[key].percentile_ms(50))
    print(f"\n{name}, {sparsity:.0%} zeros; fastest dense float32: {fastest}\n")
    print("| file, runtime | × fastest dense | × dense in this runtime | size |")
    print("|---|---|---|---|")
    for key, latency in latencies.items():
        same = f"dense, {key.rpartition(', ')[2]}"
        best, own = (latency.slower_than(dense[other]) for other in (fastest, same))
        print(
            f"| {key} | {best.value:.2f} ({best.low:.2f}–{best.high:.2f}) | {own.value:.2f} "
            f"({own.low:.2f}–{own.high:.2f}) | {sizes[key] / sizes[same]:.2f} |"
        )
    for pattern in ("1x1", "1x1 in blocks"):
        key = f"{pattern}, mnn"
        if key in latencies:
            ratio, size = latencies[key].slower_than(dense[fastest]).value, sizes[key] / sizes["dense, mnn"]
            met = [f"{word} {value:.2f}, goal {most:g}: {'met' if value <= most else 'missed'}"
                   for word, value, most in (("latency", ratio, MOST_LATENCY), ("size", size, MOST_SIZE))]  # fmt: skip
            print(f"\n{key}: {'; '.join(met)}")
    conditions = next(iter(latencies.values())).conditions
    print(f"\nconditions: {conditions_words(conditions) if conditions else 'not known'}")


if __name__ == "__main__":
    try:
        main()
    except EdgeRecoverError as error:
        raise SystemExit(f"{error.message}\n{error.hint}") from error

"""What widths cost: a network dense, and with half of its multiply-accumulates in widths of several multiples.

    python benchmarks/channel_widths.py [NETWORK ...] [--multiples 1 8 16] [--size 224] [--core 0]

NETWORK is torchvision:NAME, timm:NAME or a folder with dense.pt and its model.toml (whose code is run); random weights
but for the last: latency is all that is measured. Float32 in ONNX Runtime, one thread, batch 1, in one race with
interleaved turns; a ratio is of the medians of the turns' queries.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.export.onnx import export
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.network.macs import count_macs
from edgerecover.models.pair.networks import open_network
from edgerecover.pruning import prune_channels
from edgerecover.pruning.channels import ragged_layers
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing

NETWORKS = ("timm:tf_efficientnet_lite0", "torchvision:mobilenet_v2", "torchvision:resnet18")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--core", type=int)
    parser.add_argument("--min-duration-s", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | widths | MACs kept | layers between multiples of 8 | median ms | times dense |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            _compare(name, options, Path(folder))


def _compare(name: str, options: argparse.Namespace, folder: Path) -> None:
    dense, input = _opened(name, options.size)
    networks = {"dense": dense}
    for multiple in options.multiples:
        networks[f"multiples of {multiple}"] = prune_channels(dense, input, 0.5, multiple=multiple)
    entrants = [
        Entrant(label, Path(export(network, input, folder / f"{number}.onnx", opset=18).path), num_threads=1)
        for number, (label, network) in enumerate(networks.items())
    ]
    cores = [] if options.core is None else [options.core]
    raced = race(
        entrants, None, Timing(num_warmup=5, min_queries=60, min_duration_s=options.min_duration_s), cores=cores
    )
    medians_ms = {one.name: one.latency_or_error().percentile_ms(50) for one in raced}
    for label, network in networks.items():
        kept = count_macs(network, input.shape) / count_macs(dense, input.shape)
        print(
            f"| {name} | {label} | {kept:.3f} | {len(ragged_layers(dense, network))} | {medians_ms[label]:.2f} "
            f"| {medians_ms[label] / medians_ms['dense']:.2f} |",
            flush=True,
        )


def _opened(name: str, size: int) -> tuple[nn.Module, InputSpec]:
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    if library == "torchvision":
        import torchvision

        return torchvision.models.get_model(model, weights=None).eval(), InputSpec((3, size, size), MEAN, STD)
    if library == "timm":
        import timm

        return timm.create_model(model).eval(), InputSpec((3, size, size), MEAN, STD)
    network, input = open_network(Path(name) / "dense.pt", ModelFlags(trust_code=True))
    if input is None:
        raise SystemExit(f"{name}: its model.toml names no input")
    return network, input


if __name__ == "__main__":
    main()

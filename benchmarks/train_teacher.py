"""Train a teacher for the benchmark: one cycle of SGD, or of AdamW where LayerNorm is; shifts and mirroring.

    python benchmarks/train_teacher.py resnet18 DATA --steps 6000 --out dense.pt

DATA holds cifar10_jpeg.npz, or Fashion-MNIST for `vit` and `convnext`. The teacher need not be a record: it has to be
what is pruned and what is recovered.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import NETWORKS, Network, read_images
from torch import Tensor, nn

from edgerecover.compute import Compute, choose_compute

_BATCH = 256
_PEAK_LR = {"sgd": 0.2, "adamw": 2e-3}
_PAD_FRACTION = 0.125


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=[name for name, network in NETWORKS.items() if not network.checkpoint])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=6000, help=f"of {_BATCH} images")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    compute = choose_compute(asked.device)
    torch.manual_seed(0)
    settings = NETWORKS[asked.network]
    network = compute.place(getattr(importlib.import_module(settings.factories), asked.network)())
    started = time.perf_counter()
    train(network, *images_and_labels(settings, asked.data, "train", compute), asked.steps, compute)
    seconds = time.perf_counter() - started
    accuracy = measure_accuracy(network, *images_and_labels(settings, asked.data, "test", compute))
    torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, asked.out)
    print(f"{asked.network}: {100 * accuracy:.2f} % after {asked.steps} steps, {seconds:.0f} s on {compute}")


def images_and_labels(settings: Network, data: Path, split: str, compute: Compute) -> tuple[Tensor, Tensor]:
    """Network inputs (N, C, H, W) and labels (N,), on the device as a whole."""
    images_NHWC, labels_N = read_images(settings, data, split)
    mean_C, std_C = torch.tensor(settings.mean), torch.tensor(settings.std)
    inputs_NHWC = (torch.from_numpy(images_NHWC).float() / 255 - mean_C) / std_C
    return compute.images(inputs_NHWC.permute(0, 3, 1, 2)), torch.from_numpy(labels_N).to(compute.device)


def train(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, num_steps: int, compute: Compute) -> None:
    optimizer, peak_lr = _optimizer(network)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=num_steps, pct_start=0.2)
    network.train()
    for step in range(num_steps):
        chosen = torch.randint(len(images_NCHW), (_BATCH,), device=compute.device)
        with compute.autocast():
            logits_NK = network(shifted_and_mirrored(images_NCHW[chosen]))
        loss = F.cross_entropy(logits_NK.float(), labels_N[chosen], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step} of {num_steps}, loss {float(loss.detach()):.3f}", file=sys.stderr)
    network.eval()


def _optimizer(network: nn.Module) -> tuple[torch.optim.Optimizer, float]:
    """SGD does not train transformers."""
    if any(isinstance(layer, nn.LayerNorm) for layer in network.modules()):
        return torch.optim.AdamW(network.parameters(), weight_decay=0.05), _PEAK_LR["adamw"]
    sgd = torch.optim.SGD(network.parameters(), momentum=0.9, weight_decay=5e-4, nesterov=True)
    return sgd, _PEAK_LR["sgd"]


def shifted_and_mirrored(batch_NCHW: Tensor) -> Tensor:
    """Each image shifted by up to an eighth and mirrored or not, by one gather: no loop over images."""
    n, c, h, w = batch_NCHW.shape
    pad = round(_PAD_FRACTION * w)
    device = batch_NCHW.device
    top_N1, left_N1 = torch.randint(2 * pad + 1, (2, n, 1), device=device)
    rows_NH = top_N1 + torch.arange(h, device=device)
    columns_NW = left_N1 + torch.arange(w, device=device)
    mirrored_N1 = torch.rand(n, 1, device=device) < 0.5
    columns_NW = torch.where(mirrored_N1, columns_NW.flip(1), columns_NW)
    padded = F.pad(batch_NCHW, (pad,) * 4, value=float(batch_NCHW.min()))  # black
    image_N, channel_C = torch.arange(n, device=device), torch.arange(c, device=device)
    return padded[
        image_N[:, None, None, None], channel_C[:, None, None], rows_NH[:, None, :, None], columns_NW[:, None, None]
    ].contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure_accuracy(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor) -> float:
    hits = 0
    for images, labels in zip(images_NCHW.split(500), labels_N.split(500), strict=True):
        hits += int((network(images).argmax(1) == labels).sum())
    return hits / len(labels_N)


if __name__ == "__main__":
    main()

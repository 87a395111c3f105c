"""Train a CIFAR-10 teacher for the benchmark: SGD with one cycle, shifts and mirroring, bf16 on a GPU.

    python benchmarks/train_teacher.py resnet18 DATA --steps 6000 --out dense.pt

DATA holds cifar10_jpeg.npz. The teacher need not be a record: it has to be what is pruned and what is recovered.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cifar_networks
import torch
import torch.nn.functional as F
from networks import NETWORKS, read_jpegs
from torch import Tensor, nn

from edgerecover.device import Compute, choose_compute

_BATCH = 256
_PEAK_LR = 0.2
_PAD = 4


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
    network = compute.place(getattr(cifar_networks, asked.network)())
    started = time.perf_counter()
    train(network, *images_and_labels(asked, "train", compute), asked.steps, compute)
    seconds = time.perf_counter() - started
    accuracy = measure_accuracy(network, *images_and_labels(asked, "test", compute), compute)
    torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, asked.out)
    print(f"{asked.network}: {100 * accuracy:.2f} % after {asked.steps} steps, {seconds:.0f} s on {compute}")


def images_and_labels(asked: argparse.Namespace, split: str, compute: Compute) -> tuple[Tensor, Tensor]:
    """Network inputs (N, C, H, W) and labels (N,), on the device as a whole."""
    images_NHWC, labels_N = read_jpegs(asked.data / "cifar10_jpeg.npz", split)
    settings = NETWORKS[asked.network]
    mean_C, std_C = torch.tensor(settings.mean), torch.tensor(settings.std)
    inputs_NHWC = (torch.from_numpy(images_NHWC).float() / 255 - mean_C) / std_C
    return compute.images(inputs_NHWC.permute(0, 3, 1, 2)), torch.from_numpy(labels_N).to(compute.device)


def train(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, num_steps: int, compute: Compute) -> None:
    optimizer = torch.optim.SGD(network.parameters(), _PEAK_LR, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=num_steps, pct_start=0.2)
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


def shifted_and_mirrored(batch_NCHW: Tensor) -> Tensor:
    """Each image shifted by up to 4 pixels and mirrored or not, by one gather: no loop over images."""
    n, c, h, w = batch_NCHW.shape
    device = batch_NCHW.device
    top_N1, left_N1 = torch.randint(2 * _PAD + 1, (2, n, 1), device=device)
    rows_NH = top_N1 + torch.arange(h, device=device)
    columns_NW = left_N1 + torch.arange(w, device=device)
    mirrored_N1 = torch.rand(n, 1, device=device) < 0.5
    columns_NW = torch.where(mirrored_N1, columns_NW.flip(1), columns_NW)
    padded = F.pad(batch_NCHW, (_PAD,) * 4)
    image_N, channel_C = torch.arange(n, device=device), torch.arange(c, device=device)
    return padded[
        image_N[:, None, None, None], channel_C[:, None, None], rows_NH[:, None, :, None], columns_NW[:, None, None]
    ].contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure_accuracy(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, compute: Compute) -> float:
    hits = 0
    for images, labels in zip(images_NCHW.split(500), labels_N.split(500), strict=True):
        hits += int((network(images).argmax(1) == labels).sum())
    return hits / len(labels_N)


if __name__ == "__main__":
    main()

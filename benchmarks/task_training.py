"""Folders of benchmarks/tasks.py: a network of each task, trained here, with its model.toml and images with truth.

Shapes: N images, C channels, H height, W width, D outputs, K classes.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import task_detector
import task_networks
import torch
import torch.nn.functional as F
from task_data import EXAMPLES, Examples, read_npz
from task_truth import TRUTHS
from torch import Tensor, nn

HERE = Path(__file__).parent
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Task:
    """How a task's network is trained, and on what."""

    loss: Callable[[Any, Tensor], Tensor]
    """Of outputs, as `raw` gives them, and truth."""
    num_train: int
    num_test: int
    num_steps: int
    input_std: float
    """Of the pixels, from 0 to 1; their mean is `input_mean`."""
    input_mean: float = 0.5
    batch_size: int = 64
    lr: float = 4e-3
    networks: ModuleType = task_networks
    raw: str = "forward"
    """The network's method that training calls."""


def _binary(logits_N1: Tensor, truth_N: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits_N1[:, 0], truth_N.float())


def _labels(logits_NK: Tensor, truth_NK: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits_NK, truth_NK.float())


class CosineToProxies(nn.Module):
    """Cross entropy of scaled cosines to one learnt direction per class (Movshovitz-Attias et al. 2017)."""

    def __init__(self, num_classes: int, width: int, scale: float = 12.0) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(num_classes, width))
        self.scale = scale

    def forward(self, embeddings_ND: Tensor, truth_N: Tensor) -> Tensor:
        cosines_NK = F.normalize(embeddings_ND) @ F.normalize(self.proxies).T
        return F.cross_entropy(self.scale * cosines_NK, truth_N, label_smoothing=0.05)


def _distance(outputs_ND: Tensor, truth_ND: Tensor) -> Tensor:
    return F.smooth_l1_loss(outputs_ND, truth_ND, beta=0.05)


TASKS: Mapping[str, Task] = {
    "binary": Task(_binary, 6000, 3000, 1200, 0.13),
    "multi-label": Task(_labels, 12_000, 3000, 1000, 0.31, 0.13),
    "embedding": Task(CosineToProxies(10, 32), 40_000, 6000, 1000, 0.35, 0.29),
    "regression": Task(_distance, 10_000, 3000, 1500, 0.15),
    "segmentation": Task(F.cross_entropy, 8000, 600, 2000, 0.2, batch_size=32, lr=1.2e-2),
    "detection": Task(
        task_detector.loss_of, 10_000, 1000, 2500, 0.2, batch_size=32, lr=6e-3, networks=task_detector, raw="raw"
    ),
}


def factory(name: str) -> str:
    return name.replace("-", "_")


def network_of(name: str) -> nn.Module:
    """A new network of the task, with random weights."""
    network: nn.Module = getattr(TASKS[name].networks, factory(name))()
    return network


def prepare(name: str, data: Path, folder: Path) -> None:
    """Fill `folder` with what a user has, and with images: `train` for teacher and ceiling, `test` to judge on."""
    task = TASKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HERE / f"{task.networks.__name__}.py", folder / "nets.py")
    for split, num in zip(_SPLITS, (task.num_train, task.num_test), strict=True):
        path = folder / f"{split}.npz"
        if not path.exists():
            made = EXAMPLES[name](data, num, split)
            np.savez_compressed(path, images=made.images, labels=made.truth)
    train = Examples(*read_npz(folder / "train.npz"))
    _, height, width, channels = train.images.shape
    (folder / "model.toml").write_text(
        f'architecture = "nets.py:{factory(name)}"\nteacher = "dense.pt"\ntask = "{name}"\n\n[input]\n'
        f"shape = {[channels, height, width]}\n"
        f"mean = {[task.input_mean] * channels}\nstd = {[task.input_std] * channels}\n"
    )
    if not (folder / "dense.pt").exists():
        network = teach(name, train)
        torch.save(network.state_dict(), folder / "dense.pt")


def teach(name: str, examples: Examples) -> nn.Module:
    """A network trained from seed 0 by Adam, one cycle; all images are held in memory."""
    task = TASKS[name]
    torch.manual_seed(0)
    network = network_of(name)
    learnt = [*network.parameters(), *(task.loss.parameters() if isinstance(task.loss, nn.Module) else [])]
    optimizer = torch.optim.AdamW(learnt, task.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.lr, total_steps=task.num_steps)
    images_NCHW, truth = torch.from_numpy(as_inputs(name, examples.images)), torch.from_numpy(examples.truth)
    started = time.process_time()
    network.train()
    for step in range(task.num_steps):
        chosen = torch.randint(len(images_NCHW), (task.batch_size,))
        loss = task.loss(getattr(network, task.raw)(images_NCHW[chosen]), truth[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            spent = f"{time.process_time() - started:.0f} CPU s"
            print(f"{name}: step {step} of {task.num_steps}, loss {loss.item():.4f}, {spent}", file=sys.stderr)
    return network.eval()


def as_inputs(name: str, images_NHWC: np.ndarray) -> np.ndarray:
    """What the network is given: float32 (N, C, H, W), less mean, by std."""
    task = TASKS[name]
    inputs_NHWC = (images_NHWC.astype(np.float32) / 255 - task.input_mean) / task.input_std
    return np.ascontiguousarray(inputs_NHWC.transpose(0, 3, 1, 2), dtype=np.float32)


def judge(name: str, network: Callable[[np.ndarray], np.ndarray], examples: Examples) -> dict[str, float]:
    """Each truth of a network that maps inputs (N, C, H, W) to outputs; it is given 100 images at a time."""
    parts = (examples.images[start : start + 100] for start in range(0, len(examples), 100))
    outputs = np.concatenate([network(as_inputs(name, part)) for part in parts])
    return {truth.name: truth.measure(outputs, examples.truth) for truth in TRUTHS[name]}


@torch.no_grad()
def run_module(network: nn.Module, inputs_NCHW: np.ndarray) -> np.ndarray:
    """Outputs of a module in eval mode."""
    outputs: np.ndarray = network(torch.from_numpy(inputs_NCHW)).numpy()
    return outputs

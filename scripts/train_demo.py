"""Make the files of `edgerecover demo`: train a digits classifier, prune it until it breaks, store both.

Run from the top of a checkout, in the environment that edgerecover is installed in (about 10 s on one core):

    pip install scikit-learn && python scripts/train_demo.py

It rewrites the weights, the test images and model.toml in edgerecover/demo/. The same machine and torch
version give the same bytes; another one gives other weights of about the same accuracy.

Data: scikit-learn's copy of the UCI optical digits, 1,797 images of 8×8 pixels. 1,200 of them, chosen by
seed, train; the other 597 only test. Nothing was selected on the test images but the sparsity, which was
raised until accuracy broke.

Top-1 accuracy on the 597 test images (torch 2.15, one x86 core):

    dense                       0.9950
    pruned, 80 % zeros          0.2513   as shipped
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from edgerecover.demo import ARCHITECTURE, DemoFiles, demo_files
from edgerecover.demo.network import NUM_CLASSES, digits_net

SEED = 0
NUM_TRAIN = 1200
NUM_EPOCHS = 40
BATCH_SIZE = 60
PEAK_LR = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SPARSITY = 0.80

# Pixels are used as value / 255; both are of the training images, rounded.
MEAN, STD = 0.3052, 0.3757

MODEL_TOML = f"""\
architecture = "{ARCHITECTURE}"
teacher = "dense.safetensors"
classes = [{", ".join(f'"{digit}"' for digit in range(NUM_CLASSES))}]

[input]
shape = [1, 8, 8]
mean = [{MEAN}]
std = [{STD}]
range = [0.0, 1.0]
"""


@dataclass(frozen=True)
class Images:
    """Grey images as stored, uint8 (N, 8, 8), with their labels, int64 (N,)."""

    pixels: np.ndarray
    labels: np.ndarray

    def normalized_NCHW(self) -> Tensor:
        """What the network takes: float32, (N, 1, 8, 8)."""
        return (torch.from_numpy(self.pixels).float().div(255).unsqueeze(1) - MEAN) / STD


def load_digits_split() -> tuple[Images, Images]:
    """Training and test images; the 17 grey levels of the original are spread over 0 to 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("scikit-learn is missing; it provides the images: pip install scikit-learn")
    digits = load_digits()
    images_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels_N = digits.target.astype(np.int64)
    order_N = np.random.default_rng(SEED).permutation(len(labels_N))
    train, test = order_N[:NUM_TRAIN], order_N[NUM_TRAIN:]
    return Images(images_NHW[train], labels_N[train]), Images(images_NHW[test], labels_N[test])


def train_dense(train: Images) -> nn.Module:
    """SGD with a one-cycle rate on images shifted by at most one pixel."""
    torch.manual_seed(SEED)
    network = digits_net()
    images_NCHW, labels_N = train.normalized_NCHW(), torch.from_numpy(train.labels)
    optimizer = torch.optim.SGD(
        network.parameters(), PEAK_LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    num_steps = NUM_EPOCHS * NUM_TRAIN // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=num_steps)
    for _ in range(NUM_EPOCHS):
        for batch in torch.randperm(NUM_TRAIN).split(BATCH_SIZE):
            loss = F.cross_entropy(network(shift(images_NCHW[batch])), labels_N[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def shift(images_NCHW: Tensor) -> Tensor:
    """The batch moved by -1, 0 or 1 pixel each way; background comes in at the edge."""
    padded_NCHW = F.pad(images_NCHW, (1, 1, 1, 1), value=-MEAN / STD)
    top, left = torch.randint(0, 3, (2,)).tolist()
    return padded_NCHW[..., top : top + 8, left : left + 8]


def pruned_copy(dense: nn.Module) -> nn.Module:
    """Zero the smallest SPARSITY of all Conv and Linear weights, ranked together by magnitude."""
    pruned = digits_net()
    pruned.load_state_dict(dense.state_dict())
    weights = [module.weight.data for module in pruned.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
    threshold = magnitudes.kthvalue(round(SPARSITY * magnitudes.numel())).values
    for weight in weights:
        weight[weight.abs() <= threshold] = 0.0
    return pruned.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Top-1, 0 to 1."""
    predictions_N = network(images.normalized_NCHW()).argmax(dim=1)
    return (predictions_N == torch.from_numpy(images.labels)).float().mean().item()


def write(files: DemoFiles, dense: nn.Module, pruned: nn.Module, test: Images) -> None:
    """Write the four files of the demo."""
    files.dense.write_bytes(save(dense.state_dict()))
    files.pruned.write_bytes(save(pruned.state_dict()))
    files.model_file.write_text(MODEL_TOML, encoding="utf-8")
    classes = np.array([str(digit) for digit in range(NUM_CLASSES)])
    np.savez_compressed(files.test_images, images=test.pixels[..., np.newaxis], labels=test.labels, classes=classes)


def main() -> None:
    """Train, prune, measure, write."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, test = load_digits_split()
    dense = train_dense(train)
    pruned = pruned_copy(dense)
    write(demo_files(), dense, pruned, test)
    print(f"{'':24}train    test ({len(test.labels)} images)")
    for name, network in (("dense", dense), (f"pruned, {SPARSITY:.0%} zeros", pruned)):
        print(f"{name:24}{accuracy(network, train):<9.4f}{accuracy(network, test):.4f}")


if __name__ == "__main__":
    main()

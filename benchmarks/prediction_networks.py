"""The networks that predictions are judged on, each with its dreams and with real images that it did not learn from.

Three kinds: the embedded demo and published CIFAR-10 checkpoints; networks trained here on Fashion-MNIST, of which two
see several garments side by side and tell 100 and 1,000 combinations apart; and any network of the user's own, given
as a folder. Teachers and dreams are kept in the work folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.compute import choose_compute
from edgerecover.config import load_profile
from edgerecover.demo import ARCHITECTURE, demo_files
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import open_models
from edgerecover.synthesis import source as dreams
from edgerecover.synthesis.image_set import SyntheticSets
from edgerecover.synthesis.sets import synthesis_key, synthesize
from edgerecover.validation.evaluation import read_eval_data

IMAGENET = InputSpec((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = {
    "resnet20": ("akamaster_resnet20-12fca82f.th", IMAGENET),
    "resnet56": ("akamaster_resnet56-4bfd9763.th", IMAGENET),
    "resnet8": (
        "mlperftiny_resnet8_state_dict.pt",
        InputSpec((3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 255.0)),
    ),
}
NUM_TRAIN_IMAGES = 5728
"""Of the CIFAR-10 images, for other benchmarks to train on; those after them are judged on."""
MANY, FEW = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95), (0.3, 0.5, 0.6, 0.7)
OF_A_LARGE_HEAD = (0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.11, 0.12, 0.13)
"""Where six weights in seven lie behind the convolutions and are larger than theirs: those are gone at 14 %."""
RECOVERED = (0.6, 0.75, 0.85, 0.9, 0.95)
Images = tuple[Tensor, Tensor]
"""Network inputs (N, C, H, W) and labels (N,)."""


@dataclass(frozen=True)
class Teacher:
    network: nn.Module
    input: InputSpec
    output: OutputSpec
    judged_on: Images


@dataclass(frozen=True)
class Source:
    """Where a network comes from, and how much is done with it: CPU time decides."""

    open: Callable[[Path, Path], Teacher]
    """Given DATA and the work folder."""
    flip: bool
    profile: str = "fast"
    num_train: int = 128
    num_held_back: int = 128
    num_steps: int = 40
    batch_size: int = 64
    sparsities: tuple[float, ...] = MANY
    recovered: tuple[float, ...] = RECOVERED
    """Those of them at which students are also fitted by least squares, and distilled."""


@dataclass(frozen=True)
class Case:
    """A teacher with its dreams."""

    name: str
    source: Source
    teacher: Teacher
    sets: SyntheticSets


def open_case(name: str, source: Source, data: Path, work: Path) -> Case:
    teacher, compute = source.open(data, work), choose_compute("cpu")
    settings = load_profile(source.profile).synthesis.model_copy(
        update={
            "num_train": source.num_train, "num_calibration": 1, "num_held_back": source.num_held_back,
            "batch_size": source.batch_size, "num_steps": source.num_steps, "flip": source.flip, "start": "fractal",
        }
    )  # fmt: skip
    made_from = dreams.Source(teacher.network, teacher.input, teacher.output, compute)
    folder = work / f"dreams-{synthesis_key(made_from, settings, 0)}"
    sets, _ = synthesize(made_from, settings, seed=0, folder=folder)
    return Case(name, source, teacher, sets)


def open_demo(_data: Path, _work: Path) -> Teacher:
    models = open_models(demo_files().dense, ModelFlags(arch=ARCHITECTURE, trust_code=True), will_prune=True)
    images = real_images(demo_files().test_images, models.input, 10)
    return Teacher(models.teacher.requires_grad_(False), models.input, models.output, images)


def open_cifar(name: str, num_images: int = 2000) -> Callable[[Path, Path], Teacher]:
    def load(data: Path, _work: Path) -> Teacher:
        network, input = open_network(name, data)
        images_NCHW, labels_N = real_images(data / "cifar10_png_train7728.npz", input, 10)
        chosen = slice(NUM_TRAIN_IMAGES, NUM_TRAIN_IMAGES + num_images)
        return Teacher(network, input, OutputSpec.one_label(10), (images_NCHW[chosen], labels_N[chosen]))

    return load


def open_network(name: str, data: Path) -> tuple[nn.Module, InputSpec]:
    weights, input = CIFAR[name]
    models = open_models(
        data / "weights" / weights,
        ModelFlags(arch=f"{data / 'models.py'}:{name}", input=input, trust_code=True),
        will_prune=True,
    )
    return models.teacher.requires_grad_(False), models.input


def own_folder(folder: Path, images: Path) -> Source:
    """Of dense.pt with model.toml beside it, and few dreams and students: it may be of any size."""

    def load(_data: Path, _work: Path) -> Teacher:
        models = open_models(folder / "dense.pt", ModelFlags(trust_code=True), will_prune=True)
        judged_on = real_images(images, models.input, models.output)
        return Teacher(models.teacher.requires_grad_(False), models.input, models.output, judged_on)

    return Source(
        load, flip=True, num_train=64, num_held_back=64, num_steps=20, batch_size=16, sparsities=FEW, recovered=()
    )


def real_images(path: Path, input: InputSpec, output: OutputSpec) -> Images:
    images, labels = zip(*read_eval_data(path, input, output).batches(1000), strict=True)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


# --- trained here ---------------------------------------------------------------------------------------------

_MEAN, _STD = 0.286, 0.353
_NUM_FASHION = 20_000
_NUM_JUDGED = 4000


class Separable(nn.Module):
    """A depthwise and a pointwise convolution with a shortcut, as in MobileNets."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.pointwise(F.relu(self.bn1(self.depthwise(x))))))


def cnn(widths: tuple[int, ...] = (8, 16, 32, 32)) -> nn.Sequential:
    """Four convolutions with batch norm, two of stride 2."""
    layers: list[nn.Module] = []
    for before, after, stride in zip((1, *widths), widths, (2, 2, 1, 1), strict=False):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def mobile(width: int = 16) -> nn.Sequential:
    stem = [nn.Conv2d(1, width, 5, 4, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*stem, *(Separable(width) for _ in range(3)), nn.Flatten(), nn.Linear(width * 49, 10))


def fashion(build: Callable[[], nn.Sequential], seed: int, num_steps: int) -> Callable[[Path, Path], Teacher]:
    """Gives a network trained on single garments."""

    def load(data: Path, work: Path) -> Teacher:
        torch.manual_seed(seed)
        network = build()
        path = work / f"teacher-{seed}.pt"
        if not path.exists():
            train(network, garments(data, "train", 1), num_steps, 0.1)
        return _kept(network, path, data, 1)

    return load


def side_by_side(widths: tuple[int, ...], number: int, num_steps: int) -> Callable[[Path, Path], Teacher]:
    """Gives a network that tells every combination of `number` garments in a row apart: 10^number classes.

    It is put together from one that was trained on single garments, whose logits it adds up, and trained on.
    """

    def load(data: Path, work: Path) -> Teacher:
        torch.manual_seed(number)
        single = cnn(widths)
        pooled = widths[-1] * number
        network = nn.Sequential(
            *list(single)[:-3], nn.AdaptiveAvgPool2d((1, number)), nn.Flatten(), nn.Linear(pooled, 10**number)
        )
        path = work / f"teacher-of-{number}.pt"
        if not path.exists():
            train(single, garments(data, "train", 1), num_steps, 0.1)
            _add_up(single[-1], network[-1], number)
            train(network, garments(data, "train", number), 120, 0.01)
        return _kept(network, path, data, number)

    return load


@torch.no_grad()
def _add_up(single: nn.Module, combined: nn.Module, number: int) -> None:
    """Logit of a combination := sum of those of its garments; classes in the order of decimal numbers."""
    combinations = torch.arange(10**number)
    digits = [combinations // 10 ** (number - 1 - place) % 10 for place in range(number)]
    weight_KC = torch.stack([single.weight[digit] for digit in digits], dim=2).flatten(1)
    combined.weight.copy_(weight_KC)
    combined.bias.copy_(torch.stack([single.bias[digit] for digit in digits]).sum(0))


def _kept(network: nn.Module, path: Path, data: Path, number: int) -> Teacher:
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    input = InputSpec((1, 28, 28 * number), (_MEAN,), (_STD,))
    return Teacher(
        network.eval().requires_grad_(False), input, OutputSpec.one_label(10**number), garments(data, "test", number)
    )


def garments(data: Path, split: str, number: int) -> Images:
    """Images of `number` garments side by side, drawn at random, with the class of their combination."""
    with np.load(data / f"fashion_mnist_{split}.npz") as arrays:
        images_NHW, labels_N = arrays["images"].reshape(-1, 28, 28), arrays["labels"].astype(np.int64)
    num_images = _NUM_JUDGED if split == "test" else _NUM_FASHION
    if split == "train":
        images_NHW, labels_N = images_NHW[:_NUM_FASHION], labels_N[:_NUM_FASHION]
    drawn_NP = np.random.default_rng(int(split == "test")).integers(0, len(images_NHW), (num_images, number))
    rows_NHW = np.concatenate([images_NHW[drawn_NP[:, place]] for place in range(number)], axis=2)
    classes_N = sum(labels_N[drawn_NP[:, place]] * 10 ** (number - 1 - place) for place in range(number))
    inputs_N1HW = ((rows_NHW[:, None] / 255.0 - _MEAN) / _STD).astype(np.float32)
    return torch.from_numpy(inputs_N1HW), torch.from_numpy(np.asarray(classes_N))


def train(network: nn.Module, images: Images, num_steps: int, peak_lr: float) -> None:
    images_NCHW, labels_N = images
    network.train().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), peak_lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=num_steps)
    for _ in range(num_steps):
        chosen = torch.randint(len(images_NCHW), (128,), generator=generator)
        loss = F.cross_entropy(network(images_NCHW[chosen]), labels_N[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    network.eval()


SOURCES = {
    "demo": Source(open_demo, flip=False, profile="demo"),
    "resnet8": Source(open_cifar("resnet8"), flip=True),
    "resnet20": Source(open_cifar("resnet20", 1000), flip=True, recovered=()),
    "resnet56": Source(open_cifar("resnet56", 1000), flip=True, num_train=64, num_steps=20, recovered=()),
    "cnn": Source(fashion(cnn, 0, 1400), flip=True),
    "mobile": Source(fashion(mobile, 2, 1000), flip=True),
    "pairs": Source(side_by_side((16, 32, 32, 32), 2, 800), flip=False),
    "triples": Source(
        side_by_side((8, 16, 32, 32), 3, 800), flip=False, sparsities=OF_A_LARGE_HEAD, recovered=(0.05, 0.08)
    ),
}
"""By name. Of the larger ones students are only pruned and repaired: CPU time."""

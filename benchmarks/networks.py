"""A user's folder for each network: dense.pt, models.py, model.toml, images to judge on, and pruned students."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from grid import pattern_flags
from PIL import Image

HERE = Path(__file__).parent
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_NUM_REAL_TRAIN = 7728
"""As many of the JPEG train images as there are lossless ones, so that the ceilings of all networks compare."""


@dataclass(frozen=True)
class Network:
    checkpoint: str | None
    """In DATA/weights; None: a teacher is trained."""
    mean: list[float]
    std: list[float]
    range: tuple[float, float] = (0.0, 1.0)
    shape: tuple[int, int, int] = (3, 32, 32)
    factories: str = "cifar_networks"
    """Module of this folder that builds it; of a checkpoint, DATA/models.py does."""
    images: Literal["cifar10", "fashion_mnist"] = "cifar10"


_CHECKPOINTS = {
    "resnet20": Network("akamaster_resnet20-12fca82f.th", *_IMAGENET),
    "resnet56": Network("akamaster_resnet56-4bfd9763.th", *_IMAGENET),
    "resnet8": Network("mlperftiny_resnet8_state_dict.pt", [0.0] * 3, [1.0] * 3, (0.0, 255.0)),
}
PAPER_NETWORKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "wide_resnet50_2",
    "mobilenet_v2",
    "vgg16_bn",
    "vgg19_bn",
    "densenet121",
    "shufflenet_v2_x1_0",
)
_LAYER_NORM = Network(None, [0.286], [0.353], (0.0, 1.0), (1, 28, 28), "layer_norm_networks", "fashion_mnist")
NETWORKS = (
    _CHECKPOINTS
    | {name: Network(None, *_IMAGENET) for name in (*PAPER_NETWORKS, "vgg_small")}
    | dict.fromkeys(("vit", "convnext"), _LAYER_NORM)
)


def prepare(name: str, data: Path, folder: Path, *, teacher_steps: int, device: str) -> None:
    """Fill `folder` with what is not there yet; a teacher is trained where DATA has no checkpoint of it."""
    network = NETWORKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    _write_model_toml(name, network, folder)
    if network.checkpoint:
        shutil.copyfile(data / "models.py", folder / "models.py")
        shutil.copyfile(data / "weights" / network.checkpoint, folder / "dense.pt")
        shutil.copyfile(data / "cifar10_png_test_dev500.npz", folder / "test.npz")
        shutil.copyfile(data / "cifar10_png_train7728.npz", folder / "train.npz")
        return
    shutil.copyfile(HERE / f"{network.factories}.py", folder / "models.py")
    if not (folder / "dense.pt").exists():
        flags = ["--steps", str(teacher_steps), "--device", device, "--out", str(folder / "dense.pt")]
        subprocess.run(
            [sys.executable, str(HERE / "train_teacher.py"), name, str(data), *flags], stdout=sys.stderr, check=True
        )
    for split, limit in (("test", None), ("train", _NUM_REAL_TRAIN)):
        if not (folder / f"{split}.npz").exists():
            images_NHWC, labels_N = read_images(network, data, split, limit)
            np.savez(folder / f"{split}.npz", images=images_NHWC, labels=labels_N)


def _write_model_toml(name: str, network: Network, folder: Path) -> None:
    (folder / "model.toml").write_text(
        f'architecture = "models.py:{name}"\nteacher = "dense.pt"\n\n[input]\n'
        f"shape = {list(network.shape)}\n"
        f"mean = {network.mean}\nstd = {network.std}\nrange = {list(network.range)}\n"
    )


def pruned_file(folder: Path, pattern: str) -> Path:
    return folder / f"{pattern.replace(':', '-')}.safetensors"


def prune(folder: Path, pattern: str) -> None:
    """Prune dense.pt as a user does; every method and seed starts from this file."""
    out = pruned_file(folder, pattern)
    if not out.exists():
        command = [sys.executable, "-m", "edgerecover", "prune", str(folder / "dense.pt"), *pattern_flags(pattern)]
        subprocess.run([*command, "--out", str(out), "--trust-code"], stdout=sys.stderr, check=True)


def read_images(network: Network, data: Path, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, H, W, C) and labels (N,) of what a network without a checkpoint is trained and judged on."""
    if network.images == "cifar10":
        return read_jpegs(data / "cifar10_jpeg.npz", split, limit)
    with np.load(data / f"{network.images}_{split}.npz", allow_pickle=False) as arrays:
        images_NHWC, labels_N = arrays["images"][:limit], arrays["labels"][:limit]
    return images_NHWC.reshape(-1, *network.shape[1:], network.shape[0]), labels_N


def read_jpegs(path: Path, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, H, W, C) and labels (N,): SPLIT_jpeg holds N files end to end, at SPLIT_offsets."""
    with np.load(path, allow_pickle=False) as arrays:
        content, offsets, labels_N = (arrays[f"{split}_{part}"] for part in ("jpeg", "offsets", "labels"))
    ends = offsets[: limit + 1 if limit else None]
    files = (content[start:end].tobytes() for start, end in pairwise(ends))
    images_NHWC = np.stack([np.asarray(Image.open(BytesIO(file)).convert("RGB")) for file in files])
    return images_NHWC, labels_N[: len(images_NHWC)]

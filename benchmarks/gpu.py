"""The paper's architectures on one machine, best with a GPU: teachers, then its recipe and ours side by side.

    python benchmarks/gpu.py DATA --device cuda
    python benchmarks/gpu.py --toy                # minutes on a CPU, on generated images: does everything still work?

DATA holds cifar10_jpeg.npz. Teachers are trained on it, students judged on its test images; all of it in one run.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
from grid import Block
from networks import PAPER_NETWORKS
from PIL import Image
from recovery import Options, add_common_flags, read_processes, report, run_grid

_METHODS = ("none", "bn", "paper", "fast", "balanced", "quality", "ceiling")
_PATTERNS = ("75", "90", "2:4")
_TOY_CHANGES = {
    "synthesis.num_train": 32,
    "synthesis.num_calibration": 16,
    "synthesis.num_held_back": 16,
    "synthesis.num_steps": 4,
    "synthesis.batch_size": 16,
    "recovery.num_steps": 4,
    "recovery.batch_size": 16,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--networks", nargs="+", choices=PAPER_NETWORKS, default=PAPER_NETWORKS)
    parser.add_argument("--patterns", nargs="+", default=_PATTERNS)
    parser.add_argument("--methods", nargs="+", default=_METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--toy", action="store_true")
    add_common_flags(parser)
    asked = parser.parse_args()
    if asked.toy:
        with TemporaryDirectory() as scratch:
            _toy(Path(scratch))
    elif asked.data is None:
        parser.error("DATA is needed, or --toy")
    else:
        block = Block(*map(tuple, (asked.networks, asked.methods, asked.patterns, asked.seeds)))
        options = Options(asked.results, asked.jobs, asked.device, dict(asked.set))
        run(block, asked.data, options, asked.teacher_steps)


def run(block: Block, data: Path, options: Options, teacher_steps: int) -> None:
    cells = block.cells()
    failures = run_grid(cells, data, options, teacher_steps=teacher_steps)
    print(report(cells, options))
    print(f"\n{speed_up(read_processes(cells, options))}")
    if failures:
        raise SystemExit("\n".join(failures))


def speed_up(processes: list[dict]) -> str:
    """Images per second of synthesis of each profile against the paper's loop, network by network."""
    rate = {}
    for network, method in {(process["network"], process["method"]) for process in processes}:
        rates = [p["images_per_s"] for p in processes if (p["network"], p["method"]) == (network, method)]
        rate[network, method] = mean(rates)
    lines = ["| network | method | images/s | of the paper's loop |", "|---|---|---|---|"]
    for (network, method), images_per_s in sorted(rate.items()):
        if method in ("paper", "fast", "balanced", "quality") and (network, "paper") in rate:
            ratio = images_per_s / rate[network, "paper"]
            lines.append(f"| {network} | {method} | {images_per_s:.1f} | {ratio:.1f} × |")
    return "\n".join(lines)


def _toy(scratch: Path) -> None:
    write_toy_archive(scratch / "cifar10_jpeg.npz")
    options = Options(scratch / "results", jobs=1, device="cpu", changes=_TOY_CHANGES)
    block = Block(("vgg_small",), ("paper", "balanced", "ceiling"), ("75",), (0,))
    run(block, scratch, options, teacher_steps=3)


def write_toy_archive(path: Path) -> None:
    """A file in the layout of cifar10_jpeg.npz: a class is a colour, seen through noise."""
    rng = np.random.default_rng(0)
    colours_KC = rng.integers(40, 216, (10, 3))
    arrays: dict[str, np.ndarray] = {}
    for split, num_images in (("train", 80), ("test", 40)):
        labels_N = np.arange(num_images) % 10
        noise = rng.normal(0, 20, (num_images, 32, 32, 3))
        images_NHWC = np.clip(colours_KC[labels_N][:, None, None] + noise, 0, 255).astype(np.uint8)
        files = [_jpeg(image_HWC) for image_HWC in images_NHWC]
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = labels_N
    np.savez(path, **arrays)


def _jpeg(image_HWC: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()

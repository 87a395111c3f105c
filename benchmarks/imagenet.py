r"""ImageNet size: EfficientNet-Lite0 brought back rung by rung, beside what else could be done to it.

    python benchmarks/imagenet.py IMAGES                                 # both patterns, all methods but `balanced`
    python benchmarks/imagenet.py IMAGES --patterns 50 --methods fast bn-real --set synthesis.num_train=64

IMAGES holds one image for each of the 1,000 classes, file names sorting like the synsets. Those of even-numbered
classes are used, half of them to judge on. Network and weights come from two packages: see lite0.py. Kill it at any
time and run it again: dreams and finished students are kept in --results, and made again only when their settings have
changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lite0
import numpy as np
from imagenet_cell import METHODS, Task
from networks import HERE, prune
from PIL import Image
from recovery import Options, add_common_flags, changed_profile

_SIDE = 224
_RESIZED = 256
_SUFFIXES = (".jpeg", ".jpg", ".png")
_IN_DEFAULT = [name for name, method in METHODS.items() if method.profile == "fast"]


def main() -> None:
    asked = _parser().parse_args()
    options = Options(asked.results, 1, asked.device, dict(asked.set))
    prepare(asked.images, asked.results)
    for pattern in asked.patterns:
        prune(asked.results, pattern)
    rows, failures = [], []
    for seed in asked.seeds:
        for profile in dict.fromkeys(METHODS[name].profile for name in asked.methods):
            failures += _run(Path(f"seed{seed}") / f"dreams-{profile}.json", profile, seed, options)
        for pattern in asked.patterns:
            for name in asked.methods:
                out = Path(f"seed{seed}") / f"{pattern}-{name}.json"
                failures += _run(out, METHODS[name].profile, seed, options, pattern=pattern, method=name)
                if (options.results / out).is_file():
                    rows.append(json.loads((options.results / out).read_text()))
    print(table(rows, _costs(asked.seeds, options)) if rows else "nothing was measured")
    if failures:
        raise SystemExit("\n".join(failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--patterns", nargs="+", default=["50", "70"], help="as of recovery.py")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=_IN_DEFAULT)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    add_common_flags(parser)
    parser.set_defaults(results=Path("imagenet-results"))
    return parser


# --- the folder of the network --------------------------------------------------------------------------------


def prepare(images: Path, folder: Path) -> None:
    """Network, weights and images in `folder`, as networks.prepare leaves them for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dense.pt").exists():
        shutil.copyfile(lite0.weights_file(), folder / "dense.pt")
    shutil.copyfile(HERE / "lite0.py", folder / "lite0.py")
    (folder / "model.toml").write_text(lite0.MODEL_TOML)
    if not ((folder / "test.npz").exists() and (folder / "real.npz").exists()):
        write_images(images, folder)


def write_images(images: Path, folder: Path) -> None:
    """test.npz to judge on, real.npz to learn from: images uint8 (N, H, W, C) of even-numbered classes, labels (N,).

    Of these, every second one is judged on, from the second: settings may be looked at on the others.
    """
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise SystemExit(f"{images}: no images; one for each class was expected, {' or '.join(_SUFFIXES)}")
    even = [(label, path) for label, path in enumerate(files) if label % 2 == 0]
    for name, chosen in (("real", even[0::2]), ("test", even[1::2])):
        images_NHWC = np.stack([read_image(path) for _, path in chosen])
        np.savez(folder / f"{name}.npz", images=images_NHWC, labels=np.array([label for label, _ in chosen]))


def read_image(path: Path) -> np.ndarray:
    """The middle 224 × 224 of the image with its shorter side at 256, uint8 (H, W, C)."""
    image = Image.open(path).convert("RGB")
    scale = _RESIZED / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - _SIDE) // 2, (image.height - _SIDE) // 2
    return np.asarray(image.crop((left, top, left + _SIDE, top + _SIDE)))


# --- running ------------------------------------------------------------------------------------------------


def _run(out: Path, profile: str, seed: int, options: Options, *, pattern: str = "", method: str = "") -> list[str]:
    """Run what is missing, each in a process of its own; what went wrong comes back as a sentence."""
    settings = changed_profile(profile, options.changes)
    path = options.results / out
    if path.is_file() and json.loads(path.read_text())["profile"] == settings:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    dreams = options.results / f"seed{seed}" / f"dreams-{profile}.json"
    settled = json.loads(dreams.read_text())["settled"] if pattern and dreams.is_file() else None
    task = Task(
        str(options.results), settings, seed, str(path), options.num_threads, options.device, pattern, method, settled
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(options.num_threads)}
    command = [sys.executable, str(HERE / "imagenet_cell.py"), json.dumps(asdict(task))]
    print(out, file=sys.stderr, flush=True)
    code = subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
    return [f"{out}: exit code {code}"] if code else []


# --- results ------------------------------------------------------------------------------------------------


def _costs(seeds: list[int], options: Options) -> list[dict[str, Any]]:
    paths = (path for seed in seeds for path in sorted((options.results / f"seed{seed}").glob("dreams-*.json")))
    return [json.loads(path.read_text()) for path in paths]


def table(rows: list[dict[str, Any]], costs: list[dict[str, Any]]) -> str:
    """Markdown: each rung of each student, then what the dreams cost."""
    lines = [
        "| pattern | method | rung | seed | real accuracy, % | agreement, % | predicted / true share, % | CPU s | GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['pattern']} | {row['method']}"
        for rung in row["rungs"]:
            chosen = " (chosen)" if rung.get("chosen") else ""
            agrees = f"{100 * rung['agreement']:.1f}" if "agreement" in rung else ""
            lines.append(
                f"{start} | {rung['name']}{chosen} | {row['seed']} | {_percent(rung['accuracy'])} | {agrees} | | "
                f"{rung['cpu_s']:.0f} | |"
            )
        shares = f"{100 * row['predicted']['kept']:.1f} / {100 * kept(row):.1f}"
        lines.append(
            f"{start} | exported | {row['seed']} | {_percent(row['exported'])} | {_percent(row['agreement'])} | "
            f"{shares} | {row['recover_cpu_s']:.0f} | {row['peak_memory_bytes'] / 1e9:.2f} |"
        )
    teacher = rows[0]["teacher"]
    lines += ["", f"Dense: {_percent(teacher)} % of {teacher['total']:,} real images.", ""]
    for cost in costs:
        spent_s = cost["settle_cpu_s"] + cost["synthesis_cpu_s"]
        lines.append(
            f"Dreams of `{cost['profile']['name']}`, seed {cost['seed']}: {cost['num_images']:,} images, "
            f"{spent_s:.0f} CPU s ({cost['settle_cpu_s']:.0f} of them to decide on mirroring), "
            f"{cost['peak_memory_bytes'] / 1e9:.2f} GB."
        )
    return "\n".join(lines)


def kept(row: dict[str, Any]) -> float:
    """The share of the teacher's accuracy that the exported file has, on the real images."""
    return row["exported"]["hits"] / max(1, row["teacher"]["hits"])


def _percent(proportion: dict[str, int]) -> str:
    return f"{100 * proportion['hits'] / proportion['total']:.1f}"


if __name__ == "__main__":
    main()

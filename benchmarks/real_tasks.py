"""Networks as people have them beyond one label, from one file to a judged bundle, each in a process of its own.

    python benchmarks/real_tasks.py FOLDER                  # all of them, into FOLDER/rows.jsonl
    python benchmarks/real_tasks.py FOLDER --only unet,yolo_v8
    python benchmarks/real_tasks.py FOLDER --table          # what came of it

Weights are random and statistics those of noise, and half of each layer is pruned: what is tested is that the task is
recognised or asked about, and that every operator and shape gets through. It takes half a minute to some minutes for
each. Kill it at any time and run the same line again: what is in rows.jsonl is left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import real_networks as nets
import torch
import torch.nn.functional as F
from torch import nn

_NUM_BATCHES, _BATCH = 3, 8
_ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Case:
    """A network, and what is to be found of it."""

    make: Callable[[], nn.Module]
    sides: tuple[int, int]
    """H and W of its input."""
    recognised: str | None
    """The task that its outputs tell; None where it has to be asked."""
    task: str
    """What it is for; named in the run where it is not recognised."""
    is_own: bool = True
    """Its code is in real_networks.py."""


def segmentation(name: str) -> Callable[[], nn.Module]:
    """A network of torchvision with random weights."""

    def make() -> nn.Module:
        from torchvision.models import get_model

        network: nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=21)
        return network

    return make


def segformer() -> nn.Module:
    """Of transformers: logits at a quarter of the size."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 96], "decoder_hidden_size": 64}
    network: nn.Module = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19, **sizes))
    return network


def of_timm(name: str, num_outputs: int) -> Callable[[], nn.Module]:
    """A network of timm; without outputs it gives its pooled features."""

    def make() -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(name, num_classes=num_outputs)
        return network

    return make


CASES = {
    "lraspp": Case(segmentation("lraspp_mobilenet_v3_large"), (224, 224), "segmentation", "segmentation", False),
    "lraspp_wide": Case(segmentation("lraspp_mobilenet_v3_large"), (200, 312), "segmentation", "segmentation", False),
    "deeplab": Case(segmentation("deeplabv3_mobilenet_v3_large"), (256, 256), "segmentation", "segmentation", False),
    "fcn": Case(segmentation("fcn_resnet50"), (224, 224), "segmentation", "segmentation", False),
    "segformer": Case(segformer, (224, 224), "segmentation", "segmentation", False),
    "unet": Case(lambda: nets.UNet(4), (128, 128), "segmentation", "segmentation"),
    "unet_odd": Case(lambda: nets.UNet(4, transposed=False), (100, 148), "segmentation", "segmentation"),
    "unet_log_softmax": Case(
        lambda: nets.UNet(4, lambda x: x.log_softmax(1)), (128, 128), "segmentation", "segmentation"
    ),
    "mask": Case(lambda: nets.UNet(1), (128, 128), None, "segmentation"),
    "depth": Case(lambda: nets.UNet(1, lambda x: 10 * F.softplus(x)), (128, 160), None, "regression"),
    "normals": Case(lambda: nets.UNet(3, F.normalize), (128, 128), None, "regression"),
    "autoencoder": Case(lambda: nets.UNet(3, torch.sigmoid), (128, 128), None, "regression"),
    "denoiser": Case(nets.Denoiser, (128, 128), None, "regression"),
    "super_resolution": Case(nets.SuperResolution, (64, 64), None, "regression"),
    "heat_maps": Case(lambda: nets.HeatMaps(17, joins=False), (192, 160), None, "regression"),
    "centernet": Case(lambda: nets.HeatMaps(3, joins=True), (192, 192), None, "regression"),
    "key_points": Case(lambda: nets.Row(34, lambda x: x.sigmoid().unflatten(1, (17, 2))), (96, 96), None, "regression"),
    "age": Case(lambda: nets.Row(1), (96, 96), None, "regression"),
    "quantiles": Case(lambda: nets.Row(5, nets.quantiles_of), (96, 96), None, "regression"),
    "ordinal": Case(nets.Ordinal, (96, 96), None, "multi-label"),
    "hash": Case(lambda: nets.Row(48, torch.tanh), (96, 96), None, "embedding"),
    "mobile_face_net": Case(nets.MobileFaceNet, (112, 112), None, "embedding"),
    "mobile_face_net_unit": Case(lambda: nets.MobileFaceNet(normalises=True), (112, 112), "embedding", "embedding"),
    "face_res_net": Case(nets.FaceResNet, (112, 112), None, "embedding"),
    "pooled_features": Case(of_timm("mobilenetv3_small_100", 0), (224, 224), None, "embedding", False),
    "vit_labels": Case(of_timm("vit_tiny_patch16_224", 14), (224, 224), "one-label", "multi-label", False),
    "yolo_v8": Case(nets.YoloV8, (128, 160), "detection", "detection"),
    "yolo_v5": Case(nets.YoloV5, (128, 160), "detection", "detection"),
    "yolo_v5_product": Case(lambda: nets.YoloV5(multiplies=True), (128, 160), "detection", "detection"),
}
"""What nothing tells, as several labels from one, is read as what is most usual: there the task is named."""


def built(name: str) -> nn.Module:
    """The network in eval mode, with statistics of a few batches of smoothed noise."""
    case = CASES[name]
    torch.manual_seed(0)
    network = case.make().train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a mean over all batches
    height, width = case.sides
    with torch.no_grad():
        for _ in range(_NUM_BATCHES):
            coarse = torch.randn(_BATCH, 3, height // 8, width // 8)
            network(F.interpolate(coarse, size=case.sides, mode="bilinear") + torch.randn(_BATCH, 3, height, width) / 2)
    return network.eval()


@dataclass(frozen=True)
class Row:
    """What came of a run."""

    name: str
    exit_code: int
    cpu_s: float
    said: str
    """The verdict's line, or the error."""
    warnings: tuple[str, ...]
    parity: float | None
    """Agreement of the file with PyTorch, 0 to 1."""
    bundle_bytes: int


def run(name: str, folder: Path) -> Row:
    """Make the network's folder and run edgerecover on it, as a user does."""
    case, home = CASES[name], folder / name
    home.mkdir(parents=True, exist_ok=True)
    torch.save(built(name).state_dict(), home / "dense.pt")
    here = Path(__file__).parent
    (home / "nets.py").write_text(
        f"import sys\nsys.path.insert(0, {str(here)!r})\nfrom real_tasks import CASES\nmake = CASES[{name!r}].make\n"
    )
    toml = f'architecture = "nets.py:make"\n\n[input]\nshape = [3, {case.sides[0]}, {case.sides[1]}]\n'
    (home / "model.toml").write_text(f"{toml}mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n")
    named = [] if case.recognised == case.task else ["--task", case.task]
    line = ["run", "dense.pt", "--sparsity", "0.5", "--pattern", "layerwise", "--trust-code", "--profile", "smoke"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "edgerecover", *line, "--target", "onnx-generic", *named, "-o", "a.bundle", "--force"],
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    bundle, report = home / "a.bundle", {}
    if (bundle / "report.json").exists():
        report = json.loads((bundle / "report.json").read_text())
    lines = [text.strip() for text in done.stdout.splitlines() if text.strip()]
    verdict = next((text for text in reversed(lines) if text.startswith(("PASS", "FAIL", "INCONCLUSIVE"))), "")
    error = next((text for text in done.stderr.splitlines() if text.startswith("error")), "")
    return Row(
        name,
        done.returncode,
        round(cpu_s, 1),
        verdict or error,
        tuple(report.get("warnings", ())),
        (report.get("parity") or {}).get("top1_agreement"),
        sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()),
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| Network | Task | Exit code | Verdict | File and PyTorch | Bundle | CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        case = CASES[row.name]
        told = "recognised" if case.recognised == case.task else "named"
        parity = "" if row.parity is None else f"{100 * row.parity:.1f} %"
        size, cpu = f"{row.bundle_bytes / 1e6:.0f} MB", f"{row.cpu_s:.0f} s"
        cells = row.name, f"{case.task}, {told}", str(row.exit_code), row.said, parity, size, cpu
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, or print the table. Exit code 1 where a run broke off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args(arguments)
    path: Path = asked.folder / _ROWS
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    if asked.table:
        sys.stdout.write(table(rows) + "\n")
        return 0
    asked.folder.mkdir(parents=True, exist_ok=True)
    done = {row.name for row in rows}
    for name in (asked.only or ",".join(CASES)).split(","):
        if name in done:
            continue
        rows.append(run(name, asked.folder))
        with path.open("a") as file:
            file.write(json.dumps(asdict(rows[-1])) + "\n")
        sys.stderr.write(f"{name}: exit code {rows[-1].exit_code}, {rows[-1].said}\n")
    return int(any(row.exit_code not in (0, 1, 5) for row in rows))


if __name__ == "__main__":
    sys.exit(main())

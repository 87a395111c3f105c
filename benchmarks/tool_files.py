"""Checkpoints as the field's tools write them, made by the tools themselves, and how edgerecover reads each.

    python benchmarks/tool_files.py OUT                      # a file or more of every tool that can be imported
    python benchmarks/tool_files.py OUT --tools nncf,peft

It installs nothing: tools that are not there are skipped, and said so. A row is `same` when what edgerecover reads is
what the tool's network computes with, tensor by tensor; `refused` is right where a row says why. Exit code 1 when a row
is neither. To add a tool, write a function that makes its files in a folder and put it into `TOOLS`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tool_folders
import torch
from tool_folders import MadeNetwork, judge_network
from torch import Tensor, nn

from edgerecover.errors import BadInputError
from edgerecover.models.read.load import read_checkpoint

IMAGES_NCHW = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Made:
    """One file or folder of a tool."""

    path: Path
    weights: dict[str, Tensor] = field(default_factory=dict)
    """What the network computes with, under the names of an untouched one."""
    refused: str = ""
    """A part of the message, where edgerecover is right to refuse it."""


class Net(nn.Module):
    """Small, and with every kind of layer that the tools treat differently."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 4)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.head(self.features(images_NCHW).mean((2, 3)))


def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def weights_of(module: nn.Module, **masked: Tensor) -> dict[str, Tensor]:
    """state_dict of a plain network, detached."""
    return {key: tensor.detach().clone() for key, tensor in module.state_dict().items()} | masked


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def save_exported(module: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(module, (IMAGES_NCHW,)), path)
    return path


# --- PyTorch's own --------------------------------------------------------------------------------------


def torch_prune(folder: Path) -> list[Made]:
    from torch.nn.utils import prune

    module = network()
    for layer in (module.features[0], module.features[3], module.head):
        prune.l1_unstructured(layer, "weight", 0.5)
    paths = [
        save(module.state_dict(), folder / "state_dict.pt"),
        save(module, folder / "module.pt"),
        save_exported(module, folder / "exported.pt2"),
    ]
    for layer in (module.features[0], module.features[3], module.head):
        prune.remove(layer, "weight")
    return [Made(path, weights_of(module)) for path in paths]


def torch_ao_pruning(folder: Path) -> list[Made]:
    from torch.ao.pruning import WeightNormSparsifier

    module = network()
    sparsifier = WeightNormSparsifier(sparsity_level=0.8)
    sparsifier.prepare(module, None)
    sparsifier.step()
    expected = weights_of(network(), **{"head.weight": module.head.weight.detach()})
    state, masks = copy.deepcopy(module.state_dict()), copy.deepcopy(sparsifier.state_dict())
    made = [
        Made(save({"model": state, "sparsifier": masks}, folder / "with_sparsifier.pt"), expected),
        Made(save_exported(module, folder / "exported.pt2"), expected),
    ]
    torch.jit.trace(module, IMAGES_NCHW).save(str(folder / "traced.pt"))
    made.append(Made(folder / "traced.pt", expected))
    sparsifier.squash_mask()
    return [*made, Made(save(module.state_dict(), folder / "squashed.pt"), expected)]


def torch_parallel(folder: Path) -> list[Made]:
    part, whole = network(), network()
    part.features = nn.DataParallel(part.features)
    return [
        Made(save(part.state_dict(), folder / "features.pt"), weights_of(network())),
        Made(save({"state_dict": nn.DataParallel(whole).state_dict()}, folder / "whole.pt"), weights_of(network())),
    ]


def torch_sparse(folder: Path) -> list[Made]:
    module = network()
    state = weights_of(module)
    pruned = {key: x * (x.abs() > x.abs().median()) if x.dim() >= 2 else x for key, x in state.items()}
    coo = {key: x.to_sparse() if x.dim() >= 2 else x for key, x in pruned.items()}
    made = [Made(save(coo, folder / "coo.pt"), pruned)]
    for layout in ("csr", "csc"):
        convert = f"to_sparse_{layout}"
        compressed = {key: getattr(x, convert)() if x.dim() == 2 else x for key, x in pruned.items()}
        made.append(Made(save(compressed, folder / f"{layout}.pt"), pruned))
    return made


def torch_quantization(folder: Path) -> list[Made]:
    from torch.ao import quantization

    torch.backends.quantized.engine = "fbgemm"
    trained = network().train()
    trained.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    aware = quantization.prepare_qat(trained)
    aware(IMAGES_NCHW)
    expected = {
        key: x for key, x in aware.state_dict().items() if "fake_quant" not in key and "post_process" not in key
    }
    dynamic = quantization.quantize_dynamic(network(), {nn.Linear}, torch.qint8)
    by_tensor = {
        key: torch.quantize_per_tensor(x, 0.02, 0, torch.qint8) if x.dim() >= 2 else x
        for key, x in weights_of(network()).items()
    }
    dequantized = {key: x.dequantize() if x.is_quantized else x for key, x in by_tensor.items()}
    return [
        Made(save(aware.state_dict(), folder / "aware.pt"), expected),
        Made(save(by_tensor, folder / "tensors.pt"), dequantized),
        Made(save(dynamic.state_dict(), folder / "dynamic.pt"), refused="int8 layers of torch.ao.quantization"),
        Made(save(dynamic, folder / "dynamic_module.pt"), refused="int8 layers"),
    ]


# --- pruning tools --------------------------------------------------------------------------------------


def nncf(folder: Path) -> list[Made]:
    import nncf as tool

    module = tool.prune(
        network(), mode=tool.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL, ratio=0.8, examples_inputs=IMAGES_NCHW
    )
    masks = {key: x for key, x in module.state_dict().items() if key.endswith("binary_mask")}
    expected = weights_of(network())
    for key, mask in masks.items():
        expected[key.split(".")[2].split("__")[0].replace(":", ".")] *= mask
    quantised = tool.quantize(network(), tool.Dataset([IMAGES_NCHW] * 300), fast_bias_correction=True)
    own = {key: x for key, x in quantised.state_dict().items() if "nncf" not in key}
    content = {"model_state": module.state_dict(), "nncf_config": tool.torch.get_config(module)}
    return [
        Made(save(module.state_dict(), folder / "pruned.pt"), expected),
        Made(save(content, folder / "pruned_with_config.pt"), expected),
        Made(save(module, folder / "pruned_module.pt"), expected),
        Made(save_exported(module, folder / "pruned.pt2"), expected),
        Made(save(quantised.state_dict(), folder / "quantised.pt"), own),
    ]


def modelopt(folder: Path) -> list[Made]:
    import modelopt.torch.opt as mto
    import modelopt.torch.sparsity as mts

    module = mts.sparsify(network(), mode="sparse_magnitude")
    mto.save(module, str(folder / "mto.pt"))
    # Its layers hand out masked weights, while the state_dict keeps them whole.
    expected = weights_of(network()) | {
        f"{name}.weight": layer.weight.detach().clone()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    made = [Made(folder / "mto.pt", expected), Made(save(module.state_dict(), folder / "state_dict.pt"), expected)]
    return [*made, Made(save(mts.export(module).state_dict(), folder / "exported.pt"), expected)]


def torch_pruning(folder: Path) -> list[Made]:
    import torch_pruning as tool

    module = network()
    importance = tool.importance.MagnitudeImportance(p=2)
    tool.pruner.MagnitudePruner(module, IMAGES_NCHW, importance, pruning_ratio=0.5, ignored_layers=[module.head]).step()
    return [
        Made(save(tool.state_dict(module), folder / "state_dict.pt"), weights_of(module)),
        Made(save(module, folder / "module.pt"), weights_of(module)),
    ]


# --- what else is put around weights --------------------------------------------------------------------


def thop(folder: Path) -> list[Made]:
    import thop as tool

    module = network()
    tool.profile(module, (IMAGES_NCHW,), verbose=False)
    return [Made(save(module.state_dict(), folder / "profiled.pt"), weights_of(network()))]


def peft(folder: Path) -> list[Made]:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=4, target_modules=["head", "features.3"], init_lora_weights=False)
    module = get_peft_model(network(), config).eval()
    before = copy.deepcopy(module)
    expected = weights_of(module.merge_and_unload())
    before.save_pretrained(folder / "adapter")
    return [
        Made(save(before, folder / "module.pt"), expected),
        Made(save(before.state_dict(), folder / "unmerged.pt"), refused="low-rank adapters"),
        Made(folder / "adapter" / "adapter_model.safetensors", refused="low-rank adapters"),
        Made(save(expected, folder / "merged.pt"), expected),
    ]


TOOLS: dict[str, tuple[str, Callable[[Path], list[Made] | list[MadeNetwork]]]] = {
    "torch.nn.utils.prune": ("torch", torch_prune),
    "torch.ao.pruning": ("torch", torch_ao_pruning),
    "torch.nn.DataParallel": ("torch", torch_parallel),
    "torch.sparse": ("torch", torch_sparse),
    "torch.ao.quantization": ("torch", torch_quantization),
    "nncf": ("nncf", nncf),
    "modelopt": ("nvidia-modelopt", modelopt),
    "torch_pruning": ("torch-pruning", torch_pruning),
    "thop": ("thop", thop),
    "peft": ("peft", peft),
    **tool_folders.TOOLS,
}
"""By name: the distribution that it is of, and what makes its files in a folder."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tools", help=f"some of {', '.join(TOOLS)}", default=",".join(TOOLS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| tool | version | file | read | as |\n|---|---|---|---|---|")
    num_wrong = 0
    for name in options.tools.split(","):
        distribution, make = TOOLS[name]
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                made = make(folder)
            its_version = version(distribution)
        except (ImportError, PackageNotFoundError) as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        for entry in made:
            verdict, words = judge(entry)
            num_wrong += verdict == "WRONG"
            print(f"| {name} | {its_version} | {entry.path.relative_to(folder)} | {verdict} | {words} |", flush=True)
    return 1 if num_wrong else 0


def judge(made: Made | MadeNetwork) -> tuple[str, str]:
    """`same`, `refused` or `WRONG`, and how edgerecover describes it."""
    if isinstance(made, MadeNetwork):
        return judge_network(made)
    try:
        checkpoint = read_checkpoint(made.path)
        if made.refused:
            checkpoint = checkpoint.as_spelled(network().state_dict().keys())
    except BadInputError as error:
        text = error.message.replace(f"{made.path}: ", "")
        return ("refused" if made.refused and made.refused in text else "WRONG"), text
    is_same = not made.refused and checkpoint.tensors.keys() == made.weights.keys()
    is_same = is_same and all(torch.allclose(checkpoint.tensors[k], x.to(checkpoint.tensors[k].dtype), atol=1e-7)
                              for k, x in made.weights.items())  # fmt: skip
    return ("same" if is_same else "WRONG"), checkpoint.format


if __name__ == "__main__":
    sys.exit(main())

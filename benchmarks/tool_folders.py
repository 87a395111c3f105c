"""Folders and whole networks of libraries, for tool_files.py: logits, input and classes must be the tool's own."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgerecover.artifacts import InputSpec
from edgerecover.errors import EdgeRecoverError
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.pair.networks import inspect, open_network


@dataclass(frozen=True)
class MadeNetwork:
    """A file or folder, and what the tool's own network makes of images."""

    path: Path
    images: Tensor
    logits: Tensor
    input: InputSpec | None = None
    """What the tool itself does to an image; None where the file does not say it."""
    classes_source: str | None = None
    flags: ModelFlags = NO_FLAGS
    """Flags that a user needs."""


def judge_network(made: MadeNetwork) -> tuple[str, str]:
    """`same` or `WRONG`, and what edgerecover found."""
    try:
        facts = inspect(made.path, made.flags)
        network, input = open_network(made.path, made.flags)
    except EdgeRecoverError as error:
        return "WRONG", error.message.replace(str(made.path), made.path.name)
    with torch.no_grad():
        logits_NK = network(made.images)
    faults = []
    if not torch.allclose(logits_NK, made.logits, atol=1e-4 * float(made.logits.abs().max())):
        faults.append("other logits")
    if made.input is not None and (input is None or not _is_close(input, made.input)):
        faults.append(f"another input: {input} for {made.input}")
    if facts.classes_source != made.classes_source:
        faults.append(f"classes from {facts.classes_source}")
    words = f"{facts.architecture} ({facts.architecture_source}), input from {facts.input_source}"
    return ("WRONG" if faults else "same"), "; ".join((words, *faults))


def _is_close(a: InputSpec, b: InputSpec) -> bool:
    """The same network input for the darkest and the brightest pixel, and the same shape."""
    return a.shape == b.shape and torch.allclose(torch.tensor(a.bounds()), torch.tensor(b.bounds()), atol=1e-5)


def timm(folder: Path) -> list[MadeNetwork]:
    import timm

    made = []
    for name, size in (("test_resnet", (3, 48, 40)), ("test_vit", (3, 160, 160)), ("test_convnext", (3, 64, 64))):
        overlay = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": size, "test_input_size": None}
        network = timm.create_model(name, num_classes=5, pretrained_cfg_overlay=overlay).eval()
        names = {"label_names": list("abcde")}
        timm.models.save_for_hf(network, folder / name, model_config=names, safe_serialization=True)
        found = timm.data.resolve_data_config(model=network)
        spec = InputSpec(tuple(found["input_size"]), tuple(found["mean"]), tuple(found["std"]))
        made.append(_made(folder / name, network, spec, "config.json"))
    return made


_FAMILIES = {
    "ViT": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
    "DeiT": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
    "Beit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
    "Dinov2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
    "Swin": {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
             "window_size": 4},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "groups_width": 8},
    "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "MobileNetV2": {"depth_multiplier": 0.35},
    "MobileViT": {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]},
    "EfficientNet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
}  # fmt: skip
_PROCESSORS = {"Swin": "ViT", "Dinov2": "Bit", "ResNet": "ConvNext", "RegNet": "ConvNext"}


def transformers(folder: Path) -> list[MadeNetwork]:
    import transformers

    made = []
    for family, options in _FAMILIES.items():
        torch.manual_seed(0)
        labels = dict(enumerate("abcde"))
        config = getattr(transformers, f"{family}Config")(id2label=labels, **options)
        network = getattr(transformers, f"{family}ForImageClassification")(config).eval()
        path = folder / family.lower()
        network.save_pretrained(path, max_shard_size="40KB" if family == "ViT" else "5GB")
        sizes = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}
        if family in ("ResNet", "RegNet", "ConvNext", "MobileNetV2", "MobileViT", "Dinov2"):
            sizes["size"] = {"shortest_edge": 64}
        if family in ("MobileNetV2", "MobileViT", "Dinov2"):
            side = 28 if family == "Dinov2" else 64
            sizes["crop_size"] = {"height": side, "width": side}
        kind = getattr(transformers, f"{_PROCESSORS.get(family, family)}ImageProcessor")
        processor = kind(**sizes)
        processor.save_pretrained(path)
        spec = _input_of(processor)
        images_NCHW = torch.rand(2, *spec.shape)
        with torch.no_grad():
            logits_NK = network(images_NCHW).logits
        made.append(MadeNetwork(path, images_NCHW, logits_NK, spec, "config.json"))
    return made


def _input_of(processor) -> InputSpec:
    """What the processor makes of a black and a white image, as an InputSpec of range 0 to 1."""
    import numpy as np

    low, high = (
        torch.as_tensor(
            np.asarray(processor(np.full((80, 80, 3), level, np.uint8), return_tensors="np")["pixel_values"])
        )
        for level in (0, 255)
    )
    shape = tuple(low.shape[1:])
    middle = [side // 2 for side in shape[1:]]
    dark, bright = (one[0, :, middle[0], middle[1]].double() for one in (low, high))
    std = 1 / (bright - dark)
    return InputSpec(shape, tuple((-dark * std).tolist()), tuple(std.tolist()))


def mmengine(folder: Path) -> list[MadeNetwork]:
    from mmengine.hooks import EMAHook
    from mmengine.model import BaseModel, ImgDataPreprocessor
    from mmengine.runner import Runner
    from torch.utils.data import Dataset

    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

    class Images(Dataset):
        @property
        def metainfo(self):
            return {"classes": tuple("abcde")}

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"inputs": torch.full((3, 32, 32), 40 * index, dtype=torch.uint8)}

    class Classifier(BaseModel):
        def __init__(self):
            super().__init__(ImgDataPreprocessor(mean=mean, std=std, bgr_to_rgb=True))
            self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.head = nn.Linear(8, 5)

        def forward(self, inputs, data_samples=None, mode="tensor"):
            logits_NK = self.head(self.backbone(inputs).mean((2, 3)))
            return {"loss": logits_NK.logsumexp(1).sum()} if mode == "loss" else logits_NK

    (folder / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())\n"
        "        self.head = nn.Linear(8, 5)\n\n    def forward(self, images_NCHW):\n"
        "        return self.head(self.backbone(images_NCHW).mean((2, 3)))\n"
    )
    config = {"data_preprocessor": {"mean": mean, "std": std, "to_rgb": True}}
    network, hook = Classifier(), EMAHook(momentum=0.2)
    loader = {"dataset": Images(), "batch_size": 2, "sampler": {"type": "DefaultSampler", "shuffle": False}}
    runner = Runner(
        network, str(folder / "work"), train_dataloader=loader | {"collate_fn": {"type": "default_collate"}},
        train_cfg={"by_epoch": True, "max_epochs": 2}, optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        custom_hooks=[hook], log_level="ERROR", cfg=config, experiment_name="made",
    )  # fmt: skip
    runner.train()
    network = hook.ema_model.module.eval()
    images_NCHW = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits_NK = network(images_NCHW)
    spec = InputSpec((3, 224, 224), tuple(mean), tuple(std), (0.0, 255.0))
    flags = ModelFlags(f"{folder / 'net.py'}:Net", spec)
    return [MadeNetwork(folder / "work" / "epoch_2.pth", images_NCHW, logits_NK, spec, "meta in the file", flags)]


def ultralytics(folder: Path) -> list[MadeNetwork]:
    from ultralytics.nn.tasks import ClassificationModel
    from ultralytics.utils.torch_utils import strip_optimizer

    torch.manual_seed(0)
    network = ClassificationModel("yolov8n-cls.yaml", ch=3, nc=5, verbose=False).half().float().eval()
    network.names = dict(enumerate("abcde"))
    content = {"epoch": 3, "model": None, "ema": network.half(), "train_args": {"imgsz": 64, "task": "classify"}}
    torch.save(content, folder / "last.pt")
    torch.save(content | {"optimizer": None, "updates": 0, "best_fitness": 0.0}, folder / "best.pt")
    strip_optimizer(folder / "best.pt")
    network = network.float()
    images_NCHW = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits_NK = network(images_NCHW)[1]
    spec = InputSpec((3, 64, 64), (0.0,) * 3, (1.0,) * 3)
    flags = ModelFlags(input=spec, trust_pickle=True)
    source = "the module in the file"
    return [MadeNetwork(folder / name, images_NCHW, logits_NK, spec, source, flags) for name in ("last.pt", "best.pt")]


def fastai(folder: Path) -> list[MadeNetwork]:
    import numpy as np
    from fastai.vision.all import ImageDataLoaders, Resize, resnet18, vision_learner
    from PIL import Image

    for name in "abc":
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        for index in range(4):
            pixels = np.full((40, 40, 3), 60 * index, np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
    loaders = ImageDataLoaders.from_folder(
        folder / "images", valid_pct=0.25, item_tfms=Resize(32), bs=4, num_workers=0, device="cpu"
    )
    learner = vision_learner(loaders, resnet18, pretrained=False)
    learner.path = folder
    learner.export("export.pkl")
    network = learner.model.eval()
    images_NCHW = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits_NK = network(images_NCHW)
    flags = ModelFlags(input=InputSpec((3, 32, 32), (0.0,) * 3, (1.0,) * 3), trust_pickle=True)
    return [MadeNetwork(folder / "export.pkl", images_NCHW, logits_NK, None, "the vocabulary in the file", flags)]


def torch_distributed(folder: Path) -> list[MadeNetwork]:
    """Saved by two processes, each of which holds half of every tensor."""
    import torch.multiprocessing as processes
    import torchvision

    (folder / "rendezvous").unlink(missing_ok=True)
    processes.spawn(_save_distributed, (str(folder),), nprocs=2)
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(num_classes=5)
    return [_made(folder / "step", network, InputSpec((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))]


def _save_distributed(rank: int, folder: str) -> None:
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    import torchvision
    from torch.distributed.fsdp import fully_shard

    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(num_classes=5)
    fully_shard(network, mesh=dist.init_device_mesh("cpu", (2,)))
    with contextlib.redirect_stdout(io.StringIO()):
        dcp.save({"model": network.state_dict(), "epoch": 3}, checkpoint_id=f"{folder}/step")
    dist.destroy_process_group()


def _made(path: Path, network: nn.Module, spec: InputSpec, classes_source: str | None = None) -> MadeNetwork:
    images_NCHW = torch.rand(2, *spec.shape)
    with torch.no_grad():
        logits_NK = network.eval()(images_NCHW)
    return MadeNetwork(path, images_NCHW, logits_NK, spec, classes_source)


TOOLS = {
    "timm": ("timm", timm),
    "transformers": ("transformers", transformers),
    "mmengine": ("mmengine", mmengine),
    "ultralytics": ("ultralytics", ultralytics),
    "fastai": ("fastai", fastai),
    "torch.distributed.checkpoint": ("torch", torch_distributed),
}
"""As in tool_files.py."""

"""One of each family of arXiv 2511.20702, and two with auxiliary heads, from a dense checkpoint to a verified bundle.

Untrained, but with batch norm statistics and decisions that are their own: what is tested is that every operator and
shape gets through, at the small and odd image sizes that torchvision's 224 hides.
"""

import re

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.bundle.verify import verify_bundle
from edgerecover.commands.run import run
from edgerecover.config import load_profile, load_target
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.name.libraries import build_from_library
from edgerecover.pruning import Pruning
from edgerecover.runtime.session.onnxruntime import open_session
from edgerecover.stages.request import Request

PUBLISHED = [
    ("mobilenet_v2", (32, 32), 2),
    ("shufflenet_v2_x1_0", (75, 75), 3),
    ("resnet18", (75, 75), 3),
    ("resnet50", (32, 32), 3),
    ("densenet121", (64, 48), 3),
    ("googlenet", (64, 48), 3),
    ("inception_v3", (75, 75), 2),
]
LARGE = [
    ("wide_resnet50_2", (32, 32), 2),
    ("vgg16_bn", (75, 75), 3),
    ("convnext_tiny", (64, 48), 3),
    ("swin_t", (32, 32), 3),
]
SMALL_NETWORKS = """
from torchvision import models
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vgg import make_layers

def vit(num_classes=3):
    return models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=num_classes)

def swin(num_classes=3):
    return models.SwinTransformer([4, 4], 16, [2, 1], [2, 2], [4, 4], num_classes=num_classes)

def convnext(num_classes=3):
    return models.ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 2)], num_classes=num_classes)

def vgg(num_classes=3):
    features = make_layers([16, "M", 32, 32, "M"], batch_norm=True)
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 64), nn.ReLU(True), nn.Dropout()]
    return nn.Sequential(features, *head, nn.Linear(64, num_classes))
"""
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def torchvision_classifier(name, num_classes):
    heads = {"aux_logits": True, "init_weights": True} if name in WITH_AUXILIARY_HEADS else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=num_classes, **heads)


def classifier(build, name, size, num_classes):
    """Batch norm holds the statistics of noise images, and each class is as likely on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(name, num_classes)
        network.eval()  # but for its norms: Inception's auxiliary head, which training runs, needs larger images
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.train().momentum = 1.0
        *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
        nn.init.normal_(last.weight)  # ViT's starts at zero
        images = torch.randn(8, 3, *size)
        with torch.no_grad():
            network(images)
            logits = network.eval()(images)
            last.weight /= logits.std(0).mean()
            last.bias -= network(images).mean(0)
    return network


@pytest.fixture
def tiny():
    """The fewest images and steps that touch everything."""
    profile = load_profile("smoke")
    sizes = {"num_train": 8, "num_calibration": 8, "num_held_back": 8, "batch_size": 8, "num_steps": 2}
    recovery = {"num_steps": 2, "batch_size": 8, "lr": 1e-4}
    return profile.model_copy(
        update={
            "synthesis": profile.synthesis.model_copy(update=sizes),
            "recovery": profile.recovery.model_copy(update=recovery),
            "latency": profile.latency.model_copy(update={"num_warmup": 1, "min_queries": 2, "min_duration_s": 0.0}),
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "num_classes"),
    [
        *PUBLISHED,
        *(pytest.param(*case, marks=pytest.mark.large) for case in LARGE),
    ],
)
def test_from_a_dense_checkpoint_to_a_verified_bundle(name, size, num_classes, tiny, tmp_path):
    if name not in ("mobilenet_v2", "shufflenet_v2_x1_0"):
        # The widest layers' least squares take longer than all else together.
        tiny = tiny.model_copy(update={"recovery": tiny.recovery.model_copy(update={"layerwise": False})})
    model_path, bundle = tmp_path / "dense.pt", tmp_path / "out.bundle"
    torch.save(classifier(torchvision_classifier, name, size, num_classes).state_dict(), model_path)
    report = run(
        Request(
            model_path,
            load_target("onnx-generic"),
            tiny,
            bundle,
            tmp_path / "work",
            flags=ModelFlags(input=InputSpec((3, *size), (0.5,) * 3, (0.25,) * 3)),
            pruning=Pruning("layerwise", 0.75),
        )
    )
    assert report.student.architecture == f"torchvision:{name}"
    assert report.student.num_classes == num_classes
    check(report, bundle)


def check(report, bundle):
    assert report.exported.exporter == "dynamo"
    assert report.parity.relative < 1e-3
    assert report.parity.top1_agreement == 1.0
    assert [gate.name for gate in report.gates if gate.status.value == "fail"] == []
    sparsity = report.recovered_sparsity
    assert abs(sparsity.num_zeros - 0.75 * sparsity.num_weights) <= len(sparsity.layers)  # each layer is rounded
    assert all(np.isfinite(rung.kl) for rung in report.rungs)
    assert "distillation (diverged)" not in {rung.name for rung in report.rungs}
    verify_bundle(bundle)
    session = open_session(bundle / "model.onnx", ("CPUExecutionProvider",), strict=True)
    golden = np.load(bundle / "golden" / "inputs.npy")
    np.testing.assert_allclose(session.run(golden), np.load(bundle / "golden" / "outputs.npy"), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin", "convnext", "vgg"))]
)
def test_a_small_network_of_its_family(name, tiny, tmp_path):
    """Attention's projections too are pruned, fitted, held at zero and exported like every other weight."""
    factories: dict[str, object] = {}
    exec(SMALL_NETWORKS, factories)
    model_path, bundle = tmp_path / "dense.pt", tmp_path / "out.bundle"
    (tmp_path / "models.py").write_text(SMALL_NETWORKS)
    dense = classifier(lambda name, num_classes: factories[name](num_classes), name, (32, 32), 3)
    torch.save(dense.state_dict(), model_path)
    tiny = tiny.model_copy(update={"synthesis": tiny.synthesis.model_copy(update={"patch_weight": 1.0})})
    report = run(
        Request(
            model_path,
            load_target("onnx-generic"),
            tiny,
            bundle,
            tmp_path / "work",
            flags=ModelFlags(
                arch=f"{tmp_path / 'models.py'}:{name}", input=InputSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
            ),
            pruning=Pruning("unstructured", 0.75),
        )
    )
    check(report, bundle)
    matrices = [value for key, value in dense.named_parameters() if value.dim() > 1 and not NO_WEIGHT.search(key)]
    assert report.recovered_sparsity.num_weights == sum(value.numel() for value in matrices)
    assert report.exported.num_weights == report.recovered_sparsity.num_weights
    # Whether least squares helps a random network on a few images is chance; tests/recovery/test_linear_maps.py fits.
    assert "layer-wise least squares" in [rung.name for rung in report.rungs]


NO_WEIGHT = re.compile("pos_embedding|class_token|relative_position_bias_table|layer_scale")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("test_resnet", 32),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("test_vit", 48), ("test_convnext", 64))),
    ],
)
def test_networks_of_timm_named_by_the_user(name, side, tiny, tmp_path):
    """They hold norms with activations inside, layer scale, attention in one Linear; ViT is built for its size."""
    input = InputSpec((3, side, side), (0.5,) * 3, (0.25,) * 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_from_library(f"timm:{name}", 3, input).eval()
        images = torch.randn(8, 3, side, side)
        with torch.no_grad():
            *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
            last.weight /= network(images).std(0).mean()
            last.bias -= network(images).mean(0)
    torch.save(network.state_dict(), tmp_path / "dense.pt")
    report = run(
        Request(
            tmp_path / "dense.pt",
            load_target("onnx-generic"),
            tiny,
            tmp_path / "out.bundle",
            tmp_path / "work",
            flags=ModelFlags(arch=f"timm:{name}", input=input),
            pruning=Pruning("unstructured", 0.75),
        )
    )
    assert report.student.num_classes == 3
    assert report.exported.exporter == "dynamo"
    assert report.parity.top1_agreement == 1.0
    assert [gate.name for gate in report.gates if gate.name == "mask_kept" and gate.status.value == "fail"] == []
    assert "distillation" in {rung.name for rung in report.rungs}
    verify_bundle(tmp_path / "out.bundle")


def test_a_network_too_large_for_a_file_costs_no_dream(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("edgerecover.export.onnx.MAX_FILE_BYTES", 1_000_000)
    input = InputSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    torch.save(build_from_library("timm:test_resnet", 3, input).state_dict(), tmp_path / "dense.pt")
    request = Request(
        tmp_path / "dense.pt",
        load_target("onnx-generic"),
        tiny,
        tmp_path / "out.bundle",
        tmp_path / "work",
        flags=ModelFlags(arch="timm:test_resnet", input=input),
        pruning=Pruning("unstructured", 0.75),
    )
    with pytest.raises(BadInputError, match=r"weights take 0\.0 GB"):
        run(request)
    assert not list((tmp_path / "work").glob("dreams-*"))

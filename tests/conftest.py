"""A toy problem that the tests of synthesis and recovery share: trained here, in about a second."""

import copy
import os

import pytest
from hypothesis import settings

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.config import Recovery, Synthesis

# Before torch is imported, here and in child processes: on tiny networks threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, however busy the machine.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

SPREAD = ("test_run_architectures.py",)
"""Files whose tests share nothing and take long."""


def pytest_addoption(parser):
    parser.addoption("--large", action="store_true", help="also the networks that take minutes each")


def pytest_collection_modifyitems(config, items):
    """The main job first, then files with slow tests: at the end, no process waits for another's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name != "test_main_job.py", item.path not in slow))
    for item in items:
        if item.get_closest_marker("large") and not config.getoption("--large"):
            item.add_marker(pytest.mark.skip(reason="takes minutes, and a smaller one of its family runs: --large"))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """With `-n`, a file's tests run in one process, where they share its fixtures.

    pytest-xdist's own `loadgroup` writes its groups where pytest 9.2 no longer reads them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, _ = nodeid.partition("::")
            return nodeid if file.endswith(SPREAD) else file

    config.option.loadscopereorder = False  # the order is that of above, not files with many tests first
    return ByFile(config, log)


NUM_CLASSES = 4
INPUT = InputSpec((3, 8, 8), (0.45, 0.5, 0.55), (0.2, 0.25, 0.3))


def images_of_classes(num_images, seed):
    """Network inputs and labels: a class is a smooth pattern, seen through noise; pixels stay in [0, 1]."""
    import torch
    import torch.nn.functional as F

    coarse = torch.rand((NUM_CLASSES, 3, 3, 3), generator=torch.Generator().manual_seed(11))
    patterns = F.interpolate(coarse, size=(8, 8), mode="bilinear")
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % NUM_CLASSES
    noise = torch.randn((num_images, 3, 8, 8), generator=random)
    pixels = (patterns[labels] + 0.15 * noise).clamp(0, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (INPUT.mean, INPUT.std))
    return (pixels - mean) / std, labels


def convnet(width=16, norm=True):
    """Three convolutions, each with BN unless `norm` is off, and a linear layer."""
    from torch import nn

    layers = []
    for channels, stride in ((3, 1), (width, 2), (width, 1)):
        layers.append(nn.Conv2d(channels, width, 3, stride, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)] if norm else [nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, NUM_CLASSES))


def vit(size=16):
    """torchvision's class with two small blocks, untrained, of which the heads are not all zero."""
    import torch
    from torchvision.models import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = VisionTransformer(
            size, 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=NUM_CLASSES
        )
        torch.nn.init.normal_(network.heads.head.weight)
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.1)
    return network.eval().requires_grad_(False)


def _trained(network):
    import torch
    import torch.nn.functional as F

    images, labels = images_of_classes(512, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    random = torch.Generator().manual_seed(2)
    for _ in range(80):
        chosen = torch.randint(len(images), (64,), generator=random)
        optimizer.zero_grad()
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def _trained_teachers():
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {norm: _trained(convnet(norm=norm)) for norm in (True, False)}


@pytest.fixture
def teacher(_trained_teachers):
    """Trained, with batch norm; a copy of this test's own."""
    return copy.deepcopy(_trained_teachers[True])


@pytest.fixture
def teacher_without_bn(_trained_teachers):
    return copy.deepcopy(_trained_teachers[False])


@pytest.fixture(scope="session")
def training_images():
    """Network inputs and labels that the toy teachers were trained on."""
    return images_of_classes(512, seed=1)


@pytest.fixture(scope="session")
def real_images():
    """Network inputs and labels that no network here was trained on."""
    return images_of_classes(256, seed=5)


@pytest.fixture(scope="session")
def cpu():
    """In float32 on every machine, so that no test's outcome depends on the processor."""
    import torch

    from edgerecover.compute import Compute

    return Compute(torch.device("cpu"), None, torch.channels_last)


@pytest.fixture(scope="session")
def input_spec():
    return INPUT


@pytest.fixture(scope="session")
def synthesis():
    """Small, but enough for dreams on which the toy's students learn."""
    return Synthesis(
        num_train=96,
        num_calibration=64,
        num_held_back=32,
        batch_size=32,
        num_steps=40,
        lr=0.2,
        schedule="cosine",
        betas=(0.5, 0.9),
        class_term="target",
        class_weight=2.0,
        bn_weight=1.0,
        bn_distance="l2",
        tv_weight=0.0,
        jitter_fraction=0.125,
        flip=False,
        start="low-frequency",
        clamp="pixel-range",
    )


@pytest.fixture(scope="session")
def recovery():
    return Recovery(
        repair_statistics=True,
        num_steps=40,
        batch_size=32,
        optimizer="adam",
        lr=5e-3,
        schedule="cosine",
        temperature=4.0,
        scale_by_temperature_squared=True,
        feature_weight=1.0,
        bn="adapt",
        flip=False,
        crop_fraction=0.0,
    )


@pytest.fixture(scope="session")
def sets(_trained_teachers, synthesis, cpu, tmp_path_factory):
    """Dreams of the toy teacher; read only."""
    from edgerecover.synthesis.sets import synthesize
    from edgerecover.synthesis.source import Source

    teacher = copy.deepcopy(_trained_teachers[True])
    folder = tmp_path_factory.mktemp("dreams")
    found, _ = synthesize(
        Source(teacher, INPUT, OutputSpec.one_label(NUM_CLASSES), cpu), synthesis, seed=0, folder=folder
    )
    return found


@pytest.fixture
def write_onnx():
    """Writes a small classifier, 3×8×8 to 5 classes, by hand: as ONNX files from elsewhere come, and without torch."""
    import numpy as np
    import onnx
    from onnx import TensorProto, numpy_helper
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    def write_onnx(
        path,
        *,
        batch="batch",
        opset=18,
        ir_version=None,
        dtype="float32",
        channels_last=False,
        names=("input", "logits"),
        sides=(8, 8),
        extra_outputs=False,
        softmax=False,
        external=None,
        operator=None,
        zeros=(),
    ):
        random = np.random.default_rng(0)
        conv = random.standard_normal((8, 3, 3, 3))
        fc = random.standard_normal((8, 5))
        conv.reshape(-1)[list(zeros)] = 0.0
        kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE,
                "uint8": TensorProto.UINT8}[dtype]  # fmt: skip
        input_name, output_name = names
        weights_dtype = "float32" if dtype == "uint8" else dtype
        nodes = [make_node("Transpose", [input_name], ["nchw"], perm=[0, 3, 1, 2])] if channels_last else []
        images = "nchw" if channels_last else input_name
        if dtype == "uint8":
            nodes.append(make_node("Cast", [images], ["float"], to=TensorProto.FLOAT))
            images = "float"
        nodes += [
            make_node("Conv", [images, "conv.weight"], ["a"], pads=[1, 1, 1, 1]),
            make_node("Relu", ["a"], ["b"]),
            make_node("GlobalAveragePool", ["b"], ["c"]),
            make_node("Flatten", ["c"], ["features"]),
            make_node("Gemm", ["features", "fc.weight"], ["scores"]),
        ]
        if operator:
            nodes.append(make_node(operator, ["scores"], ["odd"], domain="acme"))
        last = "odd" if operator else "scores"
        nodes.append(make_node("Softmax" if softmax else "Identity", [last], [output_name]))
        shape = [batch, *sides, 3] if channels_last else [batch, 3, *sides]
        score_kind = TensorProto.FLOAT if dtype == "uint8" else kind
        outputs = [make_tensor_value_info(output_name, score_kind, [batch, 5])]
        if extra_outputs:
            outputs.insert(0, make_tensor_value_info("features", score_kind, [batch, 8]))
        graph = make_graph(
            nodes,
            "classifier",
            [make_tensor_value_info(input_name, kind, shape)],
            outputs,
            [numpy_helper.from_array(value.astype(weights_dtype), name)
             for name, value in (("conv.weight", conv), ("fc.weight", fc))],
        )  # fmt: skip
        opsets = [make_opsetid("", opset), *([make_opsetid("acme", 1)] if operator else [])]
        model = make_model(graph, opset_imports=opsets, ir_version=ir_version or (11 if opset >= 23 else 8))
        if external:
            onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
        else:
            onnx.save(model, path)
        return path

    return write_onnx


@pytest.fixture
def make_bundle(write_onnx, tmp_path):
    """Packs a small classifier as `edgerecover run` would, but for the report: a runner reads its gates only."""
    import json

    import numpy as np

    from edgerecover.artifacts import DeviceTask, to_json
    from edgerecover.bundle.write import write_bundle
    from edgerecover.files import npy_bytes
    from edgerecover.runner.archive import runner_pyz
    from edgerecover.runtime.session.onnxruntime import open_session
    from edgerecover.validation.limits import Limits

    def make_bundle(name="net.bundle", *, task=None, limits=None, gates=(), teacher=False, variants=None, **replaced):
        model = write_onnx(tmp_path / "exported.onnx")
        images_NCHW = np.random.default_rng(3).normal(size=(8, 3, 8, 8)).astype(np.float32)
        outputs_NK = open_session(model, ["CPUExecutionProvider"]).run(images_NCHW)
        asked = {
            "target": "toy", "machine": {}, "runtime": "onnxruntime", "providers": ["CPUExecutionProvider"],
            "num_warmup": 1, "min_queries": 5, "min_duration_s": 0.0, **(task or {}),
        }  # fmt: skip
        asked = {**to_json(DeviceTask("toy", None, "", (), 0, 1, 0.0)), **asked}
        asked_limits = Limits("toy", 0.5, 0.9, 0.1, 3.0, "toy", "CPUExecutionProvider", **(limits or {}))
        files = {
            "model.onnx": model,
            "golden/inputs.npy": npy_bytes(images_NCHW),
            "golden/outputs.npy": npy_bytes(outputs_NK),
            "limits.json": json.dumps(to_json(asked_limits)),
            "runner.json": json.dumps(asked),
            "report.json": json.dumps({"gates": to_json(tuple(gates))}),
            "runner.pyz": runner_pyz(),
            **{f"variants/{precision}.onnx": path for precision, path in (variants or {}).items()},
        }
        if teacher:
            files["golden/teacher.npy"] = npy_bytes(outputs_NK)
        for path, content in replaced.items():
            files[path.replace("__", "/").replace("_json", ".json").replace("_npy", ".npy").replace("_mnn", ".mnn")] = (
                content
            )
        return write_bundle(files, tmp_path / name, {"target": "toy"})

    return make_bundle

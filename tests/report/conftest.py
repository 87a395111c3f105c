import dataclasses

import pytest

from edgerecover.artifacts import (
    Accuracy,
    ByClass,
    Conditions,
    Confused,
    CurvePoint,
    Exported,
    Fidelity,
    Fingerprint,
    Gate,
    GateStatus,
    Host,
    InputSpec,
    Latency,
    LayerSparsity,
    ModelFacts,
    Outcome,
    OutputSpec,
    Parity,
    Pattern,
    Precision,
    PrecisionLoss,
    Predicted,
    Proportion,
    Race,
    Report,
    Rung,
    Runner,
    Sheet,
    Sparsity,
    StageTime,
    SyntheticFacts,
    TaskKind,
    Twin,
    Variant,
)
from edgerecover.gate.opening import Opened, release_of

LAYERS = tuple(
    LayerSparsity(name, shape, weights, zeros, Pattern.UNSTRUCTURED)
    for name, shape, weights, zeros in (
        ("conv1.weight", (16, 3, 3, 3), 432, 98),
        ("layer1.0.conv1.weight", (16, 16, 3, 3), 2304, 1213),
        ("layer3.2.conv2.weight", (64, 64, 3, 3), 36864, 30911),
        ("fc.weight", (10, 64), 640, 127),
    )
)
STUDENT = ModelFacts(
    path="model.pt",
    sha256="3f" * 32,
    size_bytes=1_099_231,
    format="state_dict under 'model', prefix 'module.'",
    architecture="models.py:resnet20",
    architecture_source="model.toml",
    num_parameters=269_722,
    num_batch_norms=19,
    num_classes=10,
    has_masks=False,
    teacher_inside=False,
    sparsity=Sparsity(LAYERS, Pattern.UNSTRUCTURED),
    input=InputSpec((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    input_source="model.toml",
)
DREAMS = 256
PREDICTED = Predicted(kept=0.973, low=0.952, high=0.994, num_students=59, num_networks=3, coverage=0.95)
# A long-tailed but repeatable run: one call in fifty meets the scheduler.
SAMPLES_MS = tuple(1.55 + 0.05 * (i * 37 % 100) / 100 + (0.9 if i % 50 == 7 else 0.0) for i in range(2000))


def gate(name, status, message, measured=0.0, limit=0.0, unit="%"):
    return Gate(name, status, measured, limit, "at least", unit, "profile balanced", message)


@pytest.fixture
def report():
    """ResNet-20 at 75 %, recovered on an x86 desk for a Jetson, without real data."""
    return Report(
        edgerecover_version="0.1.0",
        created_utc="2026-03-01T09:30:00+00:00",
        seed=0,
        device="cpu (2 threads)",
        data_used="none",
        target="jetson-orin",
        target_description="NVIDIA Jetson Orin, any of Nano, NX and AGX, JetPack 6.1 or 6.2",
        profile="balanced",
        student=STUDENT,
        teacher=dataclasses.replace(STUDENT, path="dense.pt", sha256="a0" * 32),
        recovered_sparsity=STUDENT.sparsity,
        synthetic=SyntheticFacts(1024, DREAMS, DREAMS, 0.993, 8.61, reused=False),
        rungs=(
            Rung("pruned", 0.41, 2.31, 0.0),
            Rung("statistics repair", 0.742, 0.71, 9.8),
            Rung("distillation", 0.918, 0.22, 58.4, chosen=True),
        ),
        exported=Exported("model.onnx", "0c" * 32, 1_121_377, 18, "dynamo", 1, 268_336, 67_084),
        parity=Parity(DREAMS, 8.1e-6, 1.1e-6, 3.42, 1.0),
        fidelity=Fidelity(Proportion(107, DREAMS), Proportion(233, DREAMS), Proportion(233, DREAMS), PREDICTED),
        latency=Latency(
            scope="one InferenceSession.run call, input and output in host memory, one stream",
            runtime="onnxruntime 1.31.1",
            provider="CPUExecutionProvider",
            nodes_by_provider={"CPUExecutionProvider": 52},
            num_threads=2,
            batch=1,
            host=Host("x86_64", "Intel(R) Xeon(R) Platinum 8488C", 2, "Linux 6.8.0"),
            host_is_target=False,
            warmup_ms=(4.0,) * 50,
            samples_ms=SAMPLES_MS,
            load_ms=21.3,
            memory_before_bytes=48_000_000,
            memory_peak_bytes=63_400_000,
        ),
        accuracy=None,
        sparsity_verdict="75 % unstructured zeros: tensorrt multiplies by them. Its sparse "
        "tensor cores need the 2:4 pattern. The file is as large as a dense one; the zeros shrink it only when it is "
        "compressed (zip, gzip).",
        gates=(
            gate(
                "agreement",
                GateStatus.PASS,
                "agreement with the teacher 91.0 % (86.9–93.9) meets the 60 % of profile balanced",
            ),
            gate("mask_kept", GateStatus.PASS, "every pruned weight is still zero"),
            gate(
                "parity_top1",
                GateStatus.PASS,
                "the exported file decides as PyTorch on 100.00 % of 256 images, meets the 99 % of profile balanced",
            ),
            gate(
                "latency_p99",
                GateStatus.NEEDS_DEVICE,
                "host latency p99 2.49 ms (2.48–2.50), on this x86_64 machine (Intel(R) Xeon(R) Platinum 8488C), "
                "which is not the target; the limit of 5 ms is settled by measuring on jetson-orin",
            ),
        ),
        stages=(
            StageTime("load", 0.3),
            StageTime("synthesize", 178.4),
            StageTime("recover", 71.9),
            StageTime("export", 6.2),
            StageTime("validate", 7.7),
            StageTime("bundle", 0.2),
        ),
        warnings=("model.pt: 3 keys of optimizer state were ignored",),
        tool_versions={"torch": "2.15.0", "onnxruntime": "1.31.1"},
    )


@pytest.fixture
def report_with_accuracy(report):
    """The same run with --eval-data."""
    hits = (Proportion(455, 500), Proportion(303, 500), Proportion(449, 500), Proportion(449, 500))
    return dataclasses.replace(report, data_used="eval-only", accuracy=Accuracy("cifar10_dev", 500, *hits, 13, 7))


@pytest.fixture
def report_of_task(report_with_accuracy):
    """The same run of a network for another task."""

    def report_of_task(task):
        shape = {TaskKind.SEGMENTATION: (4, 32, 32), TaskKind.BINARY: (1,), TaskKind.DETECTION: (50, 8)}.get(
            task, (10,)
        )
        teacher = dataclasses.replace(report_with_accuracy.teacher, output=OutputSpec(task, shape))
        synthetic = dataclasses.replace(report_with_accuracy.synthetic, teacher_agrees_with_target=None)
        fidelity = dataclasses.replace(report_with_accuracy.fidelity, predicted=None)
        return dataclasses.replace(
            report_with_accuracy, teacher=teacher, synthetic=synthetic, fidelity=fidelity, gates=()
        )

    return report_of_task


@pytest.fixture
def full_report(report_with_accuracy):
    """The same with everything that a report can hold: classes, curves, pictures, a race, rounds and conditions."""
    report = report_with_accuracy
    held_back = ByClass((64,) * 4, (60, 58, 63, 52), (30, 20, 40, 17), (
        Confused(3, 0, 12), Confused(1, 0, 6), Confused(0, 1, 3), Confused(0, None, 1), Confused(2, 3, 1),
    ))  # fmt: skip
    real = ByClass((125,) * 4, (113, 110, 120, 106), (80, 70, 90, 63), (Confused(3, 0, 19), Confused(1, 0, 15)))
    latency = dataclasses.replace(
        report.latency,
        round_sizes=(200,) * 10,
        conditions=Conditions(
            12, governor="powersave", cpu_mhz_lowest=2000.0, cpu_mhz_highest=3100.0, busy_elsewhere=0.1
        ),
        fingerprint=Fingerprint({"cpu": "Intel(R) Xeon(R) Platinum 8488C", "onnxruntime": "1.31.1"}),
        notes=("oneDNN is off",),
    )
    faster = dataclasses.replace(latency, samples_ms=tuple(0.5 * ms for ms in latency.samples_ms), runtime="openvino")
    race = Race(
        on_target=False,
        runners=(
            Runner(Precision.INT8, "openvino", Outcome.LOSES, "", 300_000, faster, Proportion(201, DREAMS),
                   PrecisionLoss(DREAMS, 40, 8, 60)),
            Runner(Precision.FP32, "onnxruntime", Outcome.SHIPPED, "", 1_121_377, latency, Proportion(233, DREAMS)),
            Runner(Precision.FP16, "onnxruntime", Outcome.NOT_RUN, "no fp16 kernels"),
        ),
        twins=(Twin("dense", 1.0, 1_121_000, 900_000, latency), Twin("fewer channels", 0.47, 400_000, 300_000, faster)),
    )  # fmt: skip
    curve = (CurvePoint(100, 2.0, 0.85), CurvePoint(150, 1.0), CurvePoint(200, 0.5, 0.918))
    *rungs, distilled = report.rungs
    return dataclasses.replace(
        report,
        classes=("cat", "dog", "ship", "frog"),
        fidelity=dataclasses.replace(report.fidelity, by_class=held_back),
        accuracy=dataclasses.replace(report.accuracy, by_class=real),
        rungs=(*rungs, dataclasses.replace(distilled, curve=curve)),
        sheet=Sheet("dreams.png", 1, 64, 64, 2, (0, 1, 2, 3)),
        latency=latency,
        race=race,
        variants=(Variant(Precision.FP32, report.exported, "as exported", (), ""),),
    )


@pytest.fixture
def opened():
    """A report as that of a verified bundle."""
    return lambda report: Opened(None, None, report, None, release_of(report, "b.bundle", "ab" * 32))

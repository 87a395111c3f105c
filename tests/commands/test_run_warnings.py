"""Bad input through the whole pipeline: what can be recovered is, and the report says plainly what that is worth."""

import copy

import pytest
import torch
from torch import nn

from edgerecover.artifacts import Descent
from edgerecover.bundle.verify import verify_bundle
from edgerecover.commands.run import run
from edgerecover.config import load_profile, load_target
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import ModelFlags
from edgerecover.pruning import apply_masks, global_magnitude_masks
from edgerecover.stages.request import Request

TOML = """
architecture = "nets.py:quirky"
classes = ["cat", "dog", "fox", "owl"]
[input]
shape = [1, 8, 8]
mean = [0.5]
std = [0.25]
"""
NETS = """
from torch import nn

def quirky(num_classes=4):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, bias=False, groups=8), nn.BatchNorm2d(8, momentum=None), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8, momentum=0.0),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, num_classes),
    )
"""


@pytest.fixture
def quirky():
    """Grayscale; BN without affine, with momentum None and 0, and with a dead channel; no class is preferred."""
    namespace = {}
    exec(NETS, namespace)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = namespace["quirky"]()
        images = 2 * torch.randn(64, 1, 8, 8)
        with torch.no_grad():
            network[0].weight[3] = 0
            for number in (1, 4, 7):
                network[number].momentum = 1.0
            network.train()(images)
            network.eval()
            network[11].weight /= network(images).std(0).mean() / 3
            network[11].bias -= network(images).mean(0)
    assert network[1].running_var[3] == 0
    return network


@pytest.fixture
def outcome_of(tmp_path):
    """What a run says of a teacher and a student; the bundle is verified."""
    (tmp_path / "nets.py").write_text(NETS)
    profile = load_profile("smoke")
    quick = profile.latency.model_copy(update={"num_warmup": 1, "min_queries": 2, "min_duration_s": 0.0})
    profile = profile.model_copy(update={"latency": quick})

    def outcome_of(teacher, student, toml=TOML):
        (tmp_path / "model.toml").write_text('teacher = "dense.pt"\n' + toml)
        torch.save(teacher.state_dict(), tmp_path / "dense.pt")
        torch.save(student.state_dict(), tmp_path / "model.pt")
        bundle = tmp_path / "out.bundle"
        target = load_target("onnx-generic")
        report = run(
            Request(
                tmp_path / "model.pt", target, profile, bundle, tmp_path / "work", flags=ModelFlags(trust_code=True)
            )
        )
        verify_bundle(bundle)
        written = (bundle / "report.md").read_text(encoding="utf-8")
        assert all(warning in written for warning in report.warnings)
        assert "nan" not in (bundle / "report.json").read_text(encoding="utf-8").lower().replace("nan_", "")
        return report

    return outcome_of


def pruned(teacher, sparsity):
    student = copy.deepcopy(teacher)
    apply_masks(student, global_magnitude_masks(student, sparsity))
    return student


def said(report, words):
    return any(words in warning for warning in report.warnings)


def test_a_class_never_predicted_is_named(quirky, outcome_of):
    with torch.no_grad():
        quirky[11].bias[2] -= 100.0
    assert said(outcome_of(quirky, pruned(quirky, 0.5)), "finds no fox in 64 dreams")


def test_a_student_that_its_images_cannot_reach_is_refused(quirky, outcome_of):
    student = pruned(quirky, 0.5)
    with torch.no_grad():
        student[6].weight.zero_()
    with pytest.raises(BadInputError, match=r"'6\.weight' has no weight left, and nothing bypasses it") as raised:
        outcome_of(quirky, student)
    assert "--pattern layerwise" in raised.value.hint


def test_nothing_was_pruned(quirky, outcome_of):
    report = outcome_of(quirky, quirky)
    assert said(report, "nothing was pruned")
    assert report.rungs[0].agreement == 1.0
    assert report.fidelity.exported.value == 1.0


def test_a_teacher_that_tells_no_images_apart_is_refused(quirky, outcome_of):
    with torch.no_grad():
        quirky[11].weight.zero_()
    student = pruned(quirky, 0.5)
    with pytest.raises(BadInputError, match="the same for two different images"):
        outcome_of(quirky, student)


def test_a_teacher_whose_logits_are_not_finite_is_refused(quirky, outcome_of):
    """Its student would be refused when it is opened; here the teacher alone is broken."""
    student = pruned(quirky, 0.5)
    with torch.no_grad():
        quirky[11].weight.fill_(3e38)
    with pytest.raises(BadInputError, match=r"^the teacher: .*NaN or infinite"):
        outcome_of(quirky, student)


def test_one_class_is_refused(quirky, outcome_of):
    quirky[11] = nn.Linear(32, 1)
    with pytest.raises(BadInputError, match="which may be a decision or a measurement"):
        outcome_of(quirky, quirky, TOML.replace('classes = ["cat", "dog", "fox", "owl"]', 'classes = ["cat"]'))


def test_a_student_that_others_trained_is_exported_as_it_came_and_the_report_says_so(quirky, outcome_of):
    student = pruned(quirky, 0.3)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter *= 1 + 0.05 * torch.randn(parameter.shape, generator=random)
    report = outcome_of(quirky, student)
    assert [(rung.name, rung.chosen) for rung in report.rungs] == [("as it came (fine-tuned)", True)]
    assert report.lineage.descent is Descent.TRAINED
    assert report.fidelity.recovered == report.fidelity.pruned
    assert report.fidelity.predicted is None
    assert said(report, "handed back as it came")

import copy
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from torch import nn

from edgerecover.artifacts import Descent, Lineage, OutputSpec, Pattern, Precision, RefusedVariant, Rung, Variant
from edgerecover.config import load_profile, load_target
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
from edgerecover.export.precision import SCHEMES, Calibration, make_variants
from edgerecover.models.onnx.weights import weights_of
from edgerecover.models.pair.channels import SAME_CHANNELS
from edgerecover.models.pair.networks import Models
from edgerecover.pruning import apply_masks, global_magnitude_masks
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import Recovered
from edgerecover.recovery.logits import logits_on
from edgerecover.recovery.quantized import distil_for_int8
from edgerecover.stages.load import Loaded
from edgerecover.stages.precision import make_distilled, make_variants_of, precisions_of
from edgerecover.stages.probe import Probed
from edgerecover.stages.request import Request
from edgerecover.stages.synthesize import Images
from tests.conftest import INPUT, NUM_CLASSES
from tests.pairs import measure_of_classes, pair_of

FP32, FP16, INT8 = Precision
X86 = load_target("x86-avx512-vnni")


def test_what_the_target_can_use_is_made_float32_first():
    assert precisions_of(load_target("android-qnn"), ()) == (FP32, INT8)
    assert precisions_of(load_target("rtx-40"), ()) == (FP32, FP16, INT8)


def test_what_is_asked_for_is_made_beside_float32():
    assert precisions_of(X86, (INT8,)) == (FP32, INT8)
    assert precisions_of(X86, (FP32,)) == (FP32,)


def test_what_the_target_has_no_use_for_is_refused():
    with pytest.raises(BadInputError, match="does not use it; it takes fp32, int8"):
        precisions_of(load_target("android-qnn"), (FP16,))


@pytest.fixture
def make(teacher, sets, recovery, cpu, tmp_path):
    """Variants of the toy's teacher as its own student, by a profile that allows so many points to be lost."""

    def make(wanted, points=1.0, recovered=None, target=X86):
        recovered = recovered or Recovered(teacher, ())
        facts = SimpleNamespace(sparsity=SimpleNamespace(pattern=Pattern.DENSE))
        models = Models(
            recovered.student,
            teacher,
            {},
            INPUT,
            OutputSpec.one_label(NUM_CLASSES),
            None,
            "toy",
            facts,
            facts,
            (),
            SAME_CHANNELS,
        )
        profile = load_profile("smoke")
        gates = profile.gates.model_copy(update={"max_precision_loss_points": points})
        short = recovery.model_copy(update={"num_steps": 2})
        profile = profile.model_copy(update={"gates": gates, "recovery": short})
        exported = export(recovered.student, INPUT, tmp_path / "fp32.onnx", opset=18)
        request = Request(tmp_path / "m.pt", target, profile, tmp_path / "out", tmp_path, precisions=wanted)
        images = Images(sets, None, profile, "key")
        return make_variants_of(request, Loaded(models, Probed(cpu)), images, recovered, exported, tmp_path)

    return make


def test_every_precision_is_a_file(make):
    made = make((FP32, FP16, INT8), target=load_target("rtx-40")).made
    assert [variant.precision for variant in made] == [FP32, FP16, INT8]
    assert len({variant.file.sha256 for variant in made}) == 3


def test_float32_alone_is_as_exported(make):
    (only,) = make((FP32,)).made
    assert (only.precision, only.scheme) == (FP32, "as exported")


def test_training_images_are_chosen_on_where_calibration_images_are_few(make, sets):
    _, int8 = make((FP32, INT8)).made
    assert len(sets.calibration) + len(sets.train) == 160
    assert "calibrated on 160 images" in int8.scheme


def test_int8_that_loses_too_much_is_distilled_and_then_refused_with_all_that_was_tried(make):
    (refused,) = make((FP32, INT8), points=-100.0).refused
    plain, distilled = (
        [one for one in refused.tries if ("distillation" in one.name) is after] for after in (False, True)
    )
    assert plain
    assert distilled
    assert refused.reason.startswith("after 2 steps of quantisation-aware distillation")


def test_a_student_that_others_trained_is_not_distilled(make, teacher):
    lineage = Lineage(Descent.TRAINED, 0.3, ("fc.weight",))
    recovered = Recovered(teacher, (Rung("as it came", 1.0, 0.0, 0.0, True),), lineage)
    assert recovered.handed_back
    (refused,) = make((FP32, INT8), points=-100.0, recovered=recovered).refused
    assert not [one for one in refused.tries if "distillation" in one.name]
    assert torch.is_grad_enabled()


def with_outlying_channels(teacher, factor):
    """The same function, but two channels that the last convolution reads are `factor` times as large as the others."""
    student = copy.deepcopy(teacher)
    norm, conv = student[4], student[6]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[:2] *= factor
        norm.bias[:2] *= factor
        conv.weight[:, :2] /= factor
    return student


def exported(student, tmp_path):
    return export(student, INPUT, tmp_path / "float32.onnx", opset=18, batch=None)


def answers_of(network, images, compute):
    return measure_of_classes(4).read(logits_on(network, images, compute).numpy())


def test_distillation_reaches_what_quantisation_alone_does_not(teacher, sets, recovery, cpu, tmp_path):
    student = with_outlying_channels(teacher, 250.0)
    float32 = exported(student, tmp_path)
    calibration = Calibration(sets.calibration, answers_of(teacher, sets.calibration, cpu), measure_of_classes(4))
    scheme = SCHEMES["u8s8"]
    (alone,) = make_variants(float32, [Precision.INT8], scheme, calibration, INPUT, tmp_path)
    # A layer in float32 may save it; what all layers in int8 lose is asked here.
    assert min(one.points_lost for one in alone.tries if "kept" not in one.name) > 5
    before = {name: value.clone() for name, value in student.state_dict().items()}
    settings = recovery.model_copy(update={"num_steps": 150, "lr": 0.03})
    learner = distil_for_int8(pair_of(student, teacher), sets.train, settings, scheme, Execution(cpu), seed=0)
    made = make_distilled(learner, float32, scheme, calibration, INPUT, tmp_path)
    assert isinstance(made, Variant)
    assert made.kept_higher == ()
    assert next(one.points_lost for one in made.tries if one.chosen) <= 1
    assert "after 150 steps of quantisation-aware distillation" in made.scheme
    assert Path(made.file.path) == tmp_path / "int8.onnx"
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_zeros_under_the_mask_are_zeros_in_the_int8_file(teacher, sets, recovery, cpu, tmp_path):
    student = copy.deepcopy(teacher)
    masks = global_magnitude_masks(student, 0.93)
    apply_masks(student, masks)
    float32 = exported(student, tmp_path)
    calibration = Calibration(sets.calibration, answers_of(teacher, sets.calibration, cpu), measure_of_classes(4))
    scheme = SCHEMES["tensorrt"]
    learner = distil_for_int8(pair_of(student, teacher, masks), sets.train, recovery, scheme, Execution(cpu), seed=0)
    made = make_distilled(learner, float32, scheme, calibration, INPUT, tmp_path, max_points_lost=100.0)
    stored = {
        weight.name.removesuffix("_quantized"): weight.is_zero for weight in weights_of(onnx.load(made.file.path))
    }
    for name, mask in masks.items():
        assert torch.from_numpy(stored[name])[~mask].all()


def test_what_even_distillation_does_not_reach_is_refused_with_all_tries(teacher, sets, recovery, cpu, tmp_path):
    float32 = exported(teacher, tmp_path)
    calibration = Calibration(sets.calibration, answers_of(teacher, sets.calibration, cpu), measure_of_classes(4))
    scheme, settings = SCHEMES["u8s8"], recovery.model_copy(update={"num_steps": 1})
    learner = distil_for_int8(pair_of(teacher, teacher), sets.train, settings, scheme, Execution(cpu), seed=0)
    made = make_distilled(learner, float32, scheme, calibration, INPUT, tmp_path, max_points_lost=-100.0)
    assert isinstance(made, RefusedVariant)
    assert made.reason.startswith("after 1 steps") or made.reason.startswith("after 1 step")
    assert len(made.tries) >= 4

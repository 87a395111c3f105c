from types import SimpleNamespace

import pytest
import torch

from edgerecover.artifacts import Descent, Lineage, Pattern, Precision, Rung
from edgerecover.config import load_profile, load_target
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
from edgerecover.models.pair.channels import SAME_CHANNELS
from edgerecover.models.pair.networks import Models
from edgerecover.recover.ladder import Recovered
from edgerecover.stages.precision import make_all, precisions_of
from tests.conftest import INPUT, NUM_CLASSES

FP32, FP16, INT8 = Precision
X86 = load_target("x86-avx512-vnni")


def test_what_the_target_can_use_is_made_float32_first():
    assert precisions_of(load_target("android-qnn"), ()) == (FP32, INT8)
    assert precisions_of(load_target("rtx-40"), ()) == (FP32, FP16, INT8)


def test_what_is_asked_for_is_made_beside_float32():
    assert precisions_of(X86, (INT8,)) == (FP32, INT8)
    assert precisions_of(X86, (FP32,)) == (FP32,)


def test_what_the_target_has_no_use_for_is_refused():
    with pytest.raises(BadInputError, match="no use for it; it takes fp32, int8"):
        precisions_of(load_target("android-qnn"), (FP16,))


@pytest.fixture
def make(teacher, sets, recovery, cpu, tmp_path):
    """Variants of the toy's teacher as its own student, by a profile that allows so many points to be lost."""

    def make(wanted, points=1.0, recovered=None):
        recovered = recovered or Recovered(teacher, ())
        facts = SimpleNamespace(sparsity=SimpleNamespace(pattern=Pattern.DENSE))
        models = Models(
            recovered.student, teacher, {}, INPUT, NUM_CLASSES, None, "toy", facts, facts, (), SAME_CHANNELS
        )
        profile = load_profile("smoke")
        gates = profile.gates.model_copy(update={"max_precision_loss_points": points})
        short = recovery.model_copy(update={"num_steps": 2})
        profile = profile.model_copy(update={"gates": gates, "recovery": short})
        exported = export(recovered.student, INPUT, tmp_path / "fp32.onnx", opset=18)
        return make_all(wanted, exported, recovered, models, sets, X86, profile, tmp_path, seed=0, compute=cpu)

    return make


def test_every_precision_is_a_file(make):
    made = make((FP32, FP16, INT8)).made
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

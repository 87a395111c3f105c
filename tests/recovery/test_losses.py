import pytest
import torch
import torch.nn.functional as F

from edgerecover.distributed import Ranks
from edgerecover.models.pair.channels import UNRELATED, ChannelMap
from edgerecover.recovery.losses import feature_loss, kd_loss
from tests.pairs import objective_of_classes


def test_the_kd_loss_is_the_divergence_of_softened_outputs(recovery):
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    p, q = (F.softmax(logits / 4.0, 1) for logits in (teacher, student))
    expected = float((p * (p / q).log()).sum(1).mean())
    plain = recovery.model_copy(update={"scale_by_temperature_squared": False})
    assert float(kd_loss(student, teacher, objective_of_classes(3), plain)) == pytest.approx(expected, rel=1e-4)
    assert float(kd_loss(student, teacher, objective_of_classes(3), recovery)) == pytest.approx(16 * expected, rel=1e-4)
    assert float(kd_loss(teacher, teacher, objective_of_classes(3), recovery)) == pytest.approx(0, abs=1e-6)


def test_the_feature_loss_weighs_blocks_alike_whatever_their_scale():
    f_t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    halved = {"small": f_t / 2, "large": 500 * f_t}
    assert float(feature_loss(halved, {"small": f_t, "large": 1000 * f_t})) == pytest.approx(0.25)
    assert float(feature_loss({"dead": torch.zeros(2)}, {"dead": torch.zeros(2)})) == 0


def test_features_of_a_narrower_student_are_compared_on_the_channels_it_kept():
    teacher = {"known": torch.rand(2, 4, 3, 3), "unknown": torch.rand(2, 4, 3, 3)}
    student = {"known": teacher["known"][:, [1, 3]], "unknown": torch.rand(2, 3, 3, 3)}
    channels = ChannelMap({"known": torch.tensor([1, 3]), "unknown": None})
    assert float(feature_loss(student, teacher, channels)) == 0.0
    assert float(feature_loss(student, teacher, ChannelMap({"known": torch.tensor([0, 2]), "unknown": None}))) > 0.0
    assert float(feature_loss({"unknown": student["unknown"]}, teacher, channels)) == 0.0


def test_features_of_another_architecture_are_compared_where_their_shapes_agree():
    f_t = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    teacher = {"same": f_t, "narrower": f_t}
    student = {"same": 0.5 * f_t, "narrower": f_t[:, :4], "absent": f_t}
    assert float(feature_loss(student, teacher, UNRELATED)) == pytest.approx(0.25)
    assert float(feature_loss({"narrower": f_t[:, :4]}, teacher, UNRELATED)) == 0.0


def test_feature_losses_of_shares_add_up(monkeypatch):
    """With the teacher's mean square over the whole batch, which no share knows alone."""
    random = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn((6, 4, 3, 3), generator=random) for _ in range(2))
    teacher[:3] *= 10
    expected = feature_loss({"block": student}, {"block": teacher})
    square = teacher.square().mean().reshape(1)
    monkeypatch.setattr(Ranks, "sum", lambda self, tensor: square)
    parts = [(slice(0, 2), 2 / 6), (slice(2, 6), 4 / 6)]
    found = sum(
        share * feature_loss({"block": student[rows]}, {"block": teacher[rows]}, share=share, ranks=Ranks(0, 2))
        for rows, share in parts
    )
    torch.testing.assert_close(found, expected)

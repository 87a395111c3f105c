import pytest
import torch

from edgerecover.synthesis.deep_inversion import Aim, dream, evidence_of
from edgerecover.synthesis.record.make import Recording
from edgerecover.synthesis.record.values import KINDS, RecordStatistics
from edgerecover.synthesis.statistics import Weighted, open_tap
from tests.pairs import objective_of_classes

CPU = torch.device("cpu")
TARGETS = torch.arange(64) % 4


@pytest.fixture(params=KINDS)
def record(request, teacher_without_bn, labelled):
    return Recording(request.param).record(teacher_without_bn, labelled, 4)


def test_draws_have_the_classes_means_and_covariances(record):
    random = torch.Generator().manual_seed(0)
    for block in record.blocks:
        drawn = block.draw(torch.full((4000,), 2), random)
        spread = block.factor_KRC[2].square().sum(0).sqrt()
        torch.testing.assert_close(drawn.mean(0), block.mean_KC[2], atol=0.1 * float(spread.max()), rtol=0)
        covariance = block.factor_KRC[2].T @ block.factor_KRC[2]
        torch.testing.assert_close(torch.cov(drawn.T), covariance, atol=0.15 * float(covariance.abs().max()), rtol=0)


def distance(teacher, record, images, targets, seed=0):
    with open_tap(teacher, [Weighted(1.0, RecordStatistics(record, CPU))]) as tap, torch.no_grad():
        tap.draw([len(images)], targets, torch.Generator().manual_seed(seed))
        teacher(images)
        return float(tap.distance())


def test_real_images_of_the_class_are_nearer_than_others(teacher_without_bn, record, real_images):
    images, labels = real_images
    own = distance(teacher_without_bn, record, images, labels)
    assert own < 0.8 * distance(teacher_without_bn, record, images, (labels + 1) % 4)
    assert own < 0.8 * distance(teacher_without_bn, record, torch.randn(images.shape), labels)


def test_dreams_come_nearer_to_the_record(teacher_without_bn, record, synthesis, cpu, input_spec):
    settings = synthesis.model_copy(update={"class_weight": 0.0, "num_steps": 60})
    bounds = tuple(torch.tensor(edge) for edge in input_spec.bounds())

    def made(weight):
        chosen = settings.model_copy(update={"record_weight": weight})
        with open_tap(teacher_without_bn, evidence_of(teacher_without_bn, chosen, record)) as tap:
            return dream(
                teacher_without_bn,
                tap,
                bounds,
                (64, 3, 8, 8),
                Aim(objective_of_classes(4), TARGETS),
                chosen,
                torch.Generator().manual_seed(0),
                cpu,
            )

    with_record, without = made(10.0), made(0.0)
    near, far = (distance(teacher_without_bn, record, images, TARGETS, seed=0) for images in (with_record, without))
    assert near < 0.7 * far
    # The record alone says what each class looks like: no class term was there.
    agreement = (teacher_without_bn(with_record).argmax(1) == TARGETS).float().mean()
    assert agreement > 0.9


def test_images_must_stay_where_they_are(teacher_without_bn, record):
    with open_tap(teacher_without_bn, [Weighted(1.0, RecordStatistics(record, CPU))]) as tap:
        assert tap.is_positional


def test_without_targets_classes_are_drawn(teacher_without_bn, record, real_images):
    assert distance(teacher_without_bn, record, real_images[0], None) > 0

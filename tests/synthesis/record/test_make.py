import numpy as np
import pytest
import torch

from edgerecover.errors import BadInputError
from edgerecover.models.network.digest import weights_sha256
from edgerecover.synthesis.record import make
from edgerecover.synthesis.record.make import Recording
from edgerecover.synthesis.record.nodes import read_nodes
from edgerecover.synthesis.record.values import KINDS
from edgerecover.synthesis.statistics import watch_places

NUM_CLASSES = 4


def nodes_of(teacher, block, images):
    with watch_places(teacher, [layer.place for layer in block.layers]) as seen, torch.no_grad():
        teacher(images)
        return read_nodes(block.layers, seen)


@pytest.mark.parametrize("kind", KINDS)
def test_gaussians_are_those_of_the_classes(teacher, labelled, real_images, kind):
    images, labels = real_images
    record = Recording(kind).record(teacher, labelled, NUM_CLASSES)
    assert (record.kind, record.num_images, record.num_classes) == (kind, 256, NUM_CLASSES)
    assert record.teacher_sha256 == weights_sha256(teacher)
    for block in record.blocks:
        coefficients = block.coefficients(nodes_of(teacher, block, images))
        for k in range(NUM_CLASSES):
            own = coefficients[labels == k]
            torch.testing.assert_close(block.mean_KC[k], own.mean(0), atol=1e-4, rtol=1e-3)
            # The factor holds the largest directions, so it never says more than there is, and nearly all of it.
            kept, there = block.factor_KRC[k].square().sum(), own.var(0).sum()
            assert 0.7 * there < kept <= 1.001 * there
            covariance = torch.cov(own.T).reshape(own.shape[1], own.shape[1])
            first = block.factor_KRC[k, 0]
            size = float(first.square().sum())
            assert float(first @ covariance @ first) / size == pytest.approx(size, rel=1e-2)


def test_kinds_speak_of_the_layers_their_names_say(teacher, labelled):
    of_kind = {kind: Recording(kind).record(teacher, labelled, NUM_CLASSES).blocks for kind in KINDS}
    names = [layer.name for layer in of_kind["joint"][0].layers]
    assert names == ["0", "3", "6", "11"]
    assert [[layer.name for layer in block.layers] for block in of_kind["all-layers"]] == [[name] for name in names]
    assert [[layer.name for layer in block.layers] for block in of_kind["layer-pairs-spectral"]] == [
        names[i : i + 2] for i in range(3)
    ]
    assert [layer.name for layer in of_kind["top-layer"][0].layers] == names[-1:]
    (spectral,) = of_kind["all-layers-spectral"]
    num_nodes = sum(layer.num_nodes for layer in spectral.layers)
    assert spectral.basis_UC.shape == (num_nodes, round(0.1 * num_nodes))


def test_the_joint_components_hold_most_of_the_variance(teacher, labelled, real_images):
    (block,) = Recording("joint").record(teacher, labelled, NUM_CLASSES).blocks
    nodes = nodes_of(teacher, block, real_images[0])
    standard = (nodes - block.centre_U) / block.scale_U
    assert block.coefficients(nodes).square().sum() > 0.8 * standard.square().sum()
    gram = block.basis_UC.T @ block.basis_UC
    torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-4, rtol=0)


def test_the_same_images_give_the_same_record(teacher, labelled):
    torch.manual_seed(1)
    first = Recording("joint").record(teacher, labelled, NUM_CLASSES)
    torch.manual_seed(2)
    again = Recording("joint").record(teacher, labelled, NUM_CLASSES)
    torch.testing.assert_close(first.blocks[0].factor_KRC, again.blocks[0].factor_KRC, rtol=0, atol=0)


def test_noise_is_of_the_size_that_was_asked_for_and_new_each_time(teacher, labelled):
    (plain,) = Recording("all-layers").record(teacher, labelled, NUM_CLASSES).blocks[:1]
    noisy = [Recording("all-layers", noise=3.0).record(teacher, labelled, NUM_CLASSES).blocks[0] for _ in range(2)]
    standard_error = plain.factor_KRC.square().sum(1).sqrt() / (256 / NUM_CLASSES) ** 0.5
    errors = (noisy[0].mean_KC - plain.mean_KC) / standard_error.clamp_min(1e-6)
    assert float(errors.std()) == pytest.approx(3.0, rel=0.15)
    assert not torch.equal(noisy[0].mean_KC, noisy[1].mean_KC)
    assert (noisy[0].scale_U > 0).all()


def test_too_few_images_of_a_class_are_refused(teacher, labelled):
    few = labelled.labels != 2
    few[np.flatnonzero(~few)[:19]] = True
    poor = type(labelled)(labelled.input, labelled.images[few], labelled.labels[few])
    with pytest.raises(BadInputError, match="19 images of class 2, but a record needs at least 20"):
        Recording().record(teacher, poor, NUM_CLASSES)


def test_a_class_without_an_image_is_refused(teacher, labelled):
    with pytest.raises(BadInputError, match="0 images of class 4"):
        Recording().record(teacher, labelled, NUM_CLASSES + 1)


def test_of_more_images_than_fit_in_memory_some_are_taken(teacher, labelled, monkeypatch):
    (block,) = Recording("joint").record(teacher, labelled, NUM_CLASSES).blocks
    num_nodes = sum(layer.num_nodes for layer in block.layers)
    monkeypatch.setattr(make, "_MAX_NODE_BYTES", 4 * num_nodes * 150)
    assert Recording("joint").record(teacher, labelled, NUM_CLASSES).num_images == 150


def test_a_spectrum_of_too_many_nodes_is_refused(teacher, labelled, monkeypatch):
    monkeypatch.setattr(make, "MAX_NODES", 20)
    with pytest.raises(BadInputError, match="52 activations are too many"):
        Recording("all-layers-spectral").record(teacher, labelled, NUM_CLASSES)
    assert Recording("joint").record(teacher, labelled, NUM_CLASSES).blocks

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from edgerecover.synthesis.deep_inversion import Aim, dream, evidence_of
from edgerecover.synthesis.patch_similarity import PatchSimilarityEntropy, attentions_of, similarity_entropy
from edgerecover.synthesis.statistics import Weighted, open_tap
from tests.conftest import convnet, vit
from tests.pairs import objective_of_classes


def test_tokens_that_are_all_alike_have_less_entropy_than_tokens_that_differ():
    random = torch.Generator().manual_seed(0)
    alike = torch.ones(3, 40, 8) + 0.01 * torch.randn(3, 40, 8, generator=random)
    different = torch.randn(3, 40, 2, generator=random)
    assert (similarity_entropy(alike) < similarity_entropy(different) - 1).all()
    assert (similarity_entropy(different) <= math.log(2) + 1e-5).all()


def test_the_binned_entropy_is_that_of_the_kernel_estimate():
    """One Gaussian per pair, integrated on a fine grid, where the density does not reach the edges."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.ones(1, 30, 6) + torch.randn(1, 30, 6, generator=random)
    unit = F.normalize(tokens[0], dim=1)
    pairs = (unit @ unit.T)[tuple(torch.triu_indices(30, 30, 1))].clamp(max=0.9)
    grid = torch.linspace(-1.5, 1.5, 3001)
    density = torch.exp(-0.5 * ((grid[:, None] - pairs) / 0.05) ** 2).mean(1) / (0.05 * math.sqrt(2 * math.pi))
    expected = -torch.trapezoid(density * density.clamp_min(1e-12).log(), grid)
    assert float(similarity_entropy(tokens)) == pytest.approx(float(expected), abs=0.05)


def test_the_gradient_spreads_the_similarities():
    tokens = torch.ones(1, 20, 4) + 0.3 * torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(2))
    tokens.requires_grad_()
    before = similarity_entropy(tokens)
    (gradient,) = torch.autograd.grad(before.sum(), tokens)
    assert similarity_entropy(tokens + 0.02 * gradient / gradient.norm() * tokens.norm()) > before + 0.01


def test_many_tokens_are_thinned_out():
    torch.manual_seed(0)
    tokens = torch.randn(2, 4000, 3)
    all_alike = similarity_entropy(tokens[:, :190])
    torch.testing.assert_close(similarity_entropy(tokens), all_alike, atol=0.1, rtol=0)


def test_attention_is_found_by_its_outermost_modules():
    assert list(attentions_of(vit())) == [
        f"encoder.layers.encoder_layer_{number}.self_attention" for number in range(2)
    ]
    swin = torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3)
    assert list(attentions_of(swin)) == ["features.1.0.attn", "features.3.0.attn"]
    assert attentions_of(convnet()) == {}

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(4, 1)

    assert list(attentions_of(nn.Sequential(Attention()))) == ["0"]


def test_both_layouts_of_attention_are_read_as_images_by_tokens():
    """Without batch_first the tokens are the first axis."""
    torch.manual_seed(0)
    first = nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False)
    second = nn.MultiheadAttention(8, 2).requires_grad_(False)
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 10, 8)
    found = []
    for layer, tokens in ((first, x), (second, x.transpose(0, 1))):
        with open_tap(nn.Sequential(layer), [Weighted(1.0, PatchSimilarityEntropy(nn.Sequential(layer)))]) as tap:
            tap.draw([3], None, torch.Generator())
            layer(tokens, tokens, tokens, need_weights=False)
            found.append(float(tap.distance()))
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_only_transformers_without_batch_norm_have_the_prior(synthesis):
    with_prior = synthesis.model_copy(update={"patch_weight": 1.0})
    assert [type(term.statistics) for term in evidence_of(vit(), with_prior)] == [PatchSimilarityEntropy]
    assert evidence_of(vit(), synthesis) == ()
    assert evidence_of(convnet(norm=False), with_prior) == ()
    assert len(evidence_of(nn.Sequential(convnet(), vit()), with_prior)) == 1


def test_dreams_under_the_prior_have_more_entropy(synthesis, cpu):
    teacher = vit().requires_grad_(False)

    def entropy_of_dreams(weight):
        settings = synthesis.model_copy(update={"patch_weight": weight, "num_steps": 15, "start": "noise"})
        bounds = torch.full((3,), -2.0), torch.full((3,), 2.0)
        random = torch.Generator().manual_seed(0)
        with open_tap(teacher, evidence_of(teacher, settings)) as tap:
            aim = Aim(objective_of_classes(4), torch.arange(8) % 4)
            images = dream(teacher, tap, bounds, (8, 3, 16, 16), aim, settings, random, cpu)
        with open_tap(teacher, [Weighted(1.0, PatchSimilarityEntropy(teacher))]) as tap, torch.no_grad():
            tap.draw([8], None, random)
            teacher(images)
            return -float(tap.distance())

    assert entropy_of_dreams(10.0) > entropy_of_dreams(0.0) + 0.05

"""A prior from attention: in natural images, patches are alike in some places and different in others.

The prior of PSAQ-ViT (Li et al. 2022, arXiv 2203.02250), for transformers, which store no statistics: on noise all
patches look alike after self-attention, on photographs their cosine similarities spread. The differential entropy of
the similarities' density should be large.
"""

# Shapes: N images, T tokens (patches), D features of one, B bins, P pairs of tokens.
# ruff: noqa: TID253 - works on tensors throughout; only the synthesis stage imports it

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.synthesis.statistics import Distance, Place, Seen

_NUM_BINS = 64
"""Bins from -1 to 1."""
_BANDWIDTH = 0.05
"""Width of the Gaussian kernel, in units of cosine similarity."""
_MAX_TOKENS = 196
"""Tokens at most (14 × 14 patches), which bounds the pairs; of more, evenly spaced ones are used."""
_TINY = 1e-12


def attentions_of(network: nn.Module) -> dict[str, nn.Module]:
    """Outermost self-attention modules, by name: PyTorch's own, and those whose class name contains Attention."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and (isinstance(module, nn.MultiheadAttention) or "Attention" in type(module).__name__):
            found[name] = module
    return found


class PatchSimilarityEntropy:
    """Mean over attention layers and images of minus the entropy of the patches' similarities, in nats.

    At least -log 2: no density on [-1, 1] is wider than the uniform one. A layer whose output is not tokens with
    features, (N, T, D) or (N, H, W, D), is left out.
    """

    is_positional = False

    def __init__(self, teacher: nn.Module) -> None:
        self._is_batch_first = {
            Place(name): getattr(layer, "batch_first", True) for name, layer in attentions_of(teacher).items()
        }

    @property
    def places(self) -> tuple[Place, ...]:
        """The attention layers' outputs."""
        return tuple(self._is_batch_first)

    def draw(self, sizes: Sequence[int], targets_N: Tensor | None, generator: torch.Generator) -> Sequence[Distance]:
        """The distance, which is the same for every piece."""
        return [self._distance] * len(sizes)

    def _distance(self, seen: Seen) -> Tensor:
        terms = []
        for place, is_batch_first in self._is_batch_first.items():
            for output in seen.get(place, ()):
                if output.dim() in (3, 4):
                    tokens = output if is_batch_first else output.transpose(0, 1)
                    terms.append(-similarity_entropy(tokens.flatten(1, -2)).mean())
        return torch.stack(terms).mean() if terms else torch.zeros(())


def similarity_entropy(tokens_NTD: Tensor) -> Tensor:
    """Differential entropy (N,) in nats of each image's density of cosine similarities between its tokens.

    The density is a kernel estimate; similarities are shared between the two nearest of 64 bins and these are smoothed,
    instead of a kernel for each pair.
    """
    pairs_NP = _similarities(tokens_NTD)
    position_NP = (pairs_NP + 1) / 2 * (_NUM_BINS - 1)
    below_NP = position_NP.detach().floor().clamp(0, _NUM_BINS - 2).long()
    share_NP = position_NP - below_NP
    counts_NB = pairs_NP.new_zeros(len(pairs_NP), _NUM_BINS)
    counts_NB = counts_NB.scatter_add(1, below_NP, 1 - share_NP).scatter_add(1, below_NP + 1, share_NP)
    mass_NB = counts_NB / pairs_NP.shape[1] @ _smoothing(pairs_NP.device)
    width = 2 / _NUM_BINS
    return -(mass_NB * (mass_NB.clamp_min(_TINY) / width).log()).sum(1)


def _similarities(tokens_NTD: Tensor) -> Tensor:
    """Cosine similarities (N, P) of every pair of different tokens, in float32."""
    num_tokens = tokens_NTD.shape[1]
    if num_tokens > _MAX_TOKENS:
        chosen_T = torch.linspace(0, num_tokens - 1, _MAX_TOKENS, device=tokens_NTD.device).round().long()
        tokens_NTD = tokens_NTD[:, chosen_T]
    unit_NTD = F.normalize(tokens_NTD.float(), dim=2)
    similarity_NTT = unit_NTD @ unit_NTD.transpose(1, 2)
    num_tokens = tokens_NTD.shape[1]
    rows_P, columns_P = torch.triu_indices(num_tokens, num_tokens, offset=1, device=tokens_NTD.device)
    return similarity_NTT[:, rows_P, columns_P].clamp(-1, 1)


def _smoothing(device: torch.device) -> Tensor:
    """Gaussian kernel (B, B) between bins; each row sums to 1, at the edges too."""
    centre_B = torch.linspace(-1, 1, _NUM_BINS, device=device)
    kernel_BB = torch.exp(-0.5 * ((centre_B[:, None] - centre_B) / _BANDWIDTH).square())
    return kernel_BB / kernel_BB.sum(1, keepdim=True)

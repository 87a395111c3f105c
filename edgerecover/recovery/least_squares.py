"""Masked least squares that goes no further than unseen images confirm.

    min over w, b   E ‖y - w x - b‖² + λ ‖w - w₀‖²      w outside the mask stays zero

is solved by conjugate gradients from w₀, on all rows of w at once: each row has its own support, and would need its own
factorisation. Every iteration fits the samples a little closer, first along the directions that they determine
best, so the number of iterations is a regularisation (Hansen, Rank-Deficient and Discrete Ill-Posed
Problems, SIAM 1998, chapter 6). It is chosen by two-fold cross-validation over images: each half is fitted while the
error on the other half is tracked, and all samples are then fitted with the number of iterations that keeps most of the
reduction of both errors. That is none where the initial weights are best.
"""

# Shapes: G groups, N images, P positions, M samples, O outputs and I inputs of a group.
# ruff: noqa: TID253, N815 - works on tensors throughout, shapes are suffixes of fields too; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGE = 0.01
"""λ as a fraction of the inputs' mean square: keeps w where no image determines it, and is far above rounding."""
_GIVEN_BACK = 0.25
"""Share of the reduction of the error that may be lost again: all samples, twice as many, determine the fit further."""
_PATIENCE = 5
"""Iterations in a row with the error above that bound, after which no more are tried."""
_MAX_ITERATIONS = 100
_MIN_ITERATIONS = 4
"""A map that could afford fewer is left unchanged."""
_MAX_OPERATIONS = 1e12
"""Operations in all iterations of one map, which bounds the time: 512 channels of 3×3 get nine iterations."""
_PRODUCTS = 5
"""Products with Cov(x, x) per iteration: two descents, two errors, and the descent on all samples."""
_TOLERANCE = 1e-8
"""Convergence: the squared residual of every row, relative to its first."""
_ROUNDING = 1e-5
"""Rounding of an error that is a difference of moments, as a fraction of the outputs' variance."""
_TINY = 1e-30
"""Avoids a division by zero where an input or a whole row is dead."""


@dataclass(frozen=True)
class Fitted:
    """The fitted rows of one map."""

    weight_GOI: Tensor
    bias_GO: Tensor


def is_too_wide(num_outputs: int, num_inputs: int) -> bool:
    """Whether a map cannot be solved in reasonable time (num_outputs of all groups, num_inputs of one)."""
    return _num_iterations(num_outputs, num_inputs) < _MIN_ITERATIONS


def _num_iterations(num_outputs: int, num_inputs: int) -> int:
    return min(_MAX_ITERATIONS, int(_MAX_OPERATIONS / (2 * _PRODUCTS * num_outputs * num_inputs**2)))


def fit(x_GNPI: Tensor, y_GNPO: Tensor, start_GOI: Tensor, bias_GO: Tensor | None, mask_GOI: Tensor) -> Fitted | None:
    """Fit one map to samples; None where no fit to half of the images reduces the error on the other half.

    Args:
        x_GNPI: inputs, at some positions of some images, float32.
        y_GNPO: wanted outputs, float32.
        start_GOI: initial weights.
        bias_GO: initial bias; None where the map has none, and errors of the mean are left to the next layer.
        mask_GOI: True where a weight may differ from zero.
    """
    if x_GNPI.shape[1] == 1:  # then positions take the place of images
        x_GNPI, y_GNPO = x_GNPI.transpose(1, 2), y_GNPO.transpose(1, 2)
    num_iterations = _choose(x_GNPI, y_GNPO, start_GOI, bias_GO, mask_GOI)
    if num_iterations is None:
        return None
    moments = _Moments.of(x_GNPI, y_GNPO)
    w_GOI = start_GOI
    for number, w in enumerate(_descent(moments, start_GOI, mask_GOI)):
        w_GOI = w
        if number == num_iterations:
            break
    return Fitted(w_GOI, moments.bias_of(w_GOI))


def _choose(x_GNPI: Tensor, y_GNPO: Tensor, start_GOI: Tensor, bias_GO: Tensor | None, mask_GOI: Tensor) -> int | None:
    """How many iterations to make; None where the map is best left as it is."""
    one, other = (_Moments.of(x_GNPI[:, half::2], y_GNPO[:, half::2]) for half in range(2))
    has_bias = bias_GO is not None
    least = one.error(start_GOI, bias_GO) + other.error(start_GOI, bias_GO)
    if least <= _ROUNDING * (one.y_variance + other.y_variance):
        return 0  # it is right, and which of its digits are to be had from these images is chance
    first, errors = least, [least]  # those after no iteration, one, ...
    limit = _num_iterations(start_GOI.shape[0] * start_GOI.shape[1], start_GOI.shape[2])
    descents = zip(_descent(one, start_GOI, mask_GOI), _descent(other, start_GOI, mask_GOI), strict=False)
    for number, (w_one, w_other) in zip(range(limit + 1), descents, strict=False):
        error = other.error(w_one, one.bias_of(w_one) if has_bias else None)
        error += one.error(w_other, other.bias_of(w_other) if has_bias else None)
        errors[number:] = [error]
        least = min(least, error)
        if number >= _PATIENCE and all(error > _bound(first, least) for error in errors[-_PATIENCE:]):
            break
    good = [number for number, error in enumerate(errors) if error < first and error <= _bound(first, least)]
    return max(good, default=None)


def _bound(first: float, least: float) -> float:
    return least + _GIVEN_BACK * (first - least)


@dataclass(frozen=True)
class _Moments:
    """First and second moments of inputs x and wanted outputs y."""

    x_GI: Tensor
    y_GO: Tensor
    xx_GII: Tensor
    """Cov(x, x)"""
    yx_GOI: Tensor
    y_variance: float
    """Mean over all outputs."""
    ridge_G11: Tensor

    @classmethod
    def of(cls, x_GNPI: Tensor, y_GNPO: Tensor) -> _Moments:
        x_GMI, y_GMO = x_GNPI.flatten(1, 2), y_GNPO.flatten(1, 2)
        num_samples = x_GMI.shape[1]
        ridge_G11 = _RIDGE * x_GMI.square().mean((1, 2), keepdim=True)
        x_GI, y_GO = (values.mean(1, dtype=torch.float64).float() for values in (x_GMI, y_GMO))
        # Without their means, squares are summed to float32's rounding of the variance alone.
        x_GMI, y_GMO = x_GMI - x_GI.unsqueeze(1), y_GMO - y_GO.unsqueeze(1)
        x_GIM = x_GMI.transpose(1, 2) / num_samples
        yx_GOI = (x_GIM @ y_GMO).transpose(1, 2)
        return cls(x_GI, y_GO, x_GIM @ x_GMI, yx_GOI, float(y_GMO.square().mean()), ridge_G11)

    def bias_of(self, w_GOI: Tensor) -> Tensor:
        """What makes the outputs' mean right."""
        return self.y_GO - (w_GOI @ self.x_GI.unsqueeze(2)).squeeze(2)

    def error(self, w_GOI: Tensor, bias_GO: Tensor | None) -> float:
        """Mean square over outputs; without a bias, around the mean."""
        square_GOI = w_GOI * (w_GOI @ self.xx_GII - 2 * self.yx_GOI)
        around = self.y_variance + float(square_GOI.sum(2, dtype=torch.float64).mean())
        return around if bias_GO is None else around + float((self.bias_of(w_GOI) - bias_GO).square().mean())


def _descent(moments: _Moments, start_GOI: Tensor, mask_GOI: Tensor) -> Iterator[Tensor]:
    """The start, and w after each iteration of conjugate gradients, preconditioned by the diagonal."""
    xx_GII, ridge_G11 = moments.xx_GII, moments.ridge_G11
    inverse_diagonal = 1 / (xx_GII.diagonal(dim1=1, dim2=2).unsqueeze(1) + ridge_G11).clamp_min(_TINY)
    w = start_GOI * mask_GOI
    residual = (moments.yx_GOI - w @ xx_GII) * mask_GOI
    direction = residual * inverse_diagonal
    size = first_size = (residual * direction).sum(2, keepdim=True)
    while True:
        yield w
        if not bool((size > _TOLERANCE * first_size).any()):
            return
        image = (direction @ xx_GII + ridge_G11 * direction) * mask_GOI
        step = size / (direction * image).sum(2, keepdim=True).clamp_min(_TINY)
        w = w + step * direction
        residual = residual - step * image
        last_size, size = size, (residual.square() * inverse_diagonal).sum(2, keepdim=True)
        direction = residual * inverse_diagonal + size / last_size.clamp_min(_TINY) * direction

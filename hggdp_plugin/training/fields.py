"""Random smooth fields, for phases, bias fields and contrast curves."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def smooth_field(coefficients: Tensor, size: Sequence[int]) -> Tensor:
    """Evaluate cosine series of low order.

    In float32 also under autocast: steps of a rounded field would be edges in the image.

    Args:
        coefficients (Tensor): Cosine coefficients (n, K, K).
        size (sequence of ints): Height and width.

    Returns:
        Tensor: Fields (n, *size) within [-1, 1], divided by the sum of the coefficients' magnitudes.
    """
    rows, columns = (_cosines(length, coefficients.shape[1], coefficients.device) for length in size)
    with torch.autocast(coefficients.device.type, enabled=False):
        field = torch.einsum("nij,iy,jx->nyx", coefficients, rows, columns)
    return field / coefficients.abs().sum((1, 2), keepdim=True).clamp_min(1e-6)


def smooth_curve(coefficients: Tensor, length: int) -> Tensor:
    """Evaluate one-dimensional cosine series, (n, K) coefficients, at ``length`` points: (n, length)."""
    with torch.autocast(coefficients.device.type, enabled=False):
        return coefficients @ _cosines(length, coefficients.shape[1], coefficients.device)


def decaying_coefficients(uniform: Tensor, decay: Tensor) -> Tensor:
    """Weight the coefficients of a cosine series so that they fall with their order.

    Args:
        uniform (Tensor): Coefficients (n, K, K) of equal weight.
        decay (Tensor): Exponent (n, 1, 1) of the order 1 + |k|^2.

    Returns:
        Tensor: Coefficients (n, K, K).
    """
    order = torch.arange(uniform.shape[1], device=uniform.device) ** 2
    return uniform * (1.0 + order[:, None] + order) ** -decay


@lru_cache(maxsize=32)
def _cosines(length: int, count: int, device: torch.device) -> Tensor:
    """Return the first cosines (count, length) of a series; kept, as every step draws fields of this size."""
    t = torch.linspace(0, math.pi, length, device=device)
    return torch.cos(torch.arange(count, device=device)[:, None] * t)

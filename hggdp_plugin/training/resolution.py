"""Random resolution: what a scan with a smaller part of k-space would have shown."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def resample(
    batch: Tensor, fraction: Tensor, spacing: Tensor, offset: Tensor, taper: Tensor, size: Sequence[int]
) -> Tensor:
    r"""Keep the center of k-space of each image, and sample the result on another grid.

    Images are continued by reflection at their borders, so that these do not ring: the spectrum is that of the cosine
    transform,

    .. math:: x(p) = \sum_{k < f L} w_k c_k^2 \sum_j \cos(\pi k (j + 1/2) / L) \, x_j \, \cos(\pi k p / L)

    along both axes, with weights w of 1 or, tapered, of a Hamming window.

    Args:
        batch (Tensor): Real images (n, channels, H, W).
        fraction (Tensor): Fraction f of k-space kept along each axis (n, 2).
        spacing (Tensor): Distance of the new pixels in old ones (n,).
        offset (Tensor): Start of the new field of view in old pixels (n, 2).
        taper (Tensor): Whether to apply the window (n,), bool.
        size (sequence of ints): Height and width of the new grid.

    Returns:
        Tensor: Images (n, channels, *size).
    """
    down, across = (
        _matrix(batch.shape[2 + axis], size[axis], fraction[:, axis], spacing, offset[:, axis], taper)
        for axis in range(2)
    )
    with torch.autocast(batch.device.type, enabled=False):
        return down[:, None] @ batch @ across[:, None].mT


def _matrix(length: int, size: int, fraction: Tensor, spacing: Tensor, offset: Tensor, taper: Tensor) -> Tensor:
    """Make the matrices (n, size, length) of :func:`resample` along one axis."""
    device = fraction.device
    order = torch.arange(length, device=device)
    cutoff = (fraction * length).round()[:, None]
    window = 0.54 + 0.46 * torch.cos(math.pi * order / cutoff)
    weight = torch.where(taper[:, None], window, 1.0) * (order < cutoff) * torch.where(order == 0, 1.0, 2.0) / length
    old = _cosine_transform(length, device)
    position = offset[:, None] + spacing[:, None] * (torch.arange(size, device=device) + 0.5)
    new = torch.cos(math.pi / length * position[:, :, None] * order)
    with torch.autocast(device.type, enabled=False):
        return (new * weight[:, None]) @ old


@lru_cache(maxsize=32)
def _cosine_transform(length: int, device: torch.device) -> Tensor:
    """Return the cosines (length, length) by order and pixel."""
    pixel = torch.arange(length, device=device)
    return torch.cos(math.pi / length * pixel[:, None] * (pixel + 0.5))

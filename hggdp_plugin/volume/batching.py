"""Batches: how many slices and coils are processed at a time."""

import math
from typing import NamedTuple

import sigpy as sp

from hggdp_plugin.memory import (
    NETWORK_BYTES_PER_PIXEL,
    USABLE_FRACTION,
    coil_bytes_per_pixel,
    coils_at_a_time,
    free_memory,
)

#: Largest number of slices that go through the network together. Larger batches are not faster.
MAX_SLICES, MAX_SLICES_GPU = 8, 32


class BatchSize(NamedTuple):
    """Slices and coils that are processed at a time. The rounding of the result depends on both."""

    slices: int
    coils: int


def choose_batch_size(
    shape: tuple[int, ...],
    n_slices: int,
    n_coils: int,
    *,
    cartesian: bool,
    device: sp.Device = sp.cpu_device,
    slices: int | None = None,
    coils: int | None = None,
) -> BatchSize:
    """Choose the batch size that fits into the free memory.

    Args:
        shape (tuple of ints): Matrix (y, x).
        n_slices (int): Number of slices to reconstruct.
        n_coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on the Cartesian grid.
        device (Device): Where the reconstruction runs.
        slices (int or None): Slices at a time, if the caller has decided.
        coils (int or None): Coils at a time, if the caller has decided.

    Returns:
        BatchSize: At most ``n_slices`` and ``n_coils``.
    """
    slices = min(slices or slices_at_a_time(shape, n_coils, cartesian, device), n_slices)
    return BatchSize(slices, coils or coils_at_a_time((slices, *shape), n_coils, cartesian, device))


def slices_at_a_time(shape: tuple[int, ...], n_coils: int, cartesian: bool, device: sp.Device) -> int:
    """Return how many slices fit into the free memory of a device together, at least 1.

    Args:
        shape (tuple of ints): Matrix (y, x).
        n_coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on the Cartesian grid.
        device (Device): Where the reconstruction runs.

    Returns:
        int: Number of slices.
    """
    limit = MAX_SLICES if device == sp.cpu_device else MAX_SLICES_GPU
    each = math.prod(shape) * (NETWORK_BYTES_PER_PIXEL + n_coils * coil_bytes_per_pixel(cartesian))
    return int(min(max(USABLE_FRACTION * free_memory(device) / each, 1), limit))

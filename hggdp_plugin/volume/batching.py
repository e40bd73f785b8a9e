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
MAX_SLICES, MAX_SLICES_GPU = 4, 32
#: More slices than any machine has room for, where the free memory is not known.
MANY_SLICES = 2**20


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
    threads: int = 1,
) -> BatchSize:
    """Choose the batch size that fits into the free memory, and leaves work for all threads.

    Args:
        shape (tuple of ints): Matrix (y, x), after the number of sets of maps if there are several.
        n_slices (int): Number of slices to reconstruct.
        n_coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on the Cartesian grid.
        device (Device): Where the reconstruction runs.
        slices (int or None): Slices at a time, if the caller has decided.
        coils (int or None): Coils at a time, if the caller has decided.
        threads (int): Batches that could be processed side by side, see :func:`batches_at_a_time`.

    Returns:
        BatchSize: At most ``n_slices`` and ``n_coils``.
    """
    if slices is None:
        limit = MAX_SLICES if device == sp.cpu_device else MAX_SLICES_GPU
        slices = min(slices_that_fit(shape, n_coils, cartesian, device) // threads, limit, -(-n_slices // threads))
    slices = max(1, min(slices, n_slices))
    return BatchSize(slices, coils or coils_at_a_time((slices, *shape), n_coils, cartesian, device))


def batches_at_a_time(
    shape: tuple[int, ...], size: BatchSize, n_batches: int, n_coils: int, *, cartesian: bool, threads: int
) -> int:
    """Return how many batches fit into the free memory together, at least 1.

    Args:
        shape (tuple of ints): Matrix (y, x).
        size (BatchSize): Size of a batch.
        n_batches (int): Number of batches.
        n_coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on the Cartesian grid.
        threads (int): Threads of the CPU.

    Returns:
        int: At most ``n_batches`` and ``threads``.
    """
    fit = slices_that_fit(shape, n_coils, cartesian, sp.cpu_device) // size.slices
    return max(1, min(fit, n_batches, threads))


def slices_that_fit(shape: tuple[int, ...], n_coils: int, cartesian: bool, device: sp.Device) -> int:
    """Return how many slices fit into the free memory of a device together.

    Args:
        shape (tuple of ints): Matrix (y, x).
        n_coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on the Cartesian grid.
        device (Device): Where the reconstruction runs.

    Returns:
        int: Number of slices, at most :data:`MANY_SLICES`.
    """
    each = math.prod(shape) * (NETWORK_BYTES_PER_PIXEL + n_coils * coil_bytes_per_pixel(cartesian))
    return int(min(USABLE_FRACTION * free_memory(device) / each, MANY_SLICES))

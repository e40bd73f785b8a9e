"""Virtual coils: fewer channels that carry nearly all of the signal."""

from math import prod

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array


def coil_compression(ksp: Array, number: int, ndim: int = 2) -> tuple[Array, float]:
    """Find the virtual coils that keep the most signal, by singular value decomposition.

    The virtual coils are orthonormal combinations of the coils, so that white noise stays white with the same variance.

    Args:
        ksp (array): k-space (..., coils, ky, kx), zero where not sampled; prewhitened, else noise counts as signal.
        number (int): Number of virtual coils, 1 to coils.
        ndim (int): Axes after that of the coils.

    Returns:
        tuple: Matrix, complex64 (number, coils) with orthonormal rows, and the fraction of the energy of ``ksp`` that
        is kept.

    Raises:
        ValueError: ``number`` is not between 1 and the number of coils.

    References:
        Buehrer, M., et al. (2007). Array compression for MRI with large coil arrays. MRM, 57(6), 1131-1139.
    """
    coils = ksp.shape[-ndim - 1]
    if not 1 <= number <= coils:
        raise ValueError(f"number: expected 1 to {coils} virtual coils, got {number}")
    with sp.get_device(ksp):
        # One slice at a time: a copy of all of them, coils first, could be too large.
        images = ksp.reshape(-1, coils, prod(ksp.shape[-ndim:]))
        covariance = sum(sp.to_device(image @ image.conj().T).astype(np.complex128) for image in images)
    values, vectors = np.linalg.eigh(covariance)  # ascending
    values = values.clip(0)
    kept = float(values[-number:].sum() / values.sum()) if values.any() else 1.0
    matrix = vectors[:, ::-1][:, :number].conj().T
    return sp.to_device(matrix.astype(np.complex64), sp.get_device(ksp)), kept


def compress_coils(matrix: Array, array: Array, ndim: int = 2) -> Array:
    """Combine the coils of k-space, or of coil sensitivity maps, to virtual coils.

    Args:
        matrix (array): Compression matrix (number, coils).
        array (array): Array (..., coils, ky, kx).
        ndim (int): Axes after that of the coils.

    Returns:
        array: Array (..., number, ky, kx), exactly zero where all coils are.
    """
    flat = matrix @ array.reshape(*array.shape[:-ndim], -1)
    return flat.reshape(*flat.shape[:-1], *array.shape[-ndim:])

r"""ESPIRiT on a coarse grid: sensitivity maps as eigenvectors of a smooth field of small matrices.

Patches of multi-coil k-space lie in a subspace with projector P. Averaged over all patches that cover a sample, P
becomes a convolution in k-space and a coils x coils matrix M(r) in every pixel r, and the maps are its eigenvectors of
eigenvalue 1. As a function of r, M is a trigonometric polynomial of the degree of the kernel: it and its eigenvectors
are smooth, so that a coarse grid and local interpolation are enough. Nothing here grows with the matrix but the last
interpolation. Everything works in any number of dimensions.

References:
    Uecker, M., et al. (2014). ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI. MRM, 71(3), 990-1001.
    Lobos, R. A., Chan, C.-C., & Haldar, J. P. (2024). New theory and faster computations for subspace-based sensitivity
    map estimation in multichannel MRI. IEEE TMI, 43(1), 286-296 (arXiv:2302.13431).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array

#: Singular values of the calibration matrix below this fraction of the largest count as noise.
THRESHOLD = 0.02
#: Eigenvalues of M between which the maps fade from 0 to their full norm.
CROP = (0.9, 0.95)
#: Mean eigenvalue in the object below which the calibration has failed. Above it, the crop is relative to the mean:
#: the smaller the calibration region, the lower are all eigenvalues.
MIN_EIGENVALUE = 0.8
#: Points per axis of the coarse grid, in two dimensions and in three, where the kernels are smaller.
GRID, GRID_3D = 64, 32
#: Iterations for the eigenvectors. They start at the coil images of the calibration region, which are nearly those.
ITERATIONS = 20
#: Standard deviation of the Gaussian that smooths the phase reference, as a fraction of the field of view, and how
#: often it is applied.
REFERENCE_WIDTH, REFERENCE_ITERATIONS = 1 / 16, 10
#: Largest field of matrices that is held in memory.
FIELD_BYTES = 2**28


@dataclass(frozen=True)
class CoarseMaps:
    """Maps on a coarse grid.

    Attributes:
        vectors (array): Unit vectors with smooth phase, complex64 (batch, sets, *grid, coils).
        values (array): Their eigenvalues, float32 (batch, sets, *grid).
        explained (array): Fraction of the energy of the calibration region that the maps explain, float32 (batch,).
    """

    vectors: Array
    values: Array
    explained: Array

    def interpolate(self, positions: Sequence[Array]) -> Array:
        """Interpolate the maps to a finer grid.

        Args:
            positions (list of arrays): Positions along each axis, in fields of view from the center.

        Returns:
            array: complex64 (batch, sets, coils, *positions), ordered by eigenvalue. The root sum of squares of a set
            is 1 where its eigenvalue is above :data:`CROP` and 0 where it is below.
        """
        xp = sp.get_array_module(self.vectors)
        weights = [_cubic(p, n) for p, n in zip(positions, self.values.shape[2:], strict=True)]
        maps = _normalize(_transform(self.vectors.reshape(-1, *self.vectors.shape[2:]), weights))
        values = self.values.reshape(-1, *self.values.shape[2:], 1)
        maps *= _soft_crop(_transform(values, weights))
        maps = xp.ascontiguousarray(xp.moveaxis(maps, -1, 1))
        return maps.reshape(*self.vectors.shape[:2], *maps.shape[1:])

    def replace(self, items: list[int], other: "CoarseMaps") -> None:
        """Replace some items of the batch, in place, by those of a smaller batch."""
        self.vectors[items], self.values[items], self.explained[items] = other.vectors, other.values, other.explained


def coarse_maps(calib: Array, kernel: tuple[int, ...] | None, matrix: tuple[int, ...], n_sets: int = 1) -> CoarseMaps:
    """Estimate maps on a coarse grid.

    Args:
        calib (array): Fully sampled centers of k-space, complex64 (batch, coils, *region), of magnitude about 1.
        kernel (tuple of ints or None): Size of the patches, smaller than the region. None: no ESPIRiT, but the coil
            images of the region divided by their root sum of squares, of eigenvalue 1.
        matrix (tuple of ints): Size of the image. The grid is not finer.
        n_sets (int): Sets of maps: number of eigenvectors.

    Returns:
        CoarseMaps: The maps; zero for items that are zero.
    """
    xp = sp.get_array_module(calib)
    finest = GRID if len(matrix) == 2 else GRID_3D
    grid = tuple(min(finest, n) for n in matrix)
    images = _low_resolution_images(calib, grid)
    energy = (abs(images) ** 2).sum(axis=-1)
    vectors = xp.zeros((len(calib), n_sets, *images.shape[1:]), xp.complex64)
    values = xp.zeros(vectors.shape[:-1], xp.float32)
    if kernel is None:
        vectors[:, 0], values[:, 0] = _normalize(images), 1
    else:
        for item, center in enumerate(calib):
            vectors[item], values[item] = _item_maps(_lags(center, kernel), images[item], n_sets)
        scale = _mean(values[:, 0], energy).clip(MIN_EIGENVALUE, 1)
        values /= scale.reshape(-1, *[1] * (values.ndim - 1))
    seen = abs((vectors.conj() * images[:, None]).sum(axis=-1)) ** 2 * _soft_crop(values) ** 2
    explained = _mean(seen.sum(axis=1) / _nonzero(energy), energy)
    aligned = align(vectors.reshape(-1, *images.shape[1:]), xp.repeat(energy, n_sets, axis=0))
    return CoarseMaps(aligned.reshape(vectors.shape), values, explained)


def positions(size: int, xp: ModuleType) -> Array:
    """Return the positions of the samples of a centered grid, in fields of view."""
    return (xp.arange(size) - size // 2) / size


def align(vectors: Array, energy: Array) -> Array:
    """Choose the phases of vectors (batch, *grid, coils) so that they vary as little as possible.

    They are aligned to a virtual coil, the first principal component of the maps, which is then replaced by the local
    average of the aligned vectors, and so on: a virtual coil that varies slowly has no zeros inside the object, as one
    coil or one principal component can have. The principal component has the phase of the first coil.

    Args:
        vectors (array): Maps, complex64 (batch, *grid, coils).
        energy (array): Weights of the pixels, float32 (batch, *grid).

    Returns:
        array: The maps with another phase in each pixel, normalized.
    """
    xp = sp.get_array_module(vectors)
    energy = energy[..., None]
    flat = vectors.reshape(len(vectors), -1, vectors.shape[-1])
    covariance = (flat * energy.reshape(len(vectors), -1, 1)).swapaxes(-1, -2) @ flat.conj()
    virtual = xp.stack([xp.linalg.eigh(c)[1][:, -1] for c in covariance])
    first = abs(virtual[:, :1])
    virtual = virtual * xp.where(first > 0, virtual[:, :1].conj() / _nonzero(first), 1)
    reference = virtual.reshape(len(virtual), *[1] * (vectors.ndim - 2), -1)
    blurs = [_gaussian(n, xp) for n in vectors.shape[1:-1]]

    def project(reference: Array) -> Array:
        return _normalize(vectors * (vectors.conj() * reference).sum(axis=-1, keepdims=True))

    for _ in range(REFERENCE_ITERATIONS):
        reference = _transform(project(reference) * energy, blurs)
    return project(reference)


def _lags(calib: Array, kernel: tuple[int, ...]) -> Array:
    """Return the signal projector of k-space patches, averaged along equal lags: (*2 kernel - 1, coils, coils)."""
    xp = sp.get_array_module(calib)
    coils, *region = calib.shape
    offsets = np.stack(np.meshgrid(*map(np.arange, kernel), indexing="ij"), axis=-1).reshape(-1, len(kernel))
    windows = [n - k + 1 for n, k in zip(region, kernel, strict=True)]
    patches = xp.stack([calib[_window(offset, windows)] for offset in offsets]).reshape(len(offsets) * coils, -1)
    # The smaller of the two Gram matrices gives the singular vectors.
    wide = patches.shape[0] <= patches.shape[1]
    gram = patches @ _h(patches) if wide else _h(patches) @ patches
    power, vectors = xp.linalg.eigh(gram)
    kept = power > THRESHOLD**2 * power[-1]
    vectors = vectors[:, kept] if wide else patches @ (vectors[:, kept] / xp.sqrt(power[kept]))
    adjoint = _h(vectors)
    vectors = vectors.reshape(len(offsets), coils, -1)
    lags = xp.zeros((*(2 * k - 1 for k in kernel), coils, coils), xp.complex64)
    for offset, block in zip(offsets, vectors, strict=True):
        index = tuple(xp.asarray((offsets - offset + np.asarray(kernel) - 1).T))
        lags[index] += (block @ adjoint).reshape(coils, len(offsets), coils).swapaxes(0, 1)
    return lags / len(offsets)


def _item_maps(lags: Array, images: Array, n_sets: int) -> tuple[Array, Array]:
    """Find the eigenvectors (sets, *grid, coils) and eigenvalues (sets, *grid), some rows of the grid at a time."""
    xp = sp.get_array_module(lags)
    grid = images.shape[:-1]
    rows = max(FIELD_BYTES // (8 * prod(grid[1:]) * lags.shape[-1] ** 2), 1)
    parts = [slice(first, first + rows) for first in range(0, grid[0], rows)]
    results = [_eigenvectors(_to_grid(lags, grid, part), images[part], n_sets) for part in parts]
    vectors, values = zip(*results, strict=True)
    return xp.concatenate(vectors, axis=1), xp.concatenate(values, axis=1)


def _window(offset: Array, shape: list[int]) -> tuple[slice, ...]:
    """Return the index of a window of all coils."""
    return (slice(None), *(slice(o, o + n) for o, n in zip(offset.tolist(), shape, strict=True)))


def _to_grid(lags: Array, grid: tuple[int, ...], rows: slice) -> Array:
    """Evaluate the field of matrices (*grid, coils, coils) in some rows of the grid."""
    xp = sp.get_array_module(lags)
    points = [positions(n, xp) for n in grid]
    points[0] = points[0][rows]
    waves = [xp.outer(p, xp.arange(n) - n // 2) for p, n in zip(points, lags.shape, strict=False)]
    field = _transform(
        lags.reshape(1, *lags.shape[:-2], -1), [xp.exp(-2j * np.pi * w).astype(xp.complex64) for w in waves]
    )
    return field.reshape(*field.shape[1:-1], *lags.shape[-2:])


def _low_resolution_images(calib: Array, grid: tuple[int, ...]) -> Array:
    """Return the coil images (batch, *grid, coils) of calibration regions, with a Hann window."""
    xp = sp.get_array_module(calib)
    bases = []
    for n, size in zip(grid, calib.shape[2:], strict=True):
        k = xp.arange(size) - size // 2
        window = xp.cos(np.pi * k / (size + 1)) ** 2
        bases.append((window * xp.exp(2j * np.pi * xp.outer(positions(n, xp), k))).astype(xp.complex64))
    return _transform(xp.moveaxis(calib, 1, -1), bases)


def _eigenvectors(field: Array, start: Array, n_sets: int) -> tuple[Array, Array]:
    """Find dominant eigenvectors (sets, ..., coils) and eigenvalues (sets, ...) of a field by subspace iteration.

    Where several eigenvalues are equal, the eigenvectors are those closest to ``start``, and vary as smoothly.
    """
    xp = sp.get_array_module(field)
    coils = field.shape[-1]
    # The other vectors start at fixed waves across the coils.
    waves = np.exp(2j * np.pi * np.outer(np.arange(1, n_sets), np.arange(coils)) / coils)
    others = [xp.broadcast_to(xp.asarray(wave, xp.complex64), start.shape) for wave in waves]
    vectors = _orthonormalize(xp.stack([start, *others], axis=-1))
    for iteration in range(ITERATIONS + 1):
        x = xp.stack(vectors, axis=-1)
        y = field @ x
        if iteration < ITERATIONS:
            vectors = _orthonormalize(y)
    values = (x.conj() * y).sum(axis=-2).real
    return xp.moveaxis(x, -1, 0), xp.moveaxis(values, -1, 0)


def _orthonormalize(matrix: Array) -> list[Array]:
    """Return orthonormal columns of a matrix (..., coils, sets) by Gram-Schmidt; those of zeros stay zero."""
    columns: list[Array] = []
    for j in range(matrix.shape[-1]):
        column = matrix[..., j]
        for other in columns:
            column = column - other * (other.conj() * column).sum(axis=-1, keepdims=True)
        columns.append(_normalize(column))
    return columns


def _transform(array: Array, bases: Sequence[Array]) -> Array:
    """Multiply the axes 1, 2, ... of an array (batch, *axes, n) by one matrix each."""
    dtype = array.dtype
    if all(basis.dtype.kind == "f" for basis in bases):
        array = array.view(array.real.dtype)  # half the work
    done = array.shape[:1]
    last = array.shape[-1]
    for basis in bases:
        array = basis @ array.reshape(prod(done), basis.shape[1], -1)
        done = (*done, len(basis))
    return array.reshape(*done, last).view(dtype)


def _cubic(points: Array, size: int) -> Array:
    """Return the weights (points, size) of periodic cubic convolution (Keys, a = -1/2) from a centered grid."""
    xp = sp.get_array_module(points)
    d = (points[:, None] - positions(size, xp)) * size
    d = abs((d + size / 2) % size - size / 2)
    near, far = (1.5 * d - 2.5) * d**2 + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return xp.where(d < 1, near, xp.where(d < 2, far, 0)).astype(xp.float32)


def _gaussian(size: int, xp: ModuleType) -> Array:
    """Return a periodic Gaussian smoothing matrix (size, size)."""
    d = positions(size, xp)[:, None] - positions(size, xp)
    d = (d + 0.5) % 1 - 0.5
    return xp.exp(-0.5 * (d / REFERENCE_WIDTH) ** 2).astype(xp.float32)


def _soft_crop(values: Array) -> Array:
    """Return the smooth step from 0 to 1 between the eigenvalues :data:`CROP`."""
    low, high = CROP
    t = ((values - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _mean(values: Array, weights: Array) -> Array:
    """Return the weighted mean (batch,) of values (batch, ...); 0 where all weights are."""
    values, weights = (a.reshape(len(a), -1) for a in (values, weights))
    return (values * weights).sum(axis=-1) / _nonzero(weights.sum(axis=-1))


def _normalize(vectors: Array) -> Array:
    """Divide vectors along the last axis by their norm; zeros stay zero."""
    return vectors / _nonzero(sp.get_array_module(vectors).linalg.norm(vectors, axis=-1, keepdims=True))


def _h(matrix: Array) -> Array:
    return matrix.conj().swapaxes(-1, -2)


def _nonzero(array: Array) -> Array:
    return sp.get_array_module(array).where(array > 0, array, 1)

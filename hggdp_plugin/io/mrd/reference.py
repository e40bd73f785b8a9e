"""Reference scans for coil calibration that have a matrix, and perhaps a field of view, of their own."""

import logging
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.cartesian_plan import CartesianPlan, KSpace, acquisition_energies, matrix_index
from hggdp_plugin.io.mrd.center import find_peak
from hggdp_plugin.io.mrd.header import Encoding
from hggdp_plugin.io.mrd.measurement import Measurement
from hggdp_plugin.io.mrd.oversampling import fit_readout
from hggdp_plugin.io.mrd.readout import Readout

_logger = logging.getLogger(__name__)

#: Relative difference of fields of view that count as equal.
FOV_TOLERANCE = 0.01
#: Largest matrix of a reference scan that is believed, relative to that of the image.
MAX_MATRIX_RATIO = 8


@dataclass(frozen=True)
class ResampledReadout(Readout):
    """A readout whose samples have another distance in k-space than those of the image.

    Attributes:
        own (int): Samples of a complete readout of its own.
        scale (float): Distance of its samples in units of that of the image.
    """

    own: int = 0
    scale: float = 1.0

    @property
    def stored(self) -> int:
        """Samples of the grid that the offset of a readout refers to."""
        return self.own

    def __call__(self, samples: np.ndarray, offset: int) -> np.ndarray:
        """Resample to the k-space positions of the image, then as :class:`Readout`."""
        count = samples.shape[-1]
        positions = self._positions(offset, count)
        kernel = resampling_matrix(count, self.own // 2 - offset, self.scale, positions)
        return super().__call__(samples @ kernel.T, self.encoded // 2 + int(positions[0]))

    def measured(self, offset: int, count: int) -> np.ndarray:
        """Find which of the cropped samples lie among the measured ones."""
        positions = self._positions(offset, count)
        return self._covered(self.encoded // 2 + int(positions[0]), len(positions))

    def _positions(self, offset: int, count: int) -> np.ndarray:
        center = self.own // 2 - offset
        low, high = np.ceil(-center * self.scale), np.floor((count - 1 - center) * self.scale)
        half = self.encoded // 2
        return np.arange(max(int(low), -half), min(int(high), self.encoded - 1 - half) + 1)


def plan_reference(measurement: Measurement, plan: CartesianPlan) -> CartesianPlan | None:
    """Find the index of every acquisition of a reference scan on its own matrix.

    Args:
        measurement (Measurement): What to read.
        plan (CartesianPlan): The plan of the image.

    Returns:
        CartesianPlan or None: None if there is no reference scan, or it does not fit the image.
    """
    encoding, wanted = measurement.classes.reference_encoding, measurement.classes.reference
    if encoding is None or not wanted.any():
        return None
    idx, acquisitions = measurement.headers["idx"], measurement.acquisitions
    with suppress(InputError):  # what does not fit is left out below
        encoding = fit_readout(encoding, acquisitions, wanted)
    nz, ny, nx = encoding.encoded.matrix
    is_3d = bool((idx["kspace_encode_step_2"][wanted] != 0).any())
    scale = plan.encoding.encoded.fov.x / encoding.encoded.fov.x
    readout = Readout(plan.readout.encoded, plan.readout.cropped, plan.is_3d)
    if abs(scale - 1) > FOV_TOLERANCE:
        readout = ResampledReadout(plan.readout.encoded, plan.readout.cropped, plan.is_3d, nx, scale)
    energy = acquisition_energies(measurement, wanted)
    ky = _place(idx["kspace_encode_step_1"], encoding.ky_center, ny, energy, "kspace_encode_step_1")
    kz = np.zeros(len(idx), np.int64)
    if is_3d:
        kz = _place(idx["kspace_encode_step_2"], encoding.kz_center, nz, energy, "kspace_encode_step_2")
    reference = CartesianPlan(encoding, plan.is_3d, readout, (nz if is_3d else 1, ny), kz, ky, wanted)
    fitting = acquisitions.kept_samples(wanted) <= readout.stored
    usable = wanted & reference.inside & fitting & np.isin(idx["slice"], measurement.frames.slices)
    problem = None
    if encoding.trajectory not in ("cartesian", "epi"):
        problem = f"its trajectory is {encoding.trajectory or 'unknown'}"
    elif is_3d != plan.is_3d:
        problem = "one of reference scan and image is 3D, the other 2D"
    elif max(encoding.encoded.matrix) > MAX_MATRIX_RATIO * max(plan.encoding.encoded.matrix):
        problem = "its matrix {} x {} x {} is far beyond that of the image".format(*encoding.encoded.matrix)
    elif not usable.any():
        problem = "its acquisitions lie outside the matrix or the slices of the image"
    elif (left_out := int((wanted & ~usable).sum())) > 0:
        _logger.warning("%d acquisitions of the reference scan lie outside its matrix or the slices.", left_out)
    if problem:
        _logger.warning("The reference scan in an encoding of its own is not used: %s.", problem)
        return None
    return CartesianPlan(encoding, plan.is_3d, readout, reference.shape, kz, ky, usable)


def _place(step: np.ndarray, center: int | None, size: int, energy: np.ndarray, name: str) -> np.ndarray:
    """Return the matrix index of encoding steps, with the center where k-space peaks if the header has another."""
    index, wanted = matrix_index(step, center, size), np.flatnonzero(energy)
    if not wanted.size:
        return index
    profile = np.zeros(int(step[wanted].max()) + 1)
    np.maximum.at(profile, step[wanted], energy[wanted])
    known = size // 2 if center is None else center
    if (peak := find_peak(profile, known)) is None:
        return index
    moved = matrix_index(step, peak, size)
    if np.sum((moved >= 0) & (moved < size) & (energy > 0)) < np.sum((index >= 0) & (index < size) & (energy > 0)):
        return index
    _logger.warning(
        "The reference scan peaks at %s %d, where the center in the header is %d: the peak is used as the center.",
        name,
        peak,
        known,
    )
    return moved


def to_image_grid(reference: KSpace, encoding: Encoding, plan: CartesianPlan) -> tuple[np.ndarray, np.ndarray]:
    """Bring the phase encodings of a reference scan to the k-space grid of the image.

    Args:
        reference (KSpace): k-space (slices, coils, *k) on the matrix of the reference scan.
        encoding (Encoding): The encoding of the reference scan.
        plan (CartesianPlan): The plan of the image.

    Returns:
        tuple: k-space (slices, coils, *k) on the matrix of the image, and its mask (slices, *k).
    """
    ksp, mask = reference.array, reference.mask
    target, own = plan.encoding.encoded.fov, encoding.encoded.fov
    axes = [(-1, plan.shape[1], target.y / own.y), (-2, plan.shape[0], target.z / own.z)]
    if not plan.is_3d:
        axes = [(-2, plan.shape[1], target.y / own.y)]
    for axis, size, scale in axes:
        ksp, mask = _resampled(ksp, mask, axis, size, scale)
    return np.ascontiguousarray(ksp), mask


def _resampled(ksp: np.ndarray, mask: np.ndarray, axis: int, size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Bring one axis to a matrix size and to the distance of samples of the image."""
    n = ksp.shape[axis]
    positions = np.arange(size) - size // 2
    if abs(scale - 1) <= FOV_TOLERANCE:
        source = positions + n // 2
        inside = (source >= 0) & (source < n)
        kept = np.take(ksp, np.clip(source, 0, n - 1), axis=axis)
        kept_mask = np.take(mask, np.clip(source, 0, n - 1), axis=axis)
    else:
        inside = (positions >= -(n // 2) * scale) & (positions <= (n - 1 - n // 2) * scale)
        kernel = resampling_matrix(n, n // 2, scale, positions)
        kept = np.moveaxis(np.moveaxis(ksp, axis, -1) @ kernel.T, -1, axis)
        # Interpolation needs all samples along the axis.
        kept_mask = np.repeat(mask.all(axis=axis, keepdims=True), size, axis=axis)
    shape = [1] * ksp.ndim
    shape[axis] = size
    inside = inside.reshape(shape)
    return np.where(inside, kept, 0).astype(np.complex64), kept_mask & inside[0]


def resampling_matrix(n: int, center: int, scale: float, positions: np.ndarray) -> np.ndarray:
    r"""Build the matrix that interpolates k-space of an object inside the field of view of its samples.

    Args:
        n (int): Number of samples.
        center (int): Index of the k-space center among them.
        scale (float): Distance of the samples in units of the target grid.
        positions (array): Positions on the target grid, relative to the k-space center.

    Returns:
        array: complex64 (positions, n), :math:`E_{mj} = \frac{1}{n} \sum_x e^{2 \pi i x (j - m / s) / n}`.
    """
    x = np.arange(n) - n // 2
    j = np.arange(n) - center
    matrix = np.exp(-2j * np.pi * np.outer(positions / scale, x) / n) @ np.exp(2j * np.pi * np.outer(x, j) / n)
    return (matrix / n).astype(np.complex64)

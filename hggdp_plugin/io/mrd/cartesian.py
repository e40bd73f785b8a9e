"""Cartesian acquisitions, 2D and 3D, placed in k-space."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import constants
from hggdp_plugin.io.mrd.frames import central_headers
from hggdp_plugin.io.mrd.kspace_grid import Grid, allocate
from hggdp_plugin.io.mrd.measurement import Measurement
from hggdp_plugin.io.mrd.readout import Readout, readout_offsets
from hggdp_plugin.io.raw import RawData

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CartesianPlan:
    """Where Cartesian acquisitions belong.

    Attributes:
        is_3d (bool): Whether there is a second phase encoding.
        readout (Readout): How readouts are cropped.
        shape (tuple of int): Encoded matrix (kz, ky).
        kz (array): kz index of each acquisition, int64 (acquisitions,).
        ky (array): ky index of each acquisition.
        usable (array): Which are image or calibration acquisitions inside the matrix, bool (acquisitions,).
    """

    is_3d: bool
    readout: Readout
    shape: tuple[int, int]
    kz: np.ndarray
    ky: np.ndarray
    usable: np.ndarray

    @property
    def distance(self) -> np.ndarray:
        """Distance of each acquisition from the k-space center."""
        return np.hypot(self.kz - self.shape[0] // 2, self.ky - self.shape[1] // 2)


@dataclass(frozen=True)
class KSpace:
    """Frames of k-space in the layout of :class:`RawData`, and the grid that fills them.

    Attributes:
        array (array): k-space, complex64 (*frames, coils, *k); in 3D the last frame axis counts positions along the
            readout, slab by slab.
        grid (Grid): A view of ``array``.
        n_positions (int): Positions along the readout that share a mask; 1 in 2D.
    """

    array: np.ndarray
    grid: Grid
    n_positions: int

    @classmethod
    def allocate(cls, measurement: Measurement, plan: CartesianPlan, frame_shape: tuple[int, ...]) -> "KSpace":
        """Make empty k-space.

        Args:
            measurement (Measurement): What is read.
            plan (CartesianPlan): Where it is placed.
            frame_shape (tuple of int): Length of the frame axes; the last one counts slices or slabs.

        Returns:
            KSpace: Zeros.

        Raises:
            InputError: If the array is too large.
        """
        (nz, ny), nx, coils = plan.shape, plan.readout.cropped, measurement.n_coils
        samples = int(measurement.headers["number_of_samples"][plan.usable].sum(dtype=np.int64))
        stored_bytes, source = 8 * coils * samples, measurement.acquisitions.source
        n_frames = math.prod(frame_shape)
        if plan.is_3d:
            array = allocate((n_frames, nx, coils, nz, ny), stored_bytes, source)
            grid = Grid(array.transpose(0, 3, 4, 2, 1), 1)
            return cls(array.reshape(*frame_shape[:-1], frame_shape[-1] * nx, coils, nz, ny), grid, nx)
        array = allocate((n_frames, coils, ny, nx), stored_bytes, source)
        return cls(array.reshape(*frame_shape, coils, ny, nx), Grid(array.transpose(0, 2, 1, 3)[:, None], nx), 1)

    @property
    def mask(self) -> np.ndarray:
        """Which samples were measured, bool (*frames, *k)."""
        frame_shape, k_shape = self.array.shape[:-3], self.array.shape[-2:]
        measured = self.grid.measured.reshape(-1, 1, *k_shape)
        measured = np.broadcast_to(measured, (len(measured), self.n_positions, *k_shape))
        return measured.reshape(*frame_shape, *k_shape)

    def add(self, wanted: np.ndarray, *readouts: np.ndarray) -> None:
        """Add some of the readouts, see :meth:`Grid.add`."""
        if wanted.all():
            self.grid.add(*readouts)
        elif wanted.any():
            self.grid.add(*(values[wanted] for values in readouts))


def read_cartesian(measurement: Measurement) -> RawData:
    """Read a Cartesian measurement.

    Args:
        measurement (Measurement): What to read.

    Returns:
        RawData: 2D slices, or a 3D measurement split along the readout.

    Raises:
        InputError: If an image acquisition lies outside the matrix, a sample is not finite, or sizes contradict each
            other.
    """
    plan = plan_cartesian(measurement)
    image, calib = _fill(measurement, plan)
    frames, encoding = measurement.frames, measurement.encoding
    filled = len(np.unique(frames.number[measurement.classes.image]))
    if empty := frames.n_frames - filled:
        _logger.warning("%d of %d frames have no acquisitions: they are zero.", empty, frames.n_frames)
    mask = image.mask
    return RawData(
        ksp=image.array,
        mask=mask,
        coord=None,
        calib=image.array[0, 0, 0, 0] if calib is None else calib.array,
        calib_mask=mask[0, 0, 0, 0] if calib is None else calib.mask,
        trajectory=encoding.trajectory or "cartesian",
        is_3d=plan.is_3d,
        whitened=measurement.whitened,
        noise_cov=measurement.prewhitening.covariance,
        grid=image.array.shape[-2:],
        fov_shape=encoding.fov_shape if plan.is_3d else encoding.fov_shape._replace(z=frames.shape[-1]),
        image_shape=measurement.image_shape(plan.is_3d),
        fov=encoding.recon.fov,
        acq_headers=central_headers(measurement.headers, frames, plan.distance),
        header=measurement.header.xml,
        source=measurement.acquisitions.source,
    )


def plan_cartesian(measurement: Measurement) -> CartesianPlan:
    """Find the index of every image and calibration acquisition in the encoded matrix.

    Args:
        measurement (Measurement): What to read.

    Returns:
        CartesianPlan: The plan.

    Raises:
        InputError: If an image acquisition lies outside the matrix.
    """
    encoding, classes = measurement.encoding, measurement.classes
    idx = measurement.headers["idx"]
    nz, ny, nx = encoding.encoded.matrix
    is_3d = bool((idx["kspace_encode_step_2"][classes.image] != 0).any())
    if nz > 1 and not is_3d:
        _logger.info("The encoded matrix has %d partitions, but no acquisition encodes them: read as 2D.", nz)
    kz = _index(idx["kspace_encode_step_2"], encoding.kz_center, nz) if is_3d else np.zeros(len(idx), np.int64)
    ky = _index(idx["kspace_encode_step_1"], encoding.ky_center, ny)
    shape = (nz if is_3d else 1, ny)
    inside = (ky >= 0) & (ky < shape[1]) & (kz >= 0) & (kz < shape[0])
    if (outside := classes.image & ~inside).any():
        number = int(np.argmax(outside))
        index = f"{ky[number]} of {ny}" if 0 <= kz[number] < shape[0] else f"{kz[number]} of {nz} partitions"
        raise InputError(
            measurement.acquisitions.location_of(number),
            f"its encoding step lies outside the matrix (index {index})",
            "correct the encoded matrix or the encoding limits in the header",
        )
    extra = classes.calibration & ~classes.image
    placed = extra & inside & np.isin(idx["slice"], measurement.frames.slices)
    if (left_out := int((extra & ~placed).sum())) > 0:
        _logger.warning("%d calibration acquisitions outside the matrix are left out.", left_out)
    if encoding.trajectory == "epi":
        _logger.warning("EPI: readouts are placed as they are, without ghost correction or regridding of ramp samples.")
    readout = Readout(nx, min(nx, encoding.fov_shape.x), is_3d)
    return CartesianPlan(is_3d, readout, shape, kz, ky, classes.image | placed)


def _index(step: np.ndarray, center: int | None, size: int) -> np.ndarray:
    return step.astype(np.int64) + (0 if center is None else size // 2 - center)


def _fill(measurement: Measurement, plan: CartesianPlan) -> tuple[KSpace, KSpace | None]:
    """Read all image and calibration acquisitions.

    Returns:
        tuple: Image k-space and calibration k-space, which is None if it is the first frame of the former.
    """
    frames, classes = measurement.frames, measurement.classes
    image = KSpace.allocate(measurement, plan, frames.shape)
    calib = fallback = None
    if (plan.usable & ~classes.image).any() or frames.shape[0] * frames.shape[2] > 1:
        calib = KSpace.allocate(measurement, plan, frames.shape[-1:])
        fallback = KSpace.allocate(measurement, plan, frames.shape[-1:])
    for numbers, samples, measured in _readouts(measurement, plan):
        readouts = (plan.kz[numbers], plan.ky[numbers], samples, measured)
        of_image = classes.image[numbers]
        image.add(of_image, frames.number[numbers], *readouts)
        if calib is not None and fallback is not None:
            marked = classes.calibration[numbers]
            counters = measurement.headers["idx"][numbers]
            first = (counters["contrast"] == frames.values[1][0]) & (counters["set"] == frames.values[3][0])
            slices = np.searchsorted(frames.slices, counters["slice"])
            calib.add(marked, slices, *readouts)
            fallback.add(of_image & ~marked & first, slices, *readouts)
    image.grid.average(measurement.whitened)
    _log_averages(image.grid.count)
    if calib is not None and fallback is not None:
        _fill_gaps(calib.grid, fallback.grid)
    return image, calib


def _fill_gaps(calib: Grid, fallback: Grid) -> None:
    """Average both grids and fill the gaps of the first from the second."""
    for grid in (calib, fallback):
        grid.average(False)
    gaps = (calib.count == 0) & (fallback.count > 0)
    calib.array[gaps] = fallback.array[gaps]
    calib.measured[gaps] = fallback.measured[gaps]


def _log_averages(count: np.ndarray) -> None:
    repeats = count[count > 0]
    if repeats.max(initial=0) > 1:
        low, high = int(repeats.min()), int(repeats.max())
        _logger.info("Readouts measured %s times are averaged.", low if low == high else f"{low} to {high}")


def _readouts(measurement: Measurement, plan: CartesianPlan) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Read the usable acquisitions: prewhitened, aligned, cropped and checked.

    Yields:
        tuple: Numbers of n acquisitions, their readouts (n, coils, x), and which samples of them were measured, bool
        (n, x); in 3D, bool (n, 1).
    """
    acquisitions = measurement.acquisitions
    kept = acquisitions.kept_samples(plan.usable)
    offset = readout_offsets(acquisitions, plan.usable, kept, plan.readout.encoded)
    reverse = acquisitions.flagged(constants.ACQ_IS_REVERSE)
    first = measurement.headers["discard_pre"].astype(np.int64)
    kinds = np.stack([offset, reverse, first, first + kept], axis=1)
    for numbers, samples in measurement.samples(plan.usable):
        for kind in np.unique(kinds[numbers], axis=0):
            mine = (kinds[numbers] == kind).all(axis=1)
            start, backwards, begin, end = (int(n) for n in kind)
            part = (samples if mine.all() else samples[mine])[..., begin:end]
            with np.errstate(over="ignore", invalid="ignore"):  # check_finite refuses the result
                placed = plan.readout(part[..., ::-1] if backwards else part, start)
            acquisitions.check_finite(placed, numbers[mine])
            # A sample that is exactly zero in all coils was not measured but filled in by the writer of the file.
            measured = plan.readout.measured(start, end - begin) & (placed != 0).any(axis=1)
            yield numbers[mine], placed, measured.any(axis=1, keepdims=True) if plan.is_3d else measured

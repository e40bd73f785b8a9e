"""Where Cartesian acquisitions belong in k-space."""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.center import find_peak
from hggdp_plugin.io.mrd.header import Encoding
from hggdp_plugin.io.mrd.kspace_grid import Grid, allocate
from hggdp_plugin.io.mrd.measurement import Measurement
from hggdp_plugin.io.mrd.oversampling import fit_readout
from hggdp_plugin.io.mrd.readout import Readout, readout_offsets

_logger = logging.getLogger(__name__)

#: Part of the matrix that the acquisitions of complete k-space reach across.
COMPLETE_FRACTION = 0.95


@dataclass(frozen=True)
class CartesianPlan:
    """Where Cartesian acquisitions belong.

    Attributes:
        encoding (Encoding): The encoding, its readout corrected to the acquisitions.
        is_3d (bool): Whether there is a second phase encoding.
        readout (Readout): How readouts are cropped.
        shape (tuple of int): Encoded matrix (kz, ky).
        kz (array): kz index of each acquisition, int64 (acquisitions,).
        ky (array): ky index of each acquisition.
        usable (array): Which are image or calibration acquisitions inside the matrix, bool (acquisitions,).
        readout_shift (int): How far the k-space center of readouts lies beyond their ``center_sample``.
    """

    encoding: Encoding
    is_3d: bool
    readout: Readout
    shape: tuple[int, int]
    kz: np.ndarray
    ky: np.ndarray
    usable: np.ndarray
    readout_shift: int = 0

    @property
    def distance(self) -> np.ndarray:
        """Distance of each acquisition from the k-space center."""
        return np.hypot(self.kz - self.shape[0] // 2, self.ky - self.shape[1] // 2)

    @property
    def inside(self) -> np.ndarray:
        """Which acquisitions lie inside the matrix, bool (acquisitions,)."""
        return (self.ky >= 0) & (self.ky < self.shape[1]) & (self.kz >= 0) & (self.kz < self.shape[0])

    def shifted(self, axis: str, shift: int) -> "CartesianPlan":
        """Move the k-space center along an axis.

        Args:
            axis (str): ``"ky"``, ``"kz"`` or ``"readout"``.
            shift (int): How far, in encoding steps or samples.

        Returns:
            CartesianPlan: The plan with the center there; calibration acquisitions that leave the matrix are dropped.
        """
        if axis == "readout":
            return replace(self, readout_shift=self.readout_shift + shift)
        moved = replace(self, **{axis: getattr(self, axis) - shift})
        return replace(moved, usable=moved.usable & moved.inside)

    def offsets(self, measurement: Measurement) -> tuple[np.ndarray, np.ndarray]:
        """Return the position of each usable acquisition on its grid, and how many samples of it are not discarded."""
        kept = measurement.acquisitions.kept_samples(self.usable)
        offset = readout_offsets(measurement.acquisitions, self.usable, kept, self.readout.stored)
        return offset - self.readout_shift, kept

    def fits(self, measurement: Measurement) -> bool:
        """Return whether all image acquisitions lie inside the matrix with all their samples."""
        image = measurement.classes.image
        offset, kept = self.offsets(measurement)
        on_readout = (offset >= 0) & (offset + kept <= self.readout.encoded)
        return bool((self.usable & on_readout)[image].all())

    def is_complete(self, axis: str, image: np.ndarray) -> bool:
        """Return whether acquisitions reach from one edge of an axis of k-space to the other."""
        if axis == "readout":
            return True  # a shorter readout could have been moved
        index, size = (self.ky, self.shape[1]) if axis == "ky" else (self.kz, self.shape[0])
        # Undersampling may leave out the last steps.
        return bool(np.ptp(index[image]) + 1 >= COMPLETE_FRACTION * size)

    def describe_center(self, axis: str, shift: int) -> str:
        """Describe where k-space peaks and where its center should be, for a log message."""
        if axis == "readout":
            half = self.readout.encoded // 2
            return f"k-space peaks at readout sample {half + shift}, where center_sample is {half}"
        if axis == "ky":
            step, size, center = "kspace_encode_step_1", self.shape[1], self.encoding.ky_center
        else:
            step, size, center = "kspace_encode_step_2", self.shape[0], self.encoding.kz_center
        known = size // 2 if center is None else center
        return f"k-space peaks at {step} {known + shift}, where the center in the header is {known}"


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


def plan_cartesian(measurement: Measurement) -> CartesianPlan:
    """Find the index of every image and calibration acquisition in the encoded matrix.

    Args:
        measurement (Measurement): What to read.

    Returns:
        CartesianPlan: The plan.

    Raises:
        InputError: If an image acquisition lies outside the matrix.
    """
    classes, acquisitions = measurement.classes, measurement.acquisitions
    encoding = fit_readout(measurement.encoding, acquisitions, classes.image)
    idx = measurement.headers["idx"]
    nz, ny, nx = encoding.encoded.matrix
    is_3d = bool((idx["kspace_encode_step_2"][classes.image] != 0).any())
    if nz > 1 and not is_3d:
        _logger.info("The encoded matrix has %d partitions, but no acquisition encodes them: read as 2D.", nz)
    if encoding.trajectory == "epi":
        _logger.warning("EPI: readouts are placed as they are, without ghost correction or regridding of ramp samples.")
    kz = matrix_index(idx["kspace_encode_step_2"], encoding.kz_center, nz) if is_3d else np.zeros(len(idx), np.int64)
    ky = matrix_index(idx["kspace_encode_step_1"], encoding.ky_center, ny)
    readout = Readout(nx, min(nx, encoding.fov_shape.x), is_3d)
    if ny > 1 < classes.image.sum() and not is_3d and not np.ptp(ky[classes.image]):
        step = int(idx["kspace_encode_step_1"][classes.image][0])
        raise InputError(
            acquisitions.location,
            f"all {int(classes.image.sum())} image acquisitions have kspace_encode_step_1 {step}, the matrix has {ny}",
            "convert the raw data with their counters",
        )
    plan = CartesianPlan(encoding, is_3d, readout, (nz if is_3d else 1, ny), kz, ky, classes.image)
    plan = _all_inside(measurement, plan)
    extra = classes.calibration & ~classes.image
    fitting = acquisitions.kept_samples(extra) <= nx
    placed = extra & plan.inside & fitting & np.isin(idx["slice"], measurement.frames.slices)
    if (left_out := int((extra & ~placed).sum())) > 0:
        _logger.warning("%d calibration acquisitions outside the matrix are left out.", left_out)
    return replace(plan, usable=classes.image | placed)


def matrix_index(step: np.ndarray, center: int | None, size: int) -> np.ndarray:
    """Return the matrix index of encoding steps, with the k-space center at size // 2."""
    return step.astype(np.int64) + (0 if center is None else size // 2 - center)


def _all_inside(measurement: Measurement, plan: CartesianPlan) -> CartesianPlan:
    """Check that image acquisitions lie inside the matrix, or move its center to where k-space peaks."""
    image, acquisitions = measurement.classes.image, measurement.acquisitions
    outside = image & ~plan.inside
    if not outside.any():
        return plan
    for axis, index, size in (("ky", plan.ky, plan.shape[1]), ("kz", plan.kz, plan.shape[0])):
        values = index[image]
        if np.ptp(values) < size and ((values < 0) | (values >= size)).any():
            energy = acquisition_energies(measurement, image)
            profile = np.zeros(int(np.ptp(values)) + 1)
            np.maximum.at(profile, values - values.min(), energy[image])
            peak = find_peak(profile, size // 2 - int(values.min()))
            if peak is not None:
                shift = peak + int(values.min()) - size // 2
                described = plan.describe_center(axis, shift)
                plan = plan.shifted(axis, shift)
                if not (image & ~plan.inside).any():
                    _logger.warning("%s: the peak is used as the center.", described)
                    return plan
    number = int(np.argmax(outside))
    ky, kz = int(plan.ky[number]), int(plan.kz[number])
    index_text = f"{ky} of {plan.shape[1]}" if 0 <= kz < plan.shape[0] else f"{kz} of {plan.shape[0]} partitions"
    raise InputError(
        acquisitions.location_of(number),
        f"its encoding step lies outside the matrix (index {index_text})",
        "correct the encoded matrix or the encoding limits in the header",
    )


def acquisition_energies(measurement: Measurement, wanted: np.ndarray) -> np.ndarray:
    """Read acquisitions and return the energy of each.

    Args:
        measurement (Measurement): What to read.
        wanted (array): Which acquisitions, bool (acquisitions,).

    Returns:
        array: float64 (acquisitions,); zero for those not wanted.

    Raises:
        InputError: If a sample is not finite.
    """
    energy = np.zeros(len(measurement.acquisitions))
    for numbers, samples in measurement.samples(wanted):
        measurement.acquisitions.check_finite(samples, numbers)
        energy[numbers] = (samples.real**2 + samples.imag**2).sum(axis=(1, 2), dtype=np.float64)
    return energy

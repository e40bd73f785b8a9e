"""Cartesian acquisitions, 2D and 3D, placed in k-space."""

import logging
from collections.abc import Iterator

import numpy as np

from hggdp_plugin.io.mrd._ismrmrd import constants
from hggdp_plugin.io.mrd.cartesian_plan import CartesianPlan, KSpace, plan_cartesian
from hggdp_plugin.io.mrd.center import Energy, find_peak
from hggdp_plugin.io.mrd.frames import central_headers
from hggdp_plugin.io.mrd.kspace_grid import Grid
from hggdp_plugin.io.mrd.measurement import Measurement
from hggdp_plugin.io.mrd.readout_spikes import SpikeLog, interpolate_spikes
from hggdp_plugin.io.mrd.reference import plan_reference, to_image_grid
from hggdp_plugin.io.raw import RawData, centered_region
from hggdp_plugin.spikes import leave_out_spikes

_logger = logging.getLogger(__name__)

#: Distance in samples between even and odd readouts that measurements without alternating direction do not have.
MAX_PARITY_SHIFT = 0.4
#: Part of the usual number of readouts that a frame has at least.
MIN_COMPLETE = 0.5
#: Correlation of image and calibration lines from which on they belong together, and difference of equal gains from 1.
MIN_CORRELATION, EQUAL_GAIN = 0.8, 0.1


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
    energy = Energy.empty(len(measurement.acquisitions), plan.ky[plan.usable], plan.readout.encoded)
    image, calib = _fill(measurement, plan, energy)
    if (recentered := _recentered(measurement, plan, energy)) is not None:
        plan = recentered
        image, calib = _fill(measurement, plan, None)
    _warn_of_lost_samples(measurement, plan)
    frames, encoding = measurement.frames, plan.encoding
    _, counts = np.unique(frames.number[measurement.classes.image], return_counts=True)
    if empty := frames.n_frames - len(counts):
        _logger.warning("%d of %d frames have no acquisitions: they are zero.", empty, frames.n_frames)
    if incomplete := int((counts < MIN_COMPLETE * np.median(counts)).sum()):
        _logger.warning(
            "%d of %d frames have less than half of the readouts of the others (%d to %d).",
            incomplete,
            frames.n_frames,
            counts.min(),
            counts.max(),
        )
    source = measurement.acquisitions.source
    mask = leave_out_spikes(image.array, image.mask, source)
    calib_ksp, calib_mask = _calibration(measurement, plan, image, calib)
    if not np.may_share_memory(calib_ksp, image.array):
        leave_out_spikes(calib_ksp, calib_mask, f"{source}, calibration")
    return RawData(
        ksp=image.array,
        mask=mask,
        coord=None,
        calib=calib_ksp,
        calib_mask=calib_mask,
        trajectory=encoding.trajectory or "cartesian",
        slice_axis="x" if plan.is_3d else "slice",
        whitened=measurement.whitened,
        noise_cov=measurement.prewhitening.covariance,
        grid=image.array.shape[-2:],
        fov_shape=encoding.fov_shape if plan.is_3d else encoding.fov_shape._replace(z=frames.shape[-1]),
        image_shape=measurement.image_shape(plan.is_3d),
        fov=encoding.recon.fov,
        acq_headers=central_headers(measurement.headers, frames, plan.distance),
        against_directions=measurement.header.against_directions,
        header=measurement.header.xml,
        source=source,
    )


def _fill(measurement: Measurement, plan: CartesianPlan, energy: Energy | None) -> tuple[KSpace, KSpace | None]:
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
    for numbers, samples, measured in _readouts(measurement, plan, energy):
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
    """Average both grids and fill the gaps of the first from the second.

    Calibration lines may have a receiver gain, or even a contrast, of their own. Lines that both have show it.
    """
    for grid in (calib, fallback):
        grid.average(False)
    both = (calib.count > 0) & (fallback.count > 0)
    gaps = (calib.count == 0) & (fallback.count > 0)
    gain = 1 + 0j
    if both.any() and gaps.any():
        a, b = calib.array[both].astype(np.complex128), fallback.array[both].astype(np.complex128)
        gain = complex(np.vdot(b, a) / (np.vdot(b, b).real or 1.0))
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        if abs(np.vdot(b, a)) < MIN_CORRELATION * norms:
            _logger.info("Calibration lines differ from image lines: only they are used for the coil maps.")
            return
        if abs(gain - 1) <= EQUAL_GAIN:
            gain = 1 + 0j
        else:
            _logger.info("Calibration lines have %.3g times the gain of image lines, which are scaled.", abs(gain))
    calib.array[gaps] = fallback.array[gaps] if gain == 1 else np.complex64(gain) * fallback.array[gaps]
    calib.measured[gaps] = fallback.measured[gaps]


def _log_averages(count: np.ndarray) -> None:
    repeats = count[count > 0]
    if repeats.max(initial=0) > 1:
        low, high = int(repeats.min()), int(repeats.max())
        _logger.info("Readouts measured %s times are averaged.", low if low == high else f"{low} to {high}")


def _readouts(
    measurement: Measurement, plan: CartesianPlan, energy: Energy | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Read the usable acquisitions: prewhitened, aligned, cropped and checked.

    Yields:
        tuple: Numbers of n acquisitions, their readouts (n, coils, x), and which samples of them were measured, bool
        (n, x); in 3D, bool (n, 1).
    """
    acquisitions = measurement.acquisitions
    offset, kept = plan.offsets(measurement)
    reverse = acquisitions.flagged(constants.ACQ_IS_REVERSE)
    first = measurement.headers["discard_pre"].astype(np.int64)
    kinds = np.stack([offset, reverse, first, first + kept], axis=1)
    spikes = SpikeLog(acquisitions.source)
    for numbers, samples in measurement.samples(plan.usable):
        for kind in np.unique(kinds[numbers], axis=0):
            mine = (kinds[numbers] == kind).all(axis=1)
            start, backwards, begin, end = (int(n) for n in kind)
            part = (samples if mine.all() else samples[mine])[..., begin:end]
            part = part[..., ::-1] if backwards else part
            with np.errstate(over="ignore", invalid="ignore"):  # check_finite refuses the result
                part, n_spikes = interpolate_spikes(part, start, plan.readout)
                spikes.add(n_spikes, measurement.headers["idx"]["slice"][numbers[mine]])
                placed = plan.readout(part, start)
                if energy is not None:
                    energy.add(part, numbers[mine], start, plan.ky[numbers[mine]])
            acquisitions.check_finite(placed, numbers[mine])
            # A sample that is exactly zero in all coils was not measured but filled in by the writer of the file.
            measured = plan.readout.measured(start, end - begin) & (placed != 0).any(axis=1)
            yield numbers[mine], placed, measured.any(axis=1, keepdims=True) if plan.is_3d else measured
    spikes.report()


def _warn_of_lost_samples(measurement: Measurement, plan: CartesianPlan) -> None:
    offset, kept = plan.offsets(measurement)
    outside = np.maximum(0, -offset) + np.maximum(0, offset + kept - plan.readout.stored)
    if (lost := int(outside[plan.usable].max(initial=0))) > 0:
        _logger.warning("Up to %d samples of a readout lie outside the encoded matrix and are left out.", lost)


def _recentered(measurement: Measurement, plan: CartesianPlan, energy: Energy) -> CartesianPlan | None:
    """Move the k-space center to where k-space peaks, if that is far from where the header says.

    Returns:
        CartesianPlan or None: None if the center remains.
    """
    image = measurement.classes.image
    if plan.encoding.trajectory != "epi" and energy.parity_shift > MAX_PARITY_SHIFT:
        _logger.warning(
            "Even and odd readouts lie %.1f samples apart: readouts of alternating direction (EPI) need a ghost"
            " correction, which is not made.",
            energy.parity_shift,
        )
    shifts = {}
    for name, index, size in (("ky", plan.ky, plan.shape[1]), ("kz", plan.kz, plan.shape[0])):
        profile = np.zeros(size)
        np.maximum.at(profile, index[image], energy.acquisition[image])
        if (peak := find_peak(profile, size // 2)) is not None:
            shifts[name] = peak - size // 2
    if (peak := find_peak(energy.readout.sum(axis=0), plan.readout.encoded // 2)) is not None:
        shifts["readout"] = peak - plan.readout.encoded // 2
    moved = plan
    for name, shift in shifts.items():
        candidate = moved.shifted(name, shift)
        described = plan.describe_center(name, shift)
        if candidate.fits(measurement):
            _logger.warning("%s: the peak is used as the center.", described)
            moved = candidate
        elif plan.is_complete(name, image):  # only the phase of the image depends on the center
            _logger.info("%s: the header is used.", described)
        else:
            _logger.warning("%s: the header is used, but its center or its matrix may be wrong.", described)
    return None if moved is plan else moved


def _calibration(
    measurement: Measurement, plan: CartesianPlan, image: KSpace, calib: KSpace | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return k-space for the coil maps, and its mask: of a reference scan on another matrix if that covers more."""
    ksp, mask = image.array[0, 0, 0, 0], image.mask[0, 0, 0, 0]
    if calib is not None:
        ksp, mask = calib.array, calib.mask
    reference_plan = plan_reference(measurement, plan)
    if reference_plan is None:
        return ksp, mask
    reference = KSpace.allocate(measurement, reference_plan, measurement.frames.shape[-1:])
    for numbers, samples, measured in _readouts(measurement, reference_plan):
        slices = np.searchsorted(measurement.frames.slices, measurement.headers["idx"]["slice"][numbers])
        reference.grid.add(slices, reference_plan.kz[numbers], reference_plan.ky[numbers], samples, measured)
    reference.grid.average(False)
    other_ksp, other_mask = to_image_grid(reference, reference_plan.encoding, plan)
    widths = [min(centered_region(np.asarray(m.all(axis=0)))) for m in (mask, other_mask)]
    if widths[1] <= widths[0]:
        return ksp, mask
    matrix = reference_plan.encoding.encoded.matrix
    _logger.info("Coil calibration: the reference scan on its own matrix of %d x %d.", matrix.y, matrix.x)
    return other_ksp, other_mask

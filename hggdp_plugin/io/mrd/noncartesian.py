"""Acquisitions along radial, spiral and other trajectories."""

import logging

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.frames import central_headers
from hggdp_plugin.io.mrd.header import Encoding
from hggdp_plugin.io.mrd.kspace_grid import allocate
from hggdp_plugin.io.mrd.measurement import Measurement
from hggdp_plugin.io.raw import RawData

_logger = logging.getLogger(__name__)

#: Largest coordinate that is believed in any unit.
MAX_COORDINATE = 1e6
#: Range of the largest coordinate of a trajectory in cycles per pixel: 0.5 reaches the edge of k-space.
PER_PIXEL_RANGE = (0.05, 0.51)
#: Range of the largest coordinate of a trajectory in cycles per field of view, relative to half the matrix size.
PER_FOV_RANGE = (0.5, 1.1)


def read_noncartesian(measurement: Measurement) -> RawData:
    """Read the image acquisitions of a non-Cartesian measurement.

    Args:
        measurement (Measurement): What to read.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If there is no trajectory, or it has the wrong dimension or unit, or the frames differ in the
            number of shots.
    """
    acquisitions, frames = measurement.acquisitions, measurement.frames
    numbers = np.flatnonzero(measurement.classes.image)
    _check_dimensions(measurement, numbers)
    shots = _shots(measurement, numbers)
    ksp, coord = _fill(measurement, numbers, shots)
    coord = _sigpy_units(coord, measurement.encoding, acquisitions.location)
    distance = np.full(len(acquisitions), np.inf)
    distance[shots.ravel()] = np.hypot(*np.moveaxis(coord, -1, 0)).min(axis=-1).ravel()
    one_trajectory = (coord == coord[:1]).all()
    image_shape = measurement.image_shape(is_3d=False)
    return RawData(
        ksp=ksp.reshape(*frames.shape, *ksp.shape[1:]),
        mask=None,
        coord=coord[0] if one_trajectory else coord.reshape(*frames.shape, *coord.shape[1:]),
        calib=None,
        calib_mask=None,
        trajectory=measurement.encoding.trajectory,
        is_3d=False,
        whitened=measurement.whitened,
        noise_cov=measurement.prewhitening.covariance,
        grid=image_shape[1:],
        fov_shape=image_shape,
        image_shape=image_shape,
        fov=measurement.encoding.recon.fov,
        acq_headers=central_headers(measurement.headers, frames, distance),
        header=measurement.header.xml,
        source=acquisitions.source,
    )


def _check_dimensions(measurement: Measurement, numbers: np.ndarray) -> None:
    dims = measurement.headers["trajectory_dimensions"][numbers]
    if (dims == 0).all():
        raise InputError(
            measurement.acquisitions.location,
            "the acquisitions carry no trajectory (traj), which only Cartesian data can do without",
            "convert the raw data with its trajectory",
        )
    wrong = ~np.isin(dims, (2, 3)) | (dims != dims[0])
    if wrong.any():
        index = int(np.argmax(wrong))
        raise InputError(
            measurement.acquisitions.location_of(numbers[index]),
            f"its trajectory has {dims[index]} dimensions",
            "give 2 (kx, ky) or 3 of them, the same for all acquisitions",
        )


def _shots(measurement: Measurement, numbers: np.ndarray) -> np.ndarray:
    """Arrange acquisition numbers as (frames, shots), in the order of their encoding step, then of time."""
    frames, location = measurement.frames, measurement.acquisitions.location
    frame = frames.number[numbers]
    counts = np.bincount(frame, minlength=frames.n_frames) if frames.n_frames <= len(numbers) else np.zeros(1, int)
    fewest = int(counts.min())
    if 2 * fewest < counts.max() or fewest == 0:
        raise InputError(
            location,
            f"the image frames have very different numbers of readouts ({fewest} to {counts.max()})",
            "remove the incomplete frames",
        )
    order = np.lexsort((numbers, measurement.headers["idx"]["kspace_encode_step_1"][numbers], frame))
    start = np.cumsum(counts) - counts
    if fewest < counts.max():
        _logger.warning("Frames have %d to %d readouts: the first %d of each are used.", fewest, counts.max(), fewest)
    shots: np.ndarray = numbers[order][start[:, None] + np.arange(fewest)]
    return shots


def _fill(measurement: Measurement, numbers: np.ndarray, shots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read samples (frames, coils, shots, samples) and coordinates (frames, shots, samples, 2) in the order (y, x)."""
    acquisitions, headers = measurement.acquisitions, measurement.headers
    kept = acquisitions.kept_samples(measurement.classes.image)[numbers]
    skipped = headers["discard_pre"][numbers].astype(int)
    if np.ptp(kept) or np.ptp(skipped):
        raise InputError(
            acquisitions.location,
            "the image acquisitions discard different samples",
            "convert one kind of readout per file",
        )
    begin, count, coils = int(skipped[0]), int(kept[0]), measurement.n_coils
    (n_frames, n_shots), stored_bytes = shots.shape, 8 * coils * len(numbers) * int(kept[0])
    ksp = allocate((n_frames, coils, n_shots, count), stored_bytes, acquisitions.source)
    coord = np.zeros((n_frames, n_shots, count, 2), np.float32)
    index = np.full((len(headers), 2), -1)
    index[shots.ravel()] = np.argwhere(shots >= 0)  # frame and shot of each acquisition
    for block, samples, k in measurement.trajectories(measurement.classes.image & (index[:, 0] >= 0)):
        samples = np.ascontiguousarray(samples[..., begin : begin + count])
        acquisitions.check_finite(samples, block)
        frame, shot = index[block].T
        ksp.transpose(0, 2, 1, 3)[frame, shot] = samples
        coord[frame, shot] = _in_plane(measurement, k[:, begin : begin + count], block)
    return ksp, coord


def _in_plane(measurement: Measurement, k: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Turn (kx, ky[, kz]) of shape (acquisitions, samples, dimensions) into (ky, kx)."""
    finite = (np.abs(k[..., :2]) < MAX_COORDINATE).all(axis=(1, 2))  # false for NaN
    if not finite.all():
        raise InputError(
            measurement.acquisitions.location_of(numbers[np.argmin(finite)]),
            "its trajectory is not finite",
            "convert the raw data again",
        )
    # In 2D some writers use a third column for density weights, which a model-based method does not need.
    if k.shape[-1] == 3 and measurement.encoding.encoded.matrix.z > 1 and np.any(k[..., 2]):
        raise InputError(
            measurement.acquisitions.location, "the trajectory is three-dimensional", "only 2D trajectories can be read"
        )
    return k[..., 1::-1]


def _sigpy_units(coord: np.ndarray, encoding: Encoding, location: str) -> np.ndarray:
    """Scale coordinates to cycles per field of view of the image, the unit of SigPy's NUFFT.

    The standard leaves the unit open. Two are in use: cycles per pixel of the encoded matrix (up to 0.5), and cycles
    per field of view (up to about half a matrix size).
    """
    encoded, recon = encoding.encoded, encoding.recon
    largest = float(np.abs(coord).max())
    zoom = np.array([recon.fov.y / encoded.fov.y, recon.fov.x / encoded.fov.x], np.float32)
    half = np.array([max(encoded.matrix[1:]), max(recon.matrix[1:])]) / 2
    if PER_PIXEL_RANGE[0] <= largest <= PER_PIXEL_RANGE[1]:
        _logger.info("Trajectory in cycles per pixel (largest coordinate %.3g).", largest)
        return coord * (zoom * np.array(encoded.matrix[1:], np.float32))
    if PER_FOV_RANGE[0] * min(half) <= largest <= PER_FOV_RANGE[1] * max(half):
        _logger.info("Trajectory in cycles per field of view (largest coordinate %.4g).", largest)
        of_recon = np.argmin(np.abs(half - largest)) == 1
        return coord if of_recon else coord * zoom
    raise InputError(
        location,
        f"the largest coordinate of the trajectory is {largest:.4g}, neither cycles per pixel (0.5)"
        f" nor cycles per field of view (about {half[1]:g})",
        "convert the trajectory to one of these units",
    )

"""Acquisitions along radial, spiral and other trajectories: in a plane, in stacks and in three dimensions."""

import logging

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.frames import central_headers
from hggdp_plugin.io.mrd.kspace_grid import allocate
from hggdp_plugin.io.mrd.measurement import Measurement
from hggdp_plugin.io.raw import RawData, SliceAxis
from hggdp_plugin.io.trajectory import KSpaceExtent, split_partitions, to_cycles_per_fov

_logger = logging.getLogger(__name__)

#: Largest plausible coordinate in any unit.
MAX_COORDINATE = 1e6
#: Largest plausible coordinate along z, relative to the edge of k-space.
MAX_KZ = 1.12


def read_noncartesian(measurement: Measurement) -> RawData:
    """Read the image acquisitions of a non-Cartesian measurement.

    Complete stacks of equal planar trajectories, such as stacks of stars, are split into partitions. Other
    three-dimensional trajectories remain one problem per slab.

    Args:
        measurement (Measurement): What to read.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If there is no trajectory, or it has the wrong dimension or unit, or the frames differ in the
            number of shots.
    """
    numbers = np.flatnonzero(measurement.classes.image)
    _check_dimensions(measurement, numbers)
    shots = _shots(measurement, numbers)
    ksp, coord = _fill(measurement, numbers, shots)
    coord = _scaled(measurement, coord, shots)
    distance = np.full(len(measurement.acquisitions), np.inf)
    distance[shots.ravel()] = np.sqrt((coord**2).sum(axis=-1)).min(axis=-1).ravel()
    headers = central_headers(measurement.headers, measurement.frames, distance)
    if coord.shape[-1] == 2:
        return _raw_data(measurement, "slice", ksp[:, None], coord, headers)
    encoding = measurement.encoding
    n_partitions, spacing = encoding.encoded.matrix.z, encoding.recon.fov.z / encoding.encoded.fov.z
    if (stack := split_partitions(ksp, coord, n_partitions, spacing)) is None:
        _logger.info("Three-dimensional trajectory: reconstructed as a volume.")
        return _raw_data(measurement, "slab", ksp[:, None], coord, headers)
    _logger.info("Stack of %d partitions: transformed along kz.", n_partitions)
    kept = min(n_partitions, encoding.fov_shape.z)
    first = n_partitions // 2 - kept // 2
    return _raw_data(measurement, "z", stack[0][:, first : first + kept], stack[1], headers)


def _raw_data(
    measurement: Measurement, slice_axis: SliceAxis, ksp: np.ndarray, coord: np.ndarray, headers: np.ndarray
) -> RawData:
    """Fill in the rest.

    Args:
        measurement (Measurement): What was read.
        slice_axis (SliceAxis): What the slices of the raw data count.
        ksp (array): k-space (frames, partitions, coils, shots, samples).
        coord (array): Coordinates (frames, shots, samples, axes), the same for all partitions.
        headers (array): Header nearest to the k-space center of each frame.
    """
    frame_shape, n_partitions = measurement.frames.shape, ksp.shape[1]
    recon = measurement.encoding.recon.matrix
    image_shape = measurement.image_shape(slice_axis != "slice")
    depth = {"slice": image_shape.z, "z": n_partitions, "slab": recon.z}[slice_axis]
    if (coord == coord[:1]).all():
        coord = coord[0]
    else:
        coord = np.repeat(coord, n_partitions, axis=0).reshape(*frame_shape[:-1], -1, *coord.shape[1:])
    return RawData(
        ksp=ksp.reshape(*frame_shape[:-1], -1, *ksp.shape[2:]),
        mask=None,
        coord=coord,
        calib=None,
        calib_mask=None,
        trajectory=measurement.encoding.trajectory,
        slice_axis=slice_axis,
        whitened=measurement.whitened,
        noise_cov=measurement.prewhitening.covariance,
        grid=tuple(recon) if slice_axis == "slab" else tuple(recon[1:]),
        fov_shape=recon._replace(z=depth),
        image_shape=image_shape,
        fov=measurement.encoding.recon.fov,
        acq_headers=headers,
        against_directions=measurement.header.against_directions,
        header=measurement.header.xml,
        source=measurement.acquisitions.source,
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
    """Arrange acquisition numbers as (frames, shots), in the order of their encoding steps, then of time."""
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
    idx = measurement.headers["idx"][numbers]
    order = np.lexsort((numbers, idx["kspace_encode_step_2"], idx["kspace_encode_step_1"], frame))
    start = np.cumsum(counts) - counts
    if fewest < counts.max():
        _logger.warning("Frames have %d to %d readouts: the first %d of each are used.", fewest, counts.max(), fewest)
    shots: np.ndarray = numbers[order][start[:, None] + np.arange(fewest)]
    return shots


def _fill(measurement: Measurement, numbers: np.ndarray, shots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read samples (frames, coils, shots, samples) and coordinates (frames, shots, samples, axes), in order x, y, z."""
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
    coord = np.zeros((n_frames, n_shots, count, int(headers["trajectory_dimensions"][numbers[0]])), np.float32)
    index = np.full((len(headers), 2), -1)
    index[shots.ravel()] = np.argwhere(shots >= 0)  # frame and shot of each acquisition
    for block, samples, k in measurement.trajectories(measurement.classes.image & (index[:, 0] >= 0)):
        samples = np.ascontiguousarray(samples[..., begin : begin + count])
        acquisitions.check_finite(samples, block)
        frame, shot = index[block].T
        ksp.transpose(0, 2, 1, 3)[frame, shot] = samples
        finite = (np.abs(k) < MAX_COORDINATE).all(axis=(1, 2))  # false for NaN
        if not finite.all():
            raise InputError(
                acquisitions.location_of(block[np.argmin(finite)]),
                "its trajectory is not finite",
                "convert the raw data again",
            )
        coord[frame, shot] = k[:, begin : begin + count]
    return ksp, coord


def _scaled(measurement: Measurement, coord: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """Turn stored coordinates (frames, shots, samples, axes) into SigPy's units, order (y, x) or (z, y, x).

    Partitions are given by the third coordinate, or by ``kspace_encode_step_2`` where it is zero or missing.
    """
    encoding, location = measurement.encoding, measurement.acquisitions.location
    encoded, recon = encoding.encoded, encoding.recon
    step = measurement.headers["idx"]["kspace_encode_step_2"][shots].astype(int)
    # In 2D some writers use a third column for density weights, which a model-based method does not need.
    has_kz = coord.shape[-1] == 3 and encoded.matrix.z > 1 and bool(coord[..., 2].any())
    n_axes = 3 if has_kz else 2
    zoom = np.divide(recon.fov, encoded.fov)
    extent = KSpaceExtent(encoded.matrix[-n_axes:], tuple(zoom[-n_axes:]), recon.fov[-n_axes:])
    scaled = to_cycles_per_fov(coord[..., :n_axes][..., ::-1], extent, location)
    if has_kz:
        top, edge = float(np.abs(scaled[..., 0]).max()), float(extent.edge[0])
        if top > MAX_KZ * edge:
            raise InputError(
                location,
                f"kz reaches {top:.4g} cycles per field of view, the edge of {encoded.matrix.z} partitions is {edge:g}",
                "correct the trajectory or the encoded matrix",
            )
        return scaled
    if not np.ptp(step):
        return scaled
    center = encoded.matrix.z // 2 if encoding.kz_center is None else encoding.kz_center
    kz = np.broadcast_to((step - center)[..., None, None] * zoom[0], (*scaled.shape[:-1], 1))
    if np.abs(step - center).max() > encoded.matrix.z / 2:
        raise InputError(
            location,
            f"partitions (kspace_encode_step_2) from {step.min()} to {step.max()} around {center} lie outside the"
            f" encoded matrix of {encoded.matrix.z}",
            "correct the encoded matrix or the encoding limits in the header",
        )
    return np.concatenate([kz.astype(np.float32), scaled], axis=-1)

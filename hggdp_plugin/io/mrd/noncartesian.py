"""Acquisitions along radial, spiral and other trajectories."""

import logging

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.classify import Frames, Selection
from hggdp_plugin.io.mrd.hdf5 import Lines, check_finite
from hggdp_plugin.io.mrd.header import Encoding
from hggdp_plugin.io.mrd.kspace_grid import allocate
from hggdp_plugin.io.mrd.readout import trimmed

_logger = logging.getLogger(__name__)


def read_trajectory(
    lines: Lines, selection: Selection, frames: Frames, whiten: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads the image lines of a non-Cartesian measurement.

    Args:
        lines (Lines): all acquisitions.
        selection (Selection): which are image lines.
        frames (Frames): the image frames.
        whiten (array or None): whitening matrix (coils, coils).

    Returns:
        tuple: samples, complex64 (repetition, contrast, phase, set, slice, coil, shots, samples); positions in SigPy's
        units and order (y, x), float32 (shots, samples, 2), with the frame axes before if frames differ; and the
        distance of each line from the k-space centre, (lines,).

    Raises:
        InputError: there is no trajectory, or it has the wrong dimension or unit, or frames differ in shots.
    """
    image, heads = selection.image, lines.heads
    numbers = np.flatnonzero(image)
    _check_heads(lines, numbers)
    shots = _shots(lines, frames, numbers)
    count = trimmed(heads[numbers], lines.where, numbers)
    if np.ptp(count) or np.ptp(heads["discard_pre"][numbers].astype(int)):
        raise InputError(
            f"{lines.where}/data", "the image lines discard different samples", "convert one kind of readout per file"
        )
    first, samples = int(heads["discard_pre"][numbers[0]]), int(count[0])
    coils = int(heads["active_channels"][numbers[0]])
    measured = 8 * coils * len(numbers) * samples
    n_frames, n_shots = len(shots), shots.shape[1]
    ksp = allocate((n_frames, coils, n_shots, samples), measured, lines.where)
    coord = np.zeros((n_frames, n_shots, samples, 2), np.float32)
    place = np.full((len(heads), 2), -1)
    place[shots.ravel()] = np.argwhere(shots >= 0)  # (frame, shot) of each line
    for block, data in lines.samples(image & (place[:, 0] >= 0)):
        with np.errstate(over="ignore", invalid="ignore"):
            data = data if whiten is None else whiten @ data
        data = np.ascontiguousarray(data[..., first : first + samples])
        check_finite(data, block, lines.where)
        ksp.transpose(0, 2, 1, 3)[place[block, 0], place[block, 1]] = data
    for block, k in lines.trajectories(image & (place[:, 0] >= 0)):
        coord[place[block, 0], place[block, 1]] = _in_plane(
            k[:, first : first + samples], block, selection, lines.where
        )
    coord = _sigpy_units(coord, selection.encoding, lines.where)
    distance = np.full(len(heads), np.inf)
    distance[shots.ravel()] = np.hypot(*np.moveaxis(coord, -1, 0)).min(axis=-1).ravel()
    shared = (coord == coord[:1]).all()
    coord = coord[0] if shared else coord.reshape(*frames.shape, *coord.shape[1:])
    return ksp.reshape(*frames.shape, *ksp.shape[1:]), coord, distance


def _check_heads(lines: Lines, numbers: np.ndarray) -> None:
    dims = lines.heads["trajectory_dimensions"][numbers]
    if (dims == 0).all():
        raise InputError(
            f"{lines.where}/data",
            "the lines carry no positions (traj), which only Cartesian data can do without",
            "convert the raw data with its trajectory",
        )
    wrong = ~np.isin(dims, (2, 3)) | (dims != dims[0])
    if wrong.any():
        line = int(np.argmax(wrong))
        raise InputError(
            f"{lines.where}/data line {numbers[line]}",
            f"its trajectory has {dims[line]} dimensions",
            "give 2 (kx, ky) or 3 of them, the same for all lines",
        )


def _shots(lines: Lines, frames: Frames, numbers: np.ndarray) -> np.ndarray:
    """Arranges line numbers as (frames, shots); shots are in the order of their encoding step, then of time."""
    frame = frames.number[numbers]
    n_frames = int(np.prod([float(n) for n in frames.shape]))
    counts = np.bincount(frame, minlength=n_frames) if n_frames <= len(numbers) else np.zeros(1, int)
    fewest = int(counts.min())
    if 2 * fewest < counts.max() or fewest == 0:
        raise InputError(
            f"{lines.where}/data",
            f"the image frames have very different numbers of readouts ({fewest} to {counts.max()})",
            "remove the incomplete frames",
        )
    order = np.lexsort((numbers, lines.heads["idx"]["kspace_encode_step_1"][numbers], frame))
    start = np.cumsum(counts) - counts
    if fewest < counts.max():
        _logger.info(f"Frames have {fewest} to {counts.max()} readouts: the first {fewest} of each are taken.")
    return numbers[order][start[:, None] + np.arange(fewest)]


def _in_plane(k: np.ndarray, numbers: np.ndarray, selection: Selection, where: str) -> np.ndarray:
    """Turns (kx, ky[, kz]) of shape (lines, samples, dims) into (ky, kx)."""
    if not (np.abs(k[..., :2]) < 1e6).all():  # false for NaN
        line = numbers[np.argmin((np.abs(k[..., :2]) < 1e6).all(axis=(1, 2)))]
        raise InputError(f"{where}/data line {line}", "its trajectory is not finite", "convert the raw data again")
    # In 2D some writers use a third column for density weights, for which a model-based method has no use.
    if k.shape[-1] == 3 and selection.encoding.encoded.matrix[2] > 1 and np.any(k[..., 2]):
        raise InputError(f"{where}/data", "the trajectory is three-dimensional", "only 2D trajectories can be read")
    return k[..., 1::-1]


def _sigpy_units(coord: np.ndarray, encoding: Encoding, where: str) -> np.ndarray:
    """Scales positions to cycles per field of view of the image, the unit of SigPy's NUFFT.

    The standard leaves the unit open. Two are in use: cycles per pixel of the encoded matrix (up to 0.5), and cycles
    per field of view (up to about half a matrix size).
    """
    encoded, recon = encoding.encoded, encoding.recon
    largest = float(np.abs(coord).max())
    zoom = np.array([recon.fov[1] / encoded.fov[1], recon.fov[0] / encoded.fov[0]], np.float32)
    sizes = np.array([max(encoded.matrix[:2]), max(recon.matrix[:2])])
    if 0.05 <= largest <= 0.51:
        _logger.info(f"Trajectory in cycles per pixel (largest {largest:.3g}).")
        return coord * (zoom * np.array(encoded.matrix[1::-1], np.float32))
    if min(sizes) / 4 <= largest <= 1.1 * max(sizes) / 2:
        nearest = int(np.argmin(np.abs(sizes / 2 - largest)))
        _logger.info(f"Trajectory in cycles per field of view (largest {largest:.4g}).")
        return coord if nearest == 1 else coord * zoom
    raise InputError(
        f"{where}/data",
        f"the trajectory's largest coordinate is {largest:.4g}, neither cycles per pixel"
        f" (0.5) nor cycles per field of view (about {sizes[1] / 2:g})",
        "convert the trajectory to one of these units",
    )

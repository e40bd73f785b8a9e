"""Cartesian acquisitions, 2D and 3D, placed in k-space."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.classify import REVERSE, Frames, Selection, central_heads, flagged
from hggdp_plugin.io.mrd.hdf5 import Lines, check_finite
from hggdp_plugin.io.mrd.kspace_grid import Grid, allocate
from hggdp_plugin.io.mrd.readout import Readout, offsets, trimmed

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cartesian:
    """Where Cartesian lines belong.

    Attributes:
        is_3d (bool): whether there is a second phase encoding.
        readout (Readout): how readouts are cropped.
        shape (tuple): encoded (kz, ky).
        rows (tuple of array): kz and ky index of each line, shape (lines,).
        usable (array): bool (lines,), image and calibration lines that have a place.
    """

    is_3d: bool
    readout: Readout
    shape: tuple[int, int]
    rows: tuple[np.ndarray, np.ndarray]
    usable: np.ndarray

    @property
    def distance(self) -> np.ndarray:
        """Distance of each line from the k-space centre, shape (lines,)."""
        return np.hypot(self.rows[0] - self.shape[0] // 2, self.rows[1] - self.shape[1] // 2)


def plan_cartesian(lines: Lines, selection: Selection, frames: Frames) -> Cartesian:
    """Finds the place of every image and calibration line in the encoded matrix.

    Args:
        lines (Lines): all acquisitions.
        selection (Selection): which are image and calibration lines.
        frames (Frames): the image frames.

    Returns:
        Cartesian: the plan.

    Raises:
        InputError: an image line lies outside the matrix.
    """
    encoding, idx = selection.encoding, lines.heads["idx"]
    nx, ny, nz = encoding.encoded.matrix
    is_3d = bool((idx["kspace_encode_step_2"][selection.image] != 0).any())
    if nz > 1 and not is_3d:
        _logger.info(f"The encoded matrix has {nz} partitions, but no line encodes them: read as 2D.")
    shape = (nz, ny) if is_3d else (1, ny)
    row_2 = _rows(idx["kspace_encode_step_2"], encoding.centre_2, nz) if is_3d else np.zeros(len(idx), np.int64)
    row_1 = _rows(idx["kspace_encode_step_1"], encoding.centre_1, ny)
    inside = (row_1 >= 0) & (row_1 < shape[1]) & (row_2 >= 0) & (row_2 < shape[0])
    if (selection.image & ~inside).any():
        line = int(np.argmax(selection.image & ~inside))
        place = f"{row_1[line]} of {ny}" if 0 <= row_2[line] < shape[0] else f"{row_2[line]} of {nz} partitions"
        raise InputError(
            f"{lines.where}/data line {line}",
            f"its encoding step lies outside the matrix (row {place})",
            "correct the encoded matrix or the encoding limits in the header",
        )
    slices = frames.values[-1]
    known = np.isin(idx["slice"], slices)
    extra = selection.calibration & ~selection.image
    if (extra & ~(inside & known)).any():
        _logger.info(f"{int((extra & ~(inside & known)).sum())} calibration lines outside the matrix are left out.")
    if encoding.trajectory == "epi":
        _logger.info("EPI: lines are placed as they are, without ghost correction or regridding of ramp samples.")
    cropped = max(1, round(nx * encoding.recon.fov[0] / encoding.encoded.fov[0]))
    usable = selection.image | (extra & inside & known)
    return Cartesian(is_3d, Readout(nx, min(nx, cropped), is_3d), shape, (row_2, row_1), usable)


def _rows(step: np.ndarray, centre: int | None, size: int) -> np.ndarray:
    return step.astype(np.int64) + (0 if centre is None else size // 2 - centre)


def place_cartesian(
    lines: Lines, selection: Selection, frames: Frames, plan: Cartesian, whiten: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads all image and calibration lines into k-space.

    Args:
        lines (Lines): all acquisitions.
        selection (Selection): which are image and calibration lines.
        frames (Frames): the image frames.
        plan (Cartesian): the place of each line.
        whiten (array or None): whitening matrix (coils, coils), applied to every line.

    Returns:
        tuple: image k-space, complex64 (repetition, contrast, phase, set, slice, coil, *k), its mask, bool, without
        the coil axis; calibration k-space, complex64 (slice, coil, *k), which may be a view of the former, and its
        mask.

    Raises:
        InputError: a sample is not finite, or sizes contradict each other.
    """
    heads = lines.heads
    coils = int(heads["active_channels"][selection.image][0])
    stored = 8 * coils * int(heads["number_of_samples"][plan.usable].sum(dtype=np.int64))
    image, image_grid = _frames(plan, frames.shape, coils, stored, lines.where)
    extra = plan.usable & ~selection.image
    alone = extra.any() or frames.shape[0] * frames.shape[2] > 1  # calibration that is not simply the first frame
    if alone:
        calib, calib_grid = _frames(plan, frames.shape[-1:], coils, stored, lines.where)
        fallback_grid = _frames(plan, frames.shape[-1:], coils, stored, lines.where)[1]
    for numbers, samples, measured in _readouts(lines, plan, whiten):
        row_2, row_1 = (row[numbers] for row in plan.rows)
        slices = np.searchsorted(frames.values[-1], heads["idx"]["slice"][numbers])
        mine = selection.image[numbers]
        _add(image_grid, mine, frames.number[numbers], row_2, row_1, samples, measured)
        if alone:
            marked = selection.calibration[numbers]
            counters = heads["idx"][numbers]
            first = (counters["contrast"] == frames.values[1][0]) & (counters["set"] == frames.values[3][0])
            _add(calib_grid, marked, slices, row_2, row_1, samples, measured)
            _add(fallback_grid, mine & ~marked & first, slices, row_2, row_1, samples, measured)
    image_grid.average(whiten is not None)
    repeats = image_grid.count[image_grid.count > 0]
    if repeats.max(initial=0) > 1:
        span = f"{repeats.min()}" if repeats.min() == repeats.max() else f"{repeats.min()} to {repeats.max()}"
        _logger.info(f"Lines measured {span} times are averaged.")
    mask = _mask(plan, image_grid, frames.shape)
    if not alone:
        return image, mask, image[0, 0, 0, 0], mask[0, 0, 0, 0]
    for grid in (calib_grid, fallback_grid):
        grid.average(False)
    gaps = (calib_grid.count == 0) & (fallback_grid.count > 0)
    calib_grid.array[gaps], calib_grid.measured[gaps] = fallback_grid.array[gaps], fallback_grid.measured[gaps]
    return image, mask, calib, _mask(plan, calib_grid, frames.shape[-1:])


def _frames(plan: Cartesian, lead: tuple[int, ...], coils: int, measured: int, where: str) -> tuple[np.ndarray, Grid]:
    """Allocates k-space with leading axes ``lead``; in 3D the readout positions multiply the last of them."""
    nz, ny = plan.shape
    nx, number = plan.readout.cropped, math.prod(lead)
    if plan.is_3d:
        array = allocate((number, nx, coils, nz, ny), measured, where)
        return array.reshape(*lead[:-1], lead[-1] * nx, coils, nz, ny), Grid(array.transpose(0, 3, 4, 2, 1), 1)
    array = allocate((number, coils, ny, nx), measured, where)
    return array.reshape(*lead, coils, ny, nx), Grid(array.transpose(0, 2, 1, 3)[:, None], nx)


def _mask(plan: Cartesian, grid: Grid, lead: tuple[int, ...]) -> np.ndarray:
    """The mask (*lead, *k) of a grid; in 3D the readout positions multiply the last axis of ``lead``."""
    if not plan.is_3d:
        return grid.measured.reshape(*lead, *grid.measured.shape[2:])
    nz, ny = plan.shape
    shape = (math.prod(lead), plan.readout.cropped, nz, ny)
    return np.broadcast_to(grid.measured[:, None, :, :, 0], shape).reshape(*lead[:-1], -1, nz, ny)


def _add(
    grid: Grid,
    wanted: np.ndarray,
    frame: np.ndarray,
    row_2: np.ndarray,
    row_1: np.ndarray,
    samples: np.ndarray,
    measured: np.ndarray,
) -> None:
    if not wanted.any():
        return
    if not wanted.all():
        frame, row_2, row_1, samples, measured = (a[wanted] for a in (frame, row_2, row_1, samples, measured))
    grid.add(frame, row_2, row_1, samples, measured)


def _readouts(
    lines: Lines, plan: Cartesian, whiten: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields line numbers, their readouts (lines, coils, x): whitened, aligned, cropped, checked, and their masks."""
    offset = offsets(lines, plan.usable, plan.readout.encoded)
    reverse = flagged(lines.heads, REVERSE)
    pre = lines.heads["discard_pre"].astype(np.int64)
    kinds = np.stack([offset, reverse, pre, pre + _kept(lines, plan.usable)], axis=1)
    for numbers, samples in lines.samples(plan.usable):
        if whiten is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
                samples = whiten @ samples
        for kind in np.unique(kinds[numbers], axis=0):
            mine = (kinds[numbers] == kind).all(axis=1)
            start, backwards, first, last = kind
            part = (samples if mine.all() else samples[mine])[..., first:last]
            with np.errstate(over="ignore", invalid="ignore"):
                placed = plan.readout(part[..., ::-1] if backwards else part, int(start))
            check_finite(placed, numbers[mine], lines.where)
            measured = plan.readout.measured(int(start), int(last - first)) & (placed != 0).any(axis=1)
            # A line, or a sample, that is exactly zero in all coils was not measured but filled in by its writer.
            yield numbers[mine], placed, measured.any(axis=1, keepdims=True) if plan.is_3d else measured


def _kept(lines: Lines, wanted: np.ndarray) -> np.ndarray:
    kept = np.zeros(len(wanted), np.int64)
    kept[wanted] = trimmed(lines.heads[wanted], lines.where, np.flatnonzero(wanted))
    return kept


def nearest_heads(lines: Lines, frames: Frames, plan: Cartesian) -> np.ndarray:
    """The header of the line nearest to the k-space centre of each frame."""
    return central_heads(lines.heads, frames, plan.distance)

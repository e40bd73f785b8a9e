"""Cartesian acquisitions, 2D and 3D, placed in k-space."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.calibration import centred_region
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.classify import REVERSE, Frames, Selection, central_heads, flagged
from hggdp_plugin.io.mrd.hdf5 import Lines, check_finite
from hggdp_plugin.io.mrd.kspace_grid import Grid, allocate
from hggdp_plugin.io.mrd.readout import Readout, offsets, trimmed


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


def plan_cartesian(lines: Lines, selection: Selection, frames: Frames, log: list[str]) -> Cartesian:
    """Finds the place of every image and calibration line in the encoded matrix.

    Args:
        lines (Lines): all acquisitions.
        selection (Selection): which are image and calibration lines.
        frames (Frames): the image frames.
        log (list of str): what was decided is appended.

    Returns:
        Cartesian: the plan.

    Raises:
        InputError: an image line lies outside the matrix.
    """
    encoding, idx = selection.encoding, lines.heads["idx"]
    nx, ny, nz = encoding.encoded.matrix
    is_3d = bool((idx["kspace_encode_step_2"][selection.image] != 0).any())
    if nz > 1 and not is_3d:
        log.append(f"The encoded matrix has {nz} partitions, but no line encodes them: read as 2D.")
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
        log.append(f"{int((extra & ~(inside & known)).sum())} calibration lines outside the matrix are left out.")
    if encoding.trajectory == "epi":
        log.append("EPI: lines are placed as they are, without ghost correction or regridding of ramp samples.")
    cropped = max(1, round(nx * encoding.recon.fov[0] / encoding.encoded.fov[0]))
    usable = selection.image | (extra & inside & known)
    return Cartesian(is_3d, Readout(nx, min(nx, cropped), is_3d), shape, (row_2, row_1), usable)


def _rows(step: np.ndarray, centre: int | None, size: int) -> np.ndarray:
    return step.astype(np.int64) + (0 if centre is None else size // 2 - centre)


def place_cartesian(
    lines: Lines, selection: Selection, frames: Frames, plan: Cartesian, whiten: np.ndarray | None, log: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Reads all image and calibration lines into k-space.

    Args:
        lines (Lines): all acquisitions.
        selection (Selection): which are image and calibration lines.
        frames (Frames): the image frames.
        plan (Cartesian): the place of each line.
        whiten (array or None): whitening matrix (coils, coils), applied to every line.
        log (list of str): what was decided is appended.

    Returns:
        tuple: image k-space, complex64 (repetition, contrast, phase, set, slice, coil, *k), and calibration k-space,
        complex64 (slice, coil, *k), which may be a view of the former.

    Raises:
        InputError: a sample is not finite, or sizes contradict each other.
    """
    heads = lines.heads
    coils = int(heads["active_channels"][selection.image][0])
    measured = 8 * coils * int(heads["number_of_samples"][plan.usable].sum(dtype=np.int64))
    image, image_grid = _frames(plan, frames.shape, coils, measured, lines.where)
    extra = plan.usable & ~selection.image
    alone = extra.any() or frames.shape[0] * frames.shape[2] > 1  # calibration that is not simply the first frame
    if alone:
        calib, calib_grid = _frames(plan, frames.shape[-1:], coils, measured, lines.where)
        fallback_grid = _frames(plan, frames.shape[-1:], coils, measured, lines.where)[1]
    for numbers, samples in _readouts(lines, plan, whiten, log):
        row_2, row_1 = (row[numbers] for row in plan.rows)
        slices = np.searchsorted(frames.values[-1], heads["idx"]["slice"][numbers])
        mine = selection.image[numbers]
        _add(image_grid, mine, frames.number[numbers], row_2, row_1, samples)
        if alone:
            marked = selection.calibration[numbers]
            counters = heads["idx"][numbers]
            first = (counters["contrast"] == frames.values[1][0]) & (counters["set"] == frames.values[3][0])
            _add(calib_grid, marked, slices, row_2, row_1, samples)
            _add(fallback_grid, mine & ~marked & first, slices, row_2, row_1, samples)
    image_grid.average(whiten is not None, log)
    if not alone:
        return image, image[0, 0, 0, 0]
    for grid in (calib_grid, fallback_grid):
        grid.average(False, [])
    gaps = (calib_grid.count == 0) & (fallback_grid.count > 0)
    calib_grid.array[gaps] = fallback_grid.array[gaps]
    return image, calib


def _frames(plan: Cartesian, lead: tuple[int, ...], coils: int, measured: int, where: str) -> tuple[np.ndarray, Grid]:
    """Allocates k-space with leading axes ``lead``; in 3D the readout positions multiply the last of them."""
    nz, ny = plan.shape
    nx, number = plan.readout.cropped, math.prod(lead)
    if plan.is_3d:
        array = allocate((number, nx, coils, nz, ny), measured, where)
        return array.reshape(*lead[:-1], lead[-1] * nx, coils, nz, ny), Grid(array.transpose(0, 3, 4, 2, 1))
    array = allocate((number, coils, ny, nx), measured, where)
    return array.reshape(*lead, coils, ny, nx), Grid(array.transpose(0, 2, 1, 3)[:, None])


def _add(
    grid: Grid, wanted: np.ndarray, frame: np.ndarray, row_2: np.ndarray, row_1: np.ndarray, samples: np.ndarray
) -> None:
    if wanted.all():
        grid.add(frame, row_2, row_1, samples)
    elif wanted.any():
        grid.add(frame[wanted], row_2[wanted], row_1[wanted], samples[wanted])


def _readouts(
    lines: Lines, plan: Cartesian, whiten: np.ndarray | None, log: list[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields line numbers and their readouts (lines, coils, x): whitened, aligned, cropped, checked."""
    offset = offsets(lines, plan.usable, plan.readout.encoded, log)
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
            yield numbers[mine], placed


def _kept(lines: Lines, wanted: np.ndarray) -> np.ndarray:
    kept = np.zeros(len(wanted), np.int64)
    kept[wanted] = trimmed(lines.heads[wanted], lines.where, np.flatnonzero(wanted))
    return kept


def sampled_centre(calib: np.ndarray, is_3d: bool) -> tuple[int, int]:
    """Measures the fully sampled centre that all slices have in common.

    Args:
        calib (array): k-space (slice, coil, *k).
        is_3d (bool): whether the slices are positions along one readout, and so sampled alike.

    Returns:
        tuple: its height and width.
    """
    sampled = (calib != 0).any(axis=1)
    return centred_region(sampled.any(axis=0) if is_3d else sampled.all(axis=0))


def nearest_heads(lines: Lines, frames: Frames, plan: Cartesian) -> np.ndarray:
    """The header of the line nearest to the k-space centre of each frame."""
    return central_heads(lines.heads, frames, plan.distance)

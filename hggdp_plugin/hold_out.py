"""Samples to hold out of a reconstruction, so that their prediction can be compared with what was measured."""

from typing import NamedTuple

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array
from hggdp_plugin.coil_maps import CALIB_WIDTH

#: Part of the samples, lines or shots outside the calibration region that is held out, and the smallest number of lines
#: or shots.
HELD_OUT_FRACTION, MIN_LINES = 0.05, 2
#: Part of its samples with which a line counts as whole: spikes are left out.
WHOLE = 0.9


class Split(NamedTuple):
    """Samples that are kept and samples that are held out.

    Attributes:
        kept (array): k-space weights of the samples that are kept, 0 for the others.
        y (array): The samples that are held out: on the Cartesian grid, or their shots.
        coord (array or None): Coordinates of these shots; None on the Cartesian grid.
        valid (array): Where ``y`` counts.
    """

    kept: Array
    y: Array
    coord: Array | None
    valid: Array


def hold_out(
    y: Array,
    weights: Array | None,
    coord: Array | None,
    seed: int,
    fraction: float = HELD_OUT_FRACTION,
) -> Split:
    """Choose samples outside the calibration region, whole lines or shots where the sampling has them.

    Args:
        y (array): k-space (..., coils, H, W), or (..., coils, shots, samples) with ``coord``. Slices of one mask have
            one choice.
        weights (None or array): k-space weights; None: 1 where ``y`` is not 0.
        coord (None or array): Non-Cartesian coordinates (shots, ..., 2).
        seed (int): Seed of the choice.
        fraction (float): Part of the samples outside the calibration region to hold out.

    Returns:
        Split: What is kept, and what is held out.
    """
    if coord is not None:
        return _hold_out_shots(y, weights, coord, seed, fraction)
    device = sp.get_device(y)
    if weights is None:
        weights = (y != 0).any(axis=-3, keepdims=True).astype(np.float32)
    weights = sp.to_device(weights, device)
    measured = sp.to_device(sp.get_array_module(y).broadcast_to(weights > 0, y.shape).any(axis=-3))
    masks = measured.reshape(-1, *measured.shape[-2:])
    # The same generator for all, so that slices of one mask have one choice.
    held = np.stack([hold_out_cartesian(mask, np.random.default_rng(seed), fraction) for mask in masks])
    valid = sp.to_device(held.reshape(measured.shape)[..., None, :, :], device)
    return Split(weights * ~valid, y * valid, None, valid)


def _hold_out_shots(y: Array, weights: Array | None, coord: Array, seed: int, fraction: float) -> Split:
    n_axes = coord.ndim - 1
    measured = np.ones(len(coord), bool)
    if weights is not None and weights.shape[-n_axes:][:1] == (len(coord),):
        host = sp.to_device(weights)
        measured = (host > 0).any(axis=tuple(axis for axis in range(host.ndim) if axis != host.ndim - n_axes))
    held = np.zeros(len(coord), bool)
    held[np.flatnonzero(measured)[hold_out_shots(int(measured.sum()), np.random.default_rng(seed), fraction)]] = True
    shots = held.reshape(-1, *[1] * (n_axes - 1))
    kept = (~shots).astype(np.float32) if weights is None else weights * sp.to_device(~shots, sp.get_device(weights))
    index = np.flatnonzero(held)
    held_coord = coord[index]
    outside = outside_calibration(sp.to_device(held_coord))
    valid = np.broadcast_to(outside, (*y.shape[: -n_axes - 1], 1, *outside.shape))
    return Split(kept, y.take(index, axis=-n_axes), held_coord, valid)


def hold_out_cartesian(mask: np.ndarray, rng: np.random.Generator, fraction: float = HELD_OUT_FRACTION) -> np.ndarray:
    """Choose samples of a Cartesian mask outside the calibration region: points, or whole lines if it has whole lines.

    Args:
        mask (array): Which samples were measured, bool (H, W).
        rng (Generator): Random generator.
        fraction (float): Part of them to hold out.

    Returns:
        array: The samples that are held out, bool (H, W). None are if nothing lies outside the calibration region.
    """
    for axis in (0, 1):
        lines = np.moveaxis(mask, axis, 0)
        measured: np.ndarray = np.any(lines, axis=1)
        # A contiguous range of lines that are alike is a partial readout, not a choice of lines.
        if _has_gaps(measured) and _are_alike(lines[measured]):
            outside = measured & ~_central(len(lines))
            held = np.zeros(len(lines), bool)
            held[_choose(np.flatnonzero(outside), MIN_LINES, rng, fraction)] = True
            return mask & np.expand_dims(held, 1 - axis)
    outside = mask & ~np.outer(*map(_central, mask.shape))
    held = np.zeros(mask.size, bool)
    held[_choose(np.flatnonzero(outside), 1, rng, fraction)] = True
    return held.reshape(mask.shape)


def hold_out_shots(n_shots: int, rng: np.random.Generator, fraction: float = HELD_OUT_FRACTION) -> np.ndarray:
    """Choose shots of a non-Cartesian measurement.

    Args:
        n_shots (int): Number of shots.
        rng (Generator): Random generator.
        fraction (float): Part of them to hold out.

    Returns:
        array: The shots that are held out, bool (n_shots,); at least one is not.
    """
    held = np.zeros(n_shots, bool)
    held[_choose(np.arange(n_shots), min(MIN_LINES, n_shots - 1), rng, fraction)] = True
    return held


def outside_calibration(coord: np.ndarray) -> np.ndarray:
    """Return which samples of a non-Cartesian measurement lie outside the calibration region.

    Args:
        coord (array): Coordinates (..., 2) in units of 1 / field of view.

    Returns:
        array: bool (...).
    """
    outside: np.ndarray = np.any(abs(coord) > CALIB_WIDTH / 2, axis=-1)
    return outside


def _are_alike(lines: np.ndarray) -> bool:
    """Return whether lines have the same samples, but for a few that were left out."""
    usual = lines.mean(axis=0) > 0.5
    return bool((lines <= usual).all() and (lines.sum(axis=1) >= WHOLE * max(usual.sum(), 1)).all())


def _has_gaps(measured: np.ndarray) -> bool:
    indices = np.flatnonzero(measured)
    return len(indices) > 0 and len(indices) <= indices[-1] - indices[0]


def _central(n: int) -> np.ndarray:
    """Return which indices of an axis of k-space belong to the calibration region."""
    return abs(np.arange(n) - n // 2) <= CALIB_WIDTH // 2


def _choose(candidates: np.ndarray, at_least: int, rng: np.random.Generator, fraction: float) -> np.ndarray:
    number = min(max(at_least, round(fraction * len(candidates))), len(candidates))
    return rng.choice(candidates, number, replace=False)

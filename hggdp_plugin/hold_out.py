"""Samples to hold out of a reconstruction, so that their prediction can be compared with what was measured."""

import numpy as np

from hggdp_plugin.coil_maps import CALIB_WIDTH

#: Part of the samples, lines or shots outside the calibration region that is held out, and the smallest number of lines
#: or shots.
HELD_OUT_FRACTION, MIN_LINES = 0.05, 2


def hold_out_cartesian(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose samples of a Cartesian mask outside the calibration region: points, or whole lines if it has whole lines.

    Args:
        mask (array): Which samples were measured, bool (H, W).
        rng (Generator): Random generator.

    Returns:
        array: The samples that are held out, bool (H, W). None are if nothing lies outside the calibration region.
    """
    for axis in (0, 1):
        lines = np.moveaxis(mask, axis, 0)
        measured: np.ndarray = np.any(lines, axis=1)
        # A contiguous range of lines that are alike is a partial readout, not a choice of lines.
        if _has_gaps(measured) and (lines[measured] == lines[measured][0]).all():
            outside = measured & ~_central(len(lines))
            held = np.zeros(len(lines), bool)
            held[_choose(np.flatnonzero(outside), MIN_LINES, rng)] = True
            return mask & np.expand_dims(held, 1 - axis)
    outside = mask & ~np.outer(*map(_central, mask.shape))
    held = np.zeros(mask.size, bool)
    held[_choose(np.flatnonzero(outside), 1, rng)] = True
    return held.reshape(mask.shape)


def hold_out_shots(n_shots: int, rng: np.random.Generator) -> np.ndarray:
    """Choose shots of a non-Cartesian measurement.

    Args:
        n_shots (int): Number of shots.
        rng (Generator): Random generator.

    Returns:
        array: The shots that are held out, bool (n_shots,); at least one is not.
    """
    held = np.zeros(n_shots, bool)
    held[_choose(np.arange(n_shots), min(MIN_LINES, n_shots - 1), rng)] = True
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


def _has_gaps(measured: np.ndarray) -> bool:
    indices = np.flatnonzero(measured)
    return len(indices) > 0 and len(indices) <= indices[-1] - indices[0]


def _central(n: int) -> np.ndarray:
    """Return which indices of an axis of k-space belong to the calibration region."""
    return abs(np.arange(n) - n // 2) <= CALIB_WIDTH // 2


def _choose(candidates: np.ndarray, at_least: int, rng: np.random.Generator) -> np.ndarray:
    number = min(max(at_least, round(HELD_OUT_FRACTION * len(candidates))), len(candidates))
    return rng.choice(candidates, number, replace=False)

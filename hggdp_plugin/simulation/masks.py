"""Which part of k-space an undersampled measurement takes: Cartesian masks and radial trajectories."""

from collections.abc import Sequence

import numpy as np
import sigpy.mri as mr
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def centre(size: int, width: int) -> slice:
    """The central ``width`` indices of an axis whose k-space centre is at ``size // 2``.

    Raises:
        ValueError: If the width is negative or does not fit.
    """
    if not 0 <= width <= size:
        raise ValueError(f"{width} calibration lines do not fit into {size} lines; ask for 0 to {size}")
    start = size // 2 - width // 2
    return slice(start, start + width)


def uniform_lines(num_lines: int, accel: float, calib: int = 0) -> Mask:
    """Every ``accel``-th line, as in parallel imaging, and the calibration lines on top of those.

    Args:
        num_lines: Number of phase-encode lines.
        accel: Distance of the lines outside the centre, at least 1; it need not be whole.
        calib: Number of fully sampled central lines.

    Returns:
        Mask of shape (num_lines,); the line at the k-space centre is always in it.

    Raises:
        ValueError: If ``accel`` is below 1 or the calibration does not fit.
    """
    _check_accel(accel)
    mask = np.zeros(num_lines, bool)
    steps = np.arange(-num_lines, num_lines + 1)
    lines = num_lines // 2 + np.floor(steps * accel + 0.5).astype(int)
    mask[lines[(lines >= 0) & (lines < num_lines)]] = True
    mask[centre(num_lines, calib)] = True
    return mask


def random_lines(num_lines: int, accel: float, calib: int = 0, seed: int = 0) -> Mask:
    """Random lines, denser towards the centre.

    Args:
        num_lines: Number of phase-encode lines.
        accel: Overall acceleration, calibration lines included: ``round(num_lines / accel)`` lines are taken.
        calib: Number of fully sampled central lines.
        seed: Seed of the choice.

    Returns:
        Mask of shape (num_lines,).

    Raises:
        ValueError: If ``accel`` is below 1, or the calibration lines alone are more than it allows.
    """
    return random_points((num_lines,), accel, calib, seed=seed)


def poisson_disc(shape: tuple[int, int], accel: float, calib: int = 0, seed: int = 0) -> Mask:
    """Variable-density Poisson-disc points, as two phase-encode directions would sample (``sigpy.mri.poisson``).

    Args:
        shape: Matrix size.
        accel: Overall acceleration, calibration included, met to 0.1; the corners of k-space are left out.
        calib: Width of the fully sampled central square.
        seed: Seed of the choice.

    Returns:
        Mask of the given shape.

    Raises:
        ValueError: If ``accel`` is not above 1, the calibration does not fit, or no such mask is found.
    """
    _check_accel(accel)
    if not 0 <= calib < min(shape):
        raise ValueError(f"a calibration square of {calib} must be smaller than the {shape[0]} x {shape[1]} matrix")
    mask = mr.poisson(shape, accel, calib=(calib, calib), dtype=bool, seed=seed)
    mask[tuple(centre(size, calib) for size in shape)] = True  # SigPy's square is one off where its width is odd
    return mask


def random_points(shape: Sequence[int], accel: float, calib: int = 0, power: float = 2.0, seed: int = 0) -> Mask:
    """Random points, or lines if there is one axis, denser towards the centre.

    Args:
        shape: Matrix size, along any number of axes.
        accel: Overall acceleration, calibration included: ``round(samples / accel)`` samples are taken.
        calib: Width of the fully sampled centre.
        power: How fast the density falls: as (1 - distance from the centre) to this power, the corners at 1.
        seed: Seed of the choice.

    Returns:
        Mask of the given shape.

    Raises:
        ValueError: If ``accel`` is below 1, or the calibration alone is more than it allows.
    """
    _check_accel(accel)
    mask = np.zeros(shape, bool)
    mask[tuple(centre(size, calib) for size in shape)] = True
    wanted, central = round(mask.size / accel), int(mask.sum())
    if wanted < max(central, 1):
        what = "lines" if mask.ndim == 1 else "samples"
        raise ValueError(
            f"acceleration {accel:g} of {mask.size} {what} leaves {wanted} {what}, "
            f"fewer than the {max(central, 1)} in the centre; ask for less of either"
        )
    if wanted > central:
        distance = np.linalg.norm(np.meshgrid(*map(_distance, shape), indexing="ij"), axis=0) / len(shape) ** 0.5
        density = np.where(mask, 0, (1.02 - distance) ** power).ravel()
        rng = np.random.default_rng(seed)
        mask.flat[rng.choice(mask.size, wanted - central, replace=False, p=density / density.sum())] = True
    return mask


def grid_spokes(shape: tuple[int, int], num_spokes: int, golden: bool = True) -> Mask:
    """The points of the Cartesian grid nearest to spokes through the k-space centre, edge to edge.

    Args:
        shape: Matrix size.
        num_spokes: Number of spokes.
        golden: As for :func:`radial_trajectory`.

    Returns:
        Mask of the given shape.

    Raises:
        ValueError: If a number is not positive.
    """
    spokes = radial_trajectory(num_spokes, 2 * max(shape), golden)[..., ::-1].reshape(-1, 2)
    index = np.rint(spokes * shape).astype(int) + np.array(shape) // 2
    mask = np.zeros(shape, bool)
    mask[tuple(np.clip(index, 0, np.array(shape) - 1).T)] = True
    return mask


def radial_trajectory(num_spokes: int, num_samples: int, golden: bool = True) -> NDArray[np.float32]:
    """Spokes through the k-space centre, edge to edge.

    Args:
        num_spokes: Number of spokes.
        num_samples: Samples on each; sample ``num_samples // 2`` is the k-space centre.
        golden: Whether successive spokes are the golden angle of 111.25 degrees apart, so that any number of them
            covers k-space about evenly; otherwise they divide half a turn.

    Returns:
        Coordinates (num_spokes, num_samples, 2), the last axis (kx, ky), in cycles per pixel: -0.5 to 0.5.

    Raises:
        ValueError: If a number is not positive.
    """
    if min(num_spokes, num_samples) < 1:
        raise ValueError(f"a radial trajectory needs spokes and samples, got {num_spokes} and {num_samples}")
    step = np.pi * 2 / (1 + 5**0.5) if golden else np.pi / num_spokes
    angle = step * np.arange(num_spokes)[:, None]
    radius = (np.arange(num_samples) - num_samples // 2) / num_samples
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).astype(np.float32)


def _check_accel(accel: float) -> None:
    if not accel >= 1:
        raise ValueError(f"the acceleration must be at least 1, got {accel:g}")


def _distance(size: int) -> NDArray[np.float64]:
    """Distance of the samples of an axis from its centre, where the edge is at 1."""
    return np.abs(np.arange(size) - size // 2) / (size / 2)

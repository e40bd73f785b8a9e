"""Sampling patterns of undersampled scans: Cartesian masks and radial trajectories."""

from collections.abc import Sequence

import numpy as np
import sigpy.mri as mr
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def center(size: int, width: int) -> slice:
    """Return the slice of the central ``width`` indices of an axis whose k-space center is at ``size // 2``.

    Args:
        size (int): Length of the axis.
        width (int): Number of indices.

    Returns:
        slice: ``width`` indices.

    Raises:
        ValueError: The width is negative or larger than the axis.
    """
    if not 0 <= width <= size:
        raise ValueError(f"{width} calibration lines do not fit into {size} lines; ask for 0 to {size}")
    start = size // 2 - width // 2
    return slice(start, start + width)


def uniform_lines(num_lines: int, accel: float, calib: int = 0) -> Mask:
    """Sample every ``accel``-th phase-encode line, as in parallel imaging, and the calibration lines in addition.

    Args:
        num_lines (int): Number of phase-encode lines.
        accel (float): Distance of the lines outside the calibration region, at least 1; not necessarily an integer.
        calib (int): Number of fully sampled central lines.

    Returns:
        array: bool (num_lines,). The line through the k-space center is always sampled.

    Raises:
        ValueError: ``accel`` is below 1, or there are more calibration lines than lines.

    Example:
        >>> uniform_lines(12, accel=3, calib=2).nonzero()[0]
        array([0, 3, 5, 6, 9])
    """
    _check_accel(accel)
    mask = np.zeros(num_lines, bool)
    steps = np.arange(-num_lines, num_lines + 1)
    lines = num_lines // 2 + np.floor(steps * accel + 0.5).astype(int)
    mask[lines[(lines >= 0) & (lines < num_lines)]] = True
    mask[center(num_lines, calib)] = True
    return mask


def random_lines(num_lines: int, accel: float, calib: int = 0, seed: int = 0) -> Mask:
    """Sample random phase-encode lines, denser towards the center.

    Args:
        num_lines (int): Number of phase-encode lines.
        accel (float): Overall acceleration, calibration lines included: ``round(num_lines / accel)`` lines.
        calib (int): Number of fully sampled central lines.
        seed (int): Seed of the choice.

    Returns:
        array: bool (num_lines,).

    Raises:
        ValueError: ``accel`` is below 1, or allows fewer lines than the calibration lines.
    """
    return random_points((num_lines,), accel, calib, seed=seed)


def poisson_disc(shape: tuple[int, int], accel: float, calib: int = 0, seed: int = 0) -> Mask:
    """Sample variable-density Poisson-disc points, for two phase-encode directions (:func:`sigpy.mri.poisson`).

    Args:
        shape (tuple of ints): Matrix size.
        accel (float): Overall acceleration, calibration included, met to 0.1. The corners of k-space are left out.
        calib (int): Width of the fully sampled central square.
        seed (int): Seed of the choice.

    Returns:
        array: bool, of the given shape.

    Raises:
        ValueError: ``accel`` is not above 1, the calibration square is too large, or no such mask is found.
    """
    _check_accel(accel)
    if not 0 <= calib < min(shape):
        raise ValueError(f"a calibration square of {calib} must be smaller than the {shape[0]} x {shape[1]} matrix")
    mask = mr.poisson(shape, accel, calib=(calib, calib), dtype=bool, seed=seed)
    mask[tuple(center(size, calib) for size in shape)] = True  # SigPy's square is shifted by one if its width is odd
    return mask


def random_points(shape: Sequence[int], accel: float, calib: int = 0, power: float = 2.0, seed: int = 0) -> Mask:
    """Sample random points (lines if there is one axis), denser towards the center.

    Args:
        shape (sequence of ints): Matrix size, along any number of axes.
        accel (float): Overall acceleration, calibration included: ``round(samples / accel)`` samples.
        calib (int): Width of the fully sampled center.
        power (float): Exponent of the density, (1 - distance from the center) ** power, where the corners are at 1.
        seed (int): Seed of the choice.

    Returns:
        array: bool, of the given shape.

    Raises:
        ValueError: ``accel`` is below 1, or allows fewer samples than the calibration.
    """
    _check_accel(accel)
    mask = np.zeros(shape, bool)
    mask[tuple(center(size, calib) for size in shape)] = True
    wanted, central = round(mask.size / accel), int(mask.sum())
    if wanted < max(central, 1):
        what = "lines" if mask.ndim == 1 else "samples"
        raise ValueError(
            f"acceleration {accel:g} of {mask.size} {what} leaves {wanted} {what}, "
            f"fewer than the {max(central, 1)} in the center; reduce the acceleration or the calibration region"
        )
    if wanted > central:
        distance = np.linalg.norm(np.meshgrid(*map(_distance, shape), indexing="ij"), axis=0) / len(shape) ** 0.5
        density = np.where(mask, 0, (1.02 - distance) ** power).ravel()
        rng = np.random.default_rng(seed)
        mask.flat[rng.choice(mask.size, wanted - central, replace=False, p=density / density.sum())] = True
    return mask


def grid_spokes(shape: tuple[int, int], num_spokes: int, golden: bool = True) -> Mask:
    """Sample the points of the Cartesian grid nearest to spokes through the k-space center, edge to edge.

    Args:
        shape (tuple of ints): Matrix size.
        num_spokes (int): Number of spokes.
        golden (bool): As for :func:`radial_trajectory`.

    Returns:
        array: bool, of the given shape.

    Raises:
        ValueError: A number is not positive.
    """
    spokes = radial_trajectory(num_spokes, 2 * max(shape), golden)[..., ::-1].reshape(-1, 2)
    index = np.rint(spokes * shape).astype(int) + np.array(shape) // 2
    mask = np.zeros(shape, bool)
    mask[tuple(np.clip(index, 0, np.array(shape) - 1).T)] = True
    return mask


def radial_trajectory(num_spokes: int, num_samples: int, golden: bool = True) -> NDArray[np.float32]:
    """Return the coordinates of spokes through the k-space center, edge to edge.

    Args:
        num_spokes (int): Number of spokes.
        num_samples (int): Samples per spoke; sample ``num_samples // 2`` is the k-space center.
        golden (bool): Whether successive spokes are the golden angle of 111.25 degrees apart, so that any number of
            them covers k-space about evenly; otherwise they divide 180 degrees evenly.

    Returns:
        array: float32 (num_spokes, num_samples, 2), last axis (kx, ky), in cycles per pixel: -0.5 to 0.5.

    Raises:
        ValueError: A number is not positive.
    """
    if min(num_spokes, num_samples) < 1:
        raise ValueError(f"a radial trajectory needs spokes and samples, got {num_spokes} and {num_samples}")
    step = np.pi * 2 / (1 + 5**0.5) if golden else np.pi / num_spokes
    angle = step * np.arange(num_spokes)[:, None]
    radius = (np.arange(num_samples) - num_samples // 2) / num_samples
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).astype(np.float32)


def kooshball_trajectory(num_spokes: int, num_samples: int) -> NDArray[np.float32]:
    """Return the coordinates of spokes through the k-space center in all directions, evenly on the sphere.

    The directions follow a spiral from pole to equator, successive ones the golden angle apart.

    Args:
        num_spokes (int): Number of spokes. Full sampling of n x n x n voxels takes pi / 2 n^2.
        num_samples (int): Samples per spoke; sample ``num_samples // 2`` is the k-space center.

    Returns:
        array: float32 (num_spokes, num_samples, 3), last axis (kz, ky, kx), in cycles per voxel: -0.5 to 0.5.

    Raises:
        ValueError: A number is not positive.
    """
    if min(num_spokes, num_samples) < 1:
        raise ValueError(f"a kooshball needs spokes and samples, got {num_spokes} and {num_samples}")
    z = 1 - (np.arange(num_spokes) + 0.5) / num_spokes
    angle, across = np.pi * (3 - 5**0.5) * np.arange(num_spokes), np.sqrt(1 - z**2)
    direction = np.stack([z, across * np.sin(angle), across * np.cos(angle)], axis=-1)
    radius = (np.arange(num_samples) - num_samples // 2) / num_samples
    return (direction[:, None] * radius[:, None]).astype(np.float32)


def _check_accel(accel: float) -> None:
    if not accel >= 1:
        raise ValueError(f"the acceleration must be at least 1, got {accel:g}")


def _distance(size: int) -> NDArray[np.float64]:
    """Return the distance of the samples of an axis from its center, where the edge is at 1."""
    return np.abs(np.arange(size) - size // 2) / (size / 2)

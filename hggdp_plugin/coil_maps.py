"""Coil sensitivity maps from the center of k-space."""

import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin._typing import Array
from hggdp_plugin.solvers import BatchConjugateGradient, run

#: Largest calibration region that is used: larger ones cost time and change little.
CALIB_WIDTH = 24
#: Side of ESPIRiT's kernels. The calibration region must be larger.
KERNEL_WIDTH = 6


def calibration_shape(calib_width: int | tuple[int, int], matrix: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the calibration region that is used.

    Args:
        calib_width (int or tuple of int): Fully sampled center of k-space: width, or height and width.
        matrix (tuple of int): Size of k-space.

    Returns:
        tuple of int: Height and width, at most :data:`CALIB_WIDTH` and at most the matrix.
    """
    height, width = (calib_width, calib_width) if isinstance(calib_width, int | np.integer) else calib_width
    return min(int(height), CALIB_WIDTH, matrix[0]), min(int(width), CALIB_WIDTH, matrix[1])


def espirit_maps(calib: Array, calib_width: int | tuple[int, int], device: sp.Device = sp.cpu_device) -> Array:
    """Estimate the maps of one slice by ESPIRiT.

    Args:
        calib (array): k-space (coils, H, W) whose center is fully sampled.
        calib_width (int or tuple of int): Size of the fully sampled center, see :func:`calibration_shape`.
        device (Device): Where to compute.

    Returns:
        array: complex64 (coils, H, W) on ``device``; sum of squares 1, or 0 outside the object.

    References:
        Uecker, M., et al. (2014). ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI.
        MRM, 71(3), 990-1001.
    """
    calib = sp.to_device(calib, device)
    with device:
        xp = device.xp
        if len(calib) == 1:
            return xp.ones(calib.shape, xp.complex64)
        # SigPy's threshold is relative, but its iterations underflow at raw scanner units of 1e-7.
        peak = xp.abs(calib).max()
        calib = calib / xp.where(peak > 0, peak, 1)
        width = min(calibration_shape(calib_width, calib.shape[-2:]))
        # Where the first map, the phase reference, is 0, SigPy divides 0 by 0; replaced below.
        with np.errstate(divide="ignore", invalid="ignore"):
            mps = mr.app.EspiritCalib(
                calib, calib_width=width, kernel_width=KERNEL_WIDTH, device=device, show_pbar=False
            ).run()
        return xp.nan_to_num(mps, nan=0, posinf=0, neginf=0).astype(xp.complex64)


def low_resolution_maps(kspace: Array, width: int = CALIB_WIDTH, device: sp.Device = sp.cpu_device) -> Array:
    """Estimate the maps of one slice as smoothed coil images divided by their root sum of squares.

    Needs no fully sampled center, but the aliasing of a regularly undersampled one remains in the maps.

    Args:
        kspace (array): k-space (coils, H, W).
        width (int): Full width at half maximum of the window in k-space, a triangle along each axis.
        device (Device): Where to compute.

    Returns:
        array: complex64 (coils, H, W) on ``device``, sum of squares 1.
    """
    kspace = sp.to_device(kspace, device)
    with device:
        xp = device.xp
        window = [np.clip(1 - abs(np.arange(n) - n // 2) / width, 0, None) for n in kspace.shape[-2:]]
        images = sp.ifft(kspace * xp.asarray(np.outer(*window), xp.float32), axes=(-2, -1))
        norm = xp.sqrt((abs(images) ** 2).sum(axis=0))
        return (images / xp.where(norm > 0, norm, 1)).astype(xp.complex64)


def calibration_from_noncartesian(
    kspace: Array, coord: Array, width: int = CALIB_WIDTH, device: sp.Device = sp.cpu_device
) -> Array:
    """Compute the Cartesian center of non-Cartesian k-space: least squares with a NUFFT on a small image.

    Args:
        kspace (array): k-space (coils, *k).
        coord (array): Coordinates (*k, 2) in units of 1 / field of view.
        width (int): Width of the region, and of the image in pixels.
        device (Device): Where to compute.

    Returns:
        array: complex64 (coils, width, width) on ``device``.
    """
    with device:
        xp = device.xp
        kspace, coord = sp.to_device(kspace, device), sp.to_device(coord, device)
        inside = (abs(coord) <= width / 2).all(axis=-1)
        A = sp.linop.NUFFT((len(kspace), width, width), coord[inside])
        b = A.H(kspace[:, inside])
        x = run(BatchConjugateGradient(A.N, b, xp.zeros_like(b), max_iter=20))
        return sp.fft(x, axes=(-2, -1))


def combine_coils(
    kspace: Array,
    calib: Array | None = None,
    calib_width: int | tuple[int, int] = CALIB_WIDTH,
    device: sp.Device = sp.cpu_device,
) -> Array:
    """Combine fully sampled k-space of several coils to images, as a reconstruction with ESPIRiT maps sees them.

    Args:
        kspace (array): k-space (..., coils, H, W) of one slice; leading axes are frames.
        calib (array or None): k-space (coils, H, W) for the maps. None: ``kspace``, which then has no leading axes.
        calib_width (int or tuple of int): Size of its fully sampled center, see :func:`calibration_shape`.
        device (Device): Where to compute.

    Returns:
        array: complex64 images (..., H, W) on ``device``, zero where ESPIRiT finds no signal.
    """
    mps = espirit_maps(kspace if calib is None else calib, calib_width, device)
    with device:
        images = sp.ifft(sp.to_device(kspace, device), axes=(-2, -1))
        return (mps.conj() * images).sum(axis=-3).astype(np.complex64)

"""Coil sensitivity maps from the centre of k-space."""

from typing import Any

import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin.solvers import BatchConjugateGradient, run

#: Calibration region used where more is there: larger ones cost time and change little.
CALIB_WIDTH = 24
#: Side of the kernels of ESPIRiT, which a calibration region must exceed.
KERNEL_WIDTH = 6


def espirit_maps(ksp: Any, width: int, device: sp.Device = sp.cpu_device) -> Any:
    """ESPIRiT maps of one slice by SigPy, zero where they are undefined.

    Args:
        ksp (array): k-space (coils, H, W) whose central ``width`` x ``width`` region is fully sampled.
        width (int): Width of the calibration region; not more than :data:`CALIB_WIDTH` of it is used.
        device (Device): Where to compute.

    Returns:
        array: complex64 (coils, H, W) on ``device``; sum of squares 1, or 0 outside the object.

    References:
        Uecker, M., et al. (2014). ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI.
        MRM, 71(3), 990-1001.
    """
    ksp = sp.to_device(ksp, device)
    with device:
        xp = device.xp
        if len(ksp) == 1:
            return xp.ones(ksp.shape, xp.complex64)
        # ESPIRiT's threshold is relative, but float32 is not: raw scanner units can be 1e-7.
        peak = xp.abs(ksp).max()
        ksp = ksp / xp.where(peak > 0, peak, 1)
        # The phase reference, the first map, can be 0: the division by it is mended below.
        with np.errstate(divide="ignore", invalid="ignore"):
            mps = mr.app.EspiritCalib(
                ksp, calib_width=min(width, CALIB_WIDTH), kernel_width=KERNEL_WIDTH, device=device, show_pbar=False
            ).run()
        return xp.nan_to_num(mps, nan=0, posinf=0, neginf=0).astype(xp.complex64)


def low_resolution_maps(ksp: Any, width: int = CALIB_WIDTH, device: sp.Device = sp.cpu_device) -> Any:
    """Maps of one slice without a fully sampled centre: smoothed coil images over their root sum of squares.

    Aliasing of a regularly undersampled centre remains in them.

    Args:
        ksp (array): k-space (coils, H, W).
        width (int): Width at half maximum of the window in k-space, a triangle along each axis.
        device (Device): Where to compute.

    Returns:
        array: complex64 (coils, H, W) on ``device``, sum of squares 1.
    """
    ksp = sp.to_device(ksp, device)
    with device:
        xp = device.xp
        window = [np.clip(1 - abs(np.arange(n) - n // 2) / width, 0, None) for n in ksp.shape[-2:]]
        images = sp.ifft(ksp * xp.asarray(np.outer(*window), xp.float32), axes=(-2, -1))
        norm = xp.sqrt((abs(images) ** 2).sum(axis=0))
        return (images / xp.where(norm > 0, norm, 1)).astype(xp.complex64)


def gridded_centre(ksp: Any, coord: Any, width: int = CALIB_WIDTH, device: sp.Device = sp.cpu_device) -> Any:
    """The Cartesian centre of non-Cartesian k-space: least squares on an image of ``width`` x ``width`` pixels.

    Args:
        ksp (array): k-space (coils, *k).
        coord (array): Coordinates (*k, 2) in units of 1 / field of view.
        width (int): Width of the region.
        device (Device): Where to compute.

    Returns:
        array: complex64 (coils, width, width) on ``device``.
    """
    with device:
        xp = device.xp
        ksp, coord = sp.to_device(ksp, device), sp.to_device(coord, device)
        inside = (abs(coord) <= width / 2).all(axis=-1)
        A = sp.linop.NUFFT((len(ksp), width, width), coord[inside])
        b = A.H(ksp[:, inside])
        x = run(BatchConjugateGradient(A.N, b, xp.zeros_like(b), max_iter=20))
        return sp.fft(x, axes=(-2, -1))

"""Coil sensitivity maps: simulated ones for images, estimated ones for measured k-space."""

import numpy as np
import sigpy.mri as mr
from numpy.typing import NDArray

from hggdp_plugin.coil_maps import combine_coils, smooth_phase


def coil_maps(num_coils: int, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Simulate the sensitivities of coils in a ring around the head (:func:`sigpy.mri.birdcage_maps`).

    Args:
        num_coils (int): Number of coils.
        shape (tuple of ints): Matrix size (y, x).

    Returns:
        array: complex64 (num_coils, y, x), whose squared magnitudes sum to 1 in every pixel. Phases vary as
        little as possible, as those of ESPIRiT maps here do, so that images combined by either can be compared in
        phase.

    Raises:
        ValueError: There is not at least one coil.
    """
    if num_coils < 1:
        raise ValueError(f"a scan needs at least one coil, got {num_coils}")
    return smooth_phase(mr.birdcage_maps((num_coils, *shape)).astype(np.complex64))


def combine(ksp: NDArray[np.complex64], calib: int = 24) -> tuple[NDArray[np.complex64], str]:
    """Combine fully sampled coil k-space to the reference image.

    Several coils are combined by ESPIRiT maps, so that the image has the phase of a reconstruction with such maps. It
    is zero where ESPIRiT finds no signal.

    Args:
        ksp (array): Centered k-space of one slice, complex64 (coils, ky, kx).
        calib (int): Width of the calibration region of the maps.

    Returns:
        tuple: The image, complex64 (y, x), and how it was combined: ``"espirit"``, or ``"single coil"``.
    """
    image = combine_coils(ksp, calib_width=calib)
    return image, "single coil" if len(ksp) == 1 else "espirit"

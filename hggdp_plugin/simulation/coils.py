"""Coil sensitivities: simulated ones for images, estimated ones for measured k-space."""

import numpy as np
import sigpy.mri as mr
from numpy.typing import NDArray

from hggdp_plugin.coil_maps import KERNEL_WIDTH, combine_coils

Complex = NDArray[np.complex64]


def coil_maps(num_coils: int, shape: tuple[int, int]) -> Complex:
    """Smooth sensitivities of coils in a ring around the head (``sigpy.mri.birdcage_maps``).

    Args:
        num_coils: Number of coils.
        shape: Matrix size (y, x).

    Returns:
        Maps of shape (num_coils, y, x) whose squared magnitudes sum to 1 in every pixel. Phases are relative to the
        first coil's, as those of ESPIRiT are: images combined by either can be compared in phase too.

    Raises:
        ValueError: If there is not at least one coil.
    """
    if num_coils < 1:
        raise ValueError(f"a measurement needs at least one coil, got {num_coils}")
    maps = mr.birdcage_maps((num_coils, *shape))
    return (maps * np.exp(-1j * np.angle(maps[0]))).astype(np.complex64)


def combine(ksp: Complex, calib: int = 24) -> tuple[Complex, str]:
    """Makes the reference image of fully sampled k-space.

    Several coils are combined by the sensitivities that ESPIRiT finds in the k-space centre, so that the image has the
    phase a reconstruction with such maps has; it is zero where ESPIRiT finds no signal.

    Args:
        ksp: Centred k-space of one slice, shape (coils, ky, kx).
        calib: Width of the central square that the maps are estimated from, as far as :func:`combine_coils` uses it.

    Returns:
        The image (y, x), and how it was combined: ``"espirit"``, or ``"single coil"`` for what a lone coil saw.
    """
    image = combine_coils(ksp, calib_width=max(calib, KERNEL_WIDTH))
    return image, "single coil" if len(ksp) == 1 else "espirit"

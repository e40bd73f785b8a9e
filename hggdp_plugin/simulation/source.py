"""The fully sampled coil k-space and its image that a simulation starts from, made from either of them."""

from dataclasses import dataclass

import numpy as np
import sigpy as sp
from numpy.typing import NDArray

from hggdp_plugin.simulation.coils import coil_maps, combine

#: Smallest matrix size that is simulated.
MIN_SIZE = 16


@dataclass(frozen=True)
class Source:
    """Fully sampled data.

    Attributes:
        ksp (array): Centered k-space, complex64 (slices, coils, ky, kx), orthonormal FFT.
        image (array): The image, complex64 (slices, y, x), on the same scale.
        combination (str): How the coils are combined to the image: ``"true maps"``, ``"espirit"`` or
            ``"single coil"``.
    """

    ksp: NDArray[np.complex64]
    image: NDArray[np.complex64]
    combination: str


def make_source(array: NDArray, kind: str, num_coils: int = 8, calib: int = 24) -> Source:
    """Make fully sampled coil data from an array.

    Args:
        array (array): An image (y, x), (slices, y, x) or (slices, 1, y, x), real or complex; or k-space (ky, kx),
            (coils, ky, kx) or (slices, coils, ky, kx).
        kind (str): ``"image"`` or ``"kspace"``.
        num_coils (int): Number of coils simulated for an image.
        calib (int): Width of the calibration region for the maps that combine the coils of k-space.

    Returns:
        Source: Fully sampled data. An image is scaled to a maximum magnitude of 1, k-space is not scaled.

    Raises:
        ValueError: The array has another number of axes, is too small, zero, or not finite.
    """
    several_coils = array.ndim == 4 and array.shape[1] > 1
    if not 2 <= array.ndim <= 4 or min(array.shape[-2:]) < MIN_SIZE or 0 in array.shape:
        raise ValueError(f"expected 2 to 4 axes, the last two of at least {MIN_SIZE}, got shape {array.shape}")
    if kind == "image" and several_coils:
        raise ValueError(f"expected an image of shape (y, x) or (slices, y, x), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the array has NaN or infinite values")
    peak = np.abs(array).max()
    if peak == 0:
        raise ValueError("the array is zero everywhere")
    if kind == "image":
        images = (array / peak).astype(np.complex64).reshape(-1, *array.shape[-2:])
        maps = coil_maps(num_coils, images.shape[-2:])
        ksp = sp.fft(maps * images[:, None], axes=(-2, -1)).astype(np.complex64)
        return Source(ksp, images, "true maps")
    ksp = array.astype(np.complex64)
    ksp = ksp.reshape(-1, ksp.shape[-3] if ksp.ndim > 2 else 1, *ksp.shape[-2:])
    combined = [combine(one, calib) for one in ksp]
    return Source(ksp, np.stack([image for image, _ in combined]), combined[0][1])

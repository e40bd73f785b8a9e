"""What a simulation starts from: fully sampled coil k-space and its image, made from whichever of them is at hand."""

from dataclasses import dataclass

import numpy as np
import sigpy as sp
from numpy.typing import NDArray

from hggdp_plugin.simulation.coils import coil_maps, combine

Complex = NDArray[np.complex64]

MIN_SIZE = 16
"""Smallest matrix that is simulated."""


@dataclass(frozen=True)
class Source:
    """Fully sampled data.

    Attributes:
        ksp: Centred k-space (slices, coils, ky, kx), orthonormal FFT.
        image: The image (slices, y, x), on the same scale.
        combination: How the image follows from the coils: ``"true maps"``, ``"espirit"`` or ``"single coil"``.
    """

    ksp: Complex
    image: Complex
    combination: str


def from_bart(array: NDArray) -> NDArray:
    """Takes a stack of 2D slices out of BART's sixteen dimensions.

    Args:
        array: BART's dimensions in reverse, (..., SLICE, ..., COIL, PHS2, PHS1, READ), without leading ones of size 1.

    Returns:
        Array of shape (slices, coils, y, x), where y and x are the two of PHS2, PHS1, READ that are larger than 1.

    Raises:
        ValueError: If any other dimension is larger than 1.
    """
    sizes = (1,) * (16 - array.ndim) + array.shape
    slices, coils, space = sizes[2], sizes[12], [size for size in sizes[13:] if size > 1]
    if array.ndim > 16 or len(space) != 2 or slices * coils * space[0] * space[1] != array.size:
        raise ValueError(f"BART dimensions {sizes[::-1]} are not 2D slices: READ, PHS1 or PHS2, COIL and SLICE")
    return array.reshape(slices, coils, *space)


def guess_kind(array: NDArray) -> str | None:
    """Tells images from k-space.

    Several coils along the second of four axes are k-space, and real numbers are an image. Otherwise the energy
    decides: k-space has nearly all of it around its centre, an image a few per cent.

    Args:
        array: Array of 2 to 4 axes.

    Returns:
        ``"image"``, ``"kspace"``, or None where it cannot be told.
    """
    if array.ndim == 4 and array.shape[1] > 1:
        return "kspace"
    if not np.iscomplexobj(array):
        return "image"
    ny, nx = array.shape[-2:]
    centre = array[..., ny // 2 - ny // 16 : ny // 2 + ny // 16 + 1, nx // 2 - nx // 16 : nx // 2 + nx // 16 + 1]
    share = np.linalg.norm(centre) / max(np.linalg.norm(array), 1e-30)
    return "kspace" if share > 0.7 else "image" if share < 0.4 else None


def make_source(array: NDArray, kind: str, num_coils: int = 8, calib: int = 24) -> Source:
    """Makes fully sampled coil data of an array.

    Args:
        array: For an image, (y, x), (slices, y, x) or (slices, 1, y, x), real or complex; for k-space, (ky, kx),
            (coils, ky, kx) or (slices, coils, ky, kx).
        kind: ``"image"`` or ``"kspace"``.
        num_coils: Number of coils simulated for an image.
        calib: Width of the k-space centre that gives the sensitivities by which coils are combined.

    Returns:
        The source; an image is scaled to a largest magnitude of 1, k-space is left as it is.

    Raises:
        ValueError: If the array has another number of axes, is too small, zero, or not finite.
    """
    several_coils = array.ndim == 4 and array.shape[1] > 1
    if not 2 <= array.ndim <= 4 or min(array.shape[-2:]) < MIN_SIZE or 0 in array.shape:
        raise ValueError(f"2 to 4 axes, the last two of at least {MIN_SIZE}, are needed, got shape {array.shape}")
    if kind == "image" and several_coils:
        raise ValueError(f"an image has shape (y, x) or (slices, y, x), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the array holds NaN or infinite values")
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

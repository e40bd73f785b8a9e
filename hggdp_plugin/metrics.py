"""How far a reconstruction is from its reference, after the best scale between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import fftconvolve
from skimage.metrics import structural_similarity


@dataclass(frozen=True)
class Scores:
    """Quality of one image compared with its reference.

    Magnitudes are compared after the best real scale, complex images after the best complex scale.

    Attributes:
        psnr (float): Peak signal-to-noise ratio of the magnitudes [dB].
        ssim (float): Structural similarity of the magnitudes, 1 for equal ones.
        hfen (float): High-frequency error norm of the magnitudes, 0 for equal ones.
        nrmse (float): Root-mean-square error of the magnitudes relative to the reference.
        psnr_complex (float or None): PSNR of the complex images [dB]; None if either is a magnitude image.
        nrmse_complex (float or None): NRMSE of the complex images; None if either is a magnitude image.
    """

    psnr: float
    ssim: float
    hfen: float
    nrmse: float
    psnr_complex: float | None
    nrmse_complex: float | None


def score(image: ArrayLike, reference: ArrayLike) -> Scores:
    """Compare an image with its reference, whose maximum magnitude counts as 1.

    The image is multiplied by the scale that minimizes the error, so that units do not matter, nor a constant phase.
    What counts as a magnitude image follows from the values (real and not negative), not from the data type, so that
    the same image has the same scores whichever file it was read from.

    Args:
        image (array): Image (y, x), real or complex.
        reference (array): Reference (y, x).

    Returns:
        Scores: The scores.

    Raises:
        ValueError: The shapes differ, are not 2D or below 7 pixels, a value is not finite, or the reference is zero.

    Example:
        >>> reference = np.ones((8, 8))
        >>> image = 3 * reference
        >>> image[0, 0] = 0
        >>> print(f"{score(image, reference).psnr:.2f} dB")
        18.06 dB
    """
    magnitude, target = match(np.abs(image), np.abs(reference))
    compare_phase = not (is_magnitude(image) or is_magnitude(reference))
    matched, ref = match(image, reference) if compare_phase else (magnitude, target)
    return Scores(
        psnr=psnr(magnitude, target),
        ssim=float(structural_similarity(magnitude, target, data_range=1.0)),
        hfen=hfen(magnitude, target),
        nrmse=nrmse(magnitude, target),
        psnr_complex=psnr(matched, ref) if compare_phase else None,
        nrmse_complex=nrmse(matched, ref) if compare_phase else None,
    )


def score_slices(images: NDArray, reference: NDArray) -> list[Scores]:
    """Compare slice by slice, each with scales of its own.

    Args:
        images (array): Images (slices, y, x).
        reference (array): Reference (slices, y, x).

    Returns:
        list of Scores: The scores of each slice.

    Raises:
        ValueError: The shapes differ, or as :func:`score` does.
    """
    if images.shape != reference.shape:
        raise ValueError(f"the images have shape {images.shape}, the reference has {reference.shape}")
    return [score(image, target) for image, target in zip(images, reference, strict=True)]


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the mean of each score over slices.

    Args:
        scores (sequence of Scores): At least one. Slices without a score of the complex images do not count for it.

    Returns:
        Scores: The means.
    """
    with_phase = [one for one in scores if one.psnr_complex is not None]
    return Scores(
        psnr=float(np.mean([one.psnr for one in scores])),
        ssim=float(np.mean([one.ssim for one in scores])),
        hfen=float(np.mean([one.hfen for one in scores])),
        nrmse=float(np.mean([one.nrmse for one in scores])),
        psnr_complex=float(np.mean([one.psnr_complex for one in with_phase])) if with_phase else None,
        nrmse_complex=float(np.mean([one.nrmse_complex for one in with_phase])) if with_phase else None,
    )


def is_magnitude(image: ArrayLike) -> bool:
    """Return whether an image has no phase: all values are real and not negative."""
    values = np.asarray(image)
    return not np.imag(values).any() and bool((np.real(values) >= 0).all())


def match(image: ArrayLike, reference: ArrayLike) -> tuple[NDArray, NDArray]:
    """Scale an image to its reference by least squares, and both so that the maximum magnitude of the reference is 1.

    Args:
        image (array): Image (y, x). If both are real, the scale is real, else complex.
        reference (array): Reference (y, x).

    Returns:
        tuple: The scaled image and the scaled reference, in double precision.

    Raises:
        ValueError: As :func:`score` does.
    """
    x, ref = np.asarray(image), np.asarray(reference)
    if x.shape != ref.shape or x.ndim != 2 or min(x.shape) < 7:
        raise ValueError(
            f"image and reference must be 2D, equal in shape and at least 7 x 7, got {x.shape} and {ref.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(ref).all()):
        raise ValueError("image and reference must hold finite values only")
    dtype = np.result_type(x, ref, np.float64)
    x, ref = x.astype(dtype), ref.astype(dtype)
    if not ref.any():
        raise ValueError("the reference is zero everywhere")
    ref = ref / np.abs(ref).max()
    # Divide by the maximum first: the squares of tiny or huge units would leave the range of a double.
    x = x / (np.abs(x).max() or 1.0)
    energy = np.vdot(x, x).real
    return x * (np.vdot(x, ref) / (energy or 1.0)), ref


def psnr(image: NDArray, reference: NDArray) -> float:
    """Return the peak signal-to-noise ratio for a peak of 1, ``-10 log10 mean |image - reference|^2``.

    Args:
        image (array): Image, scaled to the reference.
        reference (array): Reference with a maximum magnitude of 1.

    Returns:
        float: PSNR [dB]; infinity for equal images.
    """
    error = np.mean(np.abs(image - reference) ** 2)
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def nrmse(image: NDArray, reference: NDArray) -> float:
    """Return the norm of the error divided by the norm of the reference.

    Args:
        image (array): Image, scaled to the reference.
        reference (array): Reference.

    Returns:
        float: NRMSE.
    """
    return float(np.linalg.norm(image - reference) / np.linalg.norm(reference))


def hfen(image: NDArray, reference: NDArray) -> float:
    """Return the high-frequency error norm: the norm of the error after a Laplacian of Gaussian.

    Args:
        image (array): Image (y, x), scaled to the reference. It is zero outside.
        reference (array): Reference (y, x).

    Returns:
        float: HFEN.

    References:
        Ravishankar, S., & Bresler, Y. (2011). MR image reconstruction from highly undersampled k-space data by
        dictionary learning. IEEE TMI, 30(5), 1028-1041.
    """
    return float(np.linalg.norm(fftconvolve(image - reference, log_kernel(), mode="same")))


def log_kernel(size: int = 15, sigma: float = 1.5) -> NDArray[np.float64]:
    """Return the kernel of a Laplacian of Gaussian.

    Args:
        size (int): Width [pixels], odd.
        sigma (float): Standard deviation of the Gaussian [pixels].

    Returns:
        array: Kernel (size, size) that sums to zero.
    """
    axis = np.arange(size) - size // 2
    square = axis[:, None] ** 2 + axis[None, :] ** 2
    gauss = np.exp(-square / (2 * sigma**2))
    kernel = gauss / gauss.sum() * (square - 2 * sigma**2) / sigma**4
    return kernel - kernel.mean()

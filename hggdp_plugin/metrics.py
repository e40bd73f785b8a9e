"""How far a reconstruction is from its reference, once the best scale between them is taken out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import fftconvolve
from skimage.metrics import structural_similarity


@dataclass(frozen=True)
class Scores:
    """Quality of one image against its reference.

    Attributes:
        psnr: Peak signal-to-noise ratio of the magnitudes [dB].
        psnr_complex: The same of the complex images [dB]; None unless both are complex.
        ssim: Structural similarity of the magnitudes, 1 for equal ones.
        hfen: High-frequency error norm of the magnitudes, 0 for equal ones.
        nrmse: Root-mean-square error relative to the reference, of the complex images if both are, else of the
            magnitudes.
    """

    psnr: float
    psnr_complex: float | None
    ssim: float
    hfen: float
    nrmse: float


def score(image: ArrayLike, reference: ArrayLike) -> Scores:
    """Compares an image with its reference, whose largest magnitude counts as 1.

    The image is first multiplied by the scale that brings it nearest (``match``), so that neither the unit nor,
    between complex images, a constant phase matters.

    Args:
        image: Array of shape (y, x), real or complex.
        reference: Array of the same shape.

    Returns:
        The scores.

    Raises:
        ValueError: If the shapes differ, are not 2D or are below 7 pixels, a value is not finite, or the reference
            is zero.
    """
    image, reference = match(image, reference)
    magnitude, target = np.abs(image), np.abs(reference)
    both_complex = np.iscomplexobj(image)
    return Scores(
        psnr=psnr(magnitude, target),
        psnr_complex=psnr(image, reference) if both_complex else None,
        ssim=float(structural_similarity(magnitude, target, data_range=1.0)),
        hfen=hfen(magnitude, target),
        nrmse=nrmse(image, reference),
    )


def score_slices(images: NDArray, reference: NDArray) -> list[Scores]:
    """Compares slice by slice, each at its own best scale.

    Args:
        images: Array of shape (slices, y, x).
        reference: Array of the same shape.

    Returns:
        The scores of each slice.

    Raises:
        ValueError: If the shapes differ, or as ``score`` does.
    """
    if images.shape != reference.shape:
        raise ValueError(f"the images have shape {images.shape}, the reference has {reference.shape}")
    return [score(image, target) for image, target in zip(images, reference, strict=True)]


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean of each score over slices; there must be one at least."""
    of_complex = [one.psnr_complex for one in scores if one.psnr_complex is not None]
    return Scores(
        psnr=float(np.mean([one.psnr for one in scores])),
        psnr_complex=float(np.mean(of_complex)) if of_complex else None,
        ssim=float(np.mean([one.ssim for one in scores])),
        hfen=float(np.mean([one.hfen for one in scores])),
        nrmse=float(np.mean([one.nrmse for one in scores])),
    )


def match(image: ArrayLike, reference: ArrayLike) -> tuple[NDArray, NDArray]:
    """Brings an image to its reference by least squares, and both to a largest reference magnitude of 1.

    Args:
        image: Array of shape (y, x).
        reference: Array of the same shape.

    Returns:
        Both in double precision: complex, the image times the best complex factor, if both were complex; otherwise
        magnitudes, the image times the best real factor.

    Raises:
        ValueError: As ``score`` does.
    """
    x, ref = np.asarray(image), np.asarray(reference)
    if x.shape != ref.shape or x.ndim != 2 or min(x.shape) < 7:
        raise ValueError(
            f"image and reference must be 2D, equal in shape and at least 7 x 7, got {x.shape} and {ref.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(ref).all()):
        raise ValueError("image and reference must hold finite values only")
    if np.iscomplexobj(x) and np.iscomplexobj(ref):
        x, ref = x.astype(np.complex128), ref.astype(np.complex128)
    else:
        x, ref = np.abs(x).astype(np.float64), np.abs(ref).astype(np.float64)
    if not ref.any():
        raise ValueError("the reference is zero everywhere")
    ref = ref / np.abs(ref).max()
    # Divide by the largest magnitude first: the square of a tiny or huge unit would leave the range of a double.
    x = x / (np.abs(x).max() or 1.0)
    energy = np.vdot(x, x).real
    return x * (np.vdot(x, ref) / (energy or 1.0)), ref


def psnr(image: NDArray, reference: NDArray) -> float:
    """Peak signal-to-noise ratio [dB] for a peak of 1: ``-10 log10 mean |image - reference|^2``."""
    error = np.mean(np.abs(image - reference) ** 2)
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def nrmse(image: NDArray, reference: NDArray) -> float:
    """Norm of the error over the norm of the reference."""
    return float(np.linalg.norm(image - reference) / np.linalg.norm(reference))


def hfen(image: NDArray, reference: NDArray) -> float:
    """High-frequency error norm: norm of the error after a Laplacian of Gaussian, with zeros around the image."""
    return float(np.linalg.norm(fftconvolve(image - reference, log_kernel(), mode="same")))


def log_kernel(size: int = 15, sigma: float = 1.5) -> NDArray[np.float64]:
    """Laplacian-of-Gaussian filter kernel.

    Args:
        size: Width [pixels], odd.
        sigma: Standard deviation of the Gaussian [pixels].

    Returns:
        Kernel of shape (size, size) that sums to zero.
    """
    axis = np.arange(size) - size // 2
    square = axis[:, None] ** 2 + axis[None, :] ** 2
    gauss = np.exp(-square / (2 * sigma**2))
    kernel = gauss / gauss.sum() * (square - 2 * sigma**2) / sigma**4
    return kernel - kernel.mean()

"""A denoiser that knows nothing but that images have edges: thresholding of Haar wavelet coefficients."""

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array


class HaarDenoiser:
    """Soft-threshold the Haar wavelet coefficients of images, on a randomly shifted grid.

    In place of a learned denoiser it makes the same sampler an L1-wavelet reconstruction. Successive random shifts
    average out the blocks of the wavelets (cycle spinning).

    Args:
        levels (int): Levels of the transform.
        threshold (float): Threshold relative to the noise level.
        seed (int): Seed of the shifts.

    References:
        Coifman, R. R., & Donoho, D. L. (1995). Translation-invariant de-noising. Wavelets and Statistics, 125-150.
    """

    def __init__(self, levels: int = 4, threshold: float = 1.0, seed: int = 0) -> None:
        self.levels, self.threshold = levels, threshold
        self._rng = np.random.default_rng(seed)

    def __call__(self, x: Array, sigma: float) -> Array:
        """Denoise images.

        Args:
            x (array): Complex images (..., H, W).
            sigma (float): Noise standard deviation per real channel.

        Returns:
            array: complex64 (..., H, W).
        """
        xp = sp.get_array_module(x)
        block = 2**self.levels
        shift = self._rng.integers(block, size=2).tolist()
        height, width = x.shape[-2:]
        with sp.get_device(x):
            pad = [(0, 0)] * (x.ndim - 2) + [(0, -height % block), (0, -width % block)]
            shifted = xp.roll(xp.pad(x, pad, mode="edge"), shift, axis=(-2, -1))
            denoised = _threshold_details(shifted, self.threshold * sigma, self.levels)
            denoised = xp.roll(denoised, [-s for s in shift], axis=(-2, -1))
            return denoised[..., :height, :width].astype(np.complex64)


def _threshold_details(x: Array, threshold: float, levels: int) -> Array:
    """Transform, soft-threshold all but the coarsest coefficients, and transform back."""
    if levels == 0:
        return x
    top, bottom = x[..., ::2, :], x[..., 1::2, :]
    mean, vertical = top + bottom, top - bottom
    bands = [(part[..., ::2] + sign * part[..., 1::2]) / 2 for part in (mean, vertical) for sign in (1, -1)]
    coarse = _threshold_details(bands[0], threshold, levels - 1)
    low_high, high_low, high_high = (_soft_threshold(band, threshold) for band in bands[1:])
    y = sp.get_array_module(x).empty_like(x)
    y[..., ::2, ::2] = coarse + low_high + high_low + high_high
    y[..., ::2, 1::2] = coarse - low_high + high_low - high_high
    y[..., 1::2, ::2] = coarse + low_high - high_low - high_high
    y[..., 1::2, 1::2] = coarse - low_high - high_low + high_high
    y /= 2
    return y


def _soft_threshold(x: Array, threshold: float) -> Array:
    xp = sp.get_array_module(x)
    magnitude = abs(x)
    return x * (xp.maximum(magnitude - threshold, 0) / xp.maximum(magnitude, np.float32(1e-30)))

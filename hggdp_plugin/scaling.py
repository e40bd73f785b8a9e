"""Intensity scale and noise level, from the measurements alone."""

from math import log

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array
from hggdp_plugin.processes import Processes

#: The scale is this percentile of the magnitude of the least-squares image ...
MAGNITUDE_PERCENTILE = 99.8
#: ... times this factor, which brings the maximum magnitude of a slice to about 1 (1.35 for fully sampled brains, 1.4
#: to 1.7 for zero-filled ones, whose peaks are lower).
MAXIMUM_OVER_PERCENTILE = 1.5
#: Fraction of the samples, those farthest from the k-space center, in which the noise is measured.
PERIPHERY_FRACTION = 0.1


def estimate_scale(image: Array, ndim: int = 2) -> Array:
    """Estimate the complex factor between an image and the prior's convention: maximum magnitude 1, phase 0, roughly.

    A percentile is used instead of the maximum, because of single hot pixels. The phase is that of the sum of x |x|, so
    that data with another global phase give the same problem.

    Args:
        image (array): Least-squares images (..., H, W).
        ndim (int): Axes of an image.

    Returns:
        array: complex64 (..., 1, 1); 1 for an image of zeros.
    """
    xp, axes = sp.get_array_module(image), tuple(range(-ndim, 0))
    magnitude = xp.abs(image)
    size = xp.percentile(magnitude, MAGNITUDE_PERCENTILE, axis=axes, keepdims=True) * MAXIMUM_OVER_PERCENTILE
    unit = xp.where(size > 0, size, 1)
    # Divide by the size first: x |x| in raw scanner units can exceed the range of float32.
    total = ((image / unit) * (magnitude / unit)).sum(axis=axes, keepdims=True)
    length = xp.abs(total)
    phase = xp.where(length > 0, total / xp.where(length > 0, length, 1), 1)
    return xp.where(size > 0, size * phase, 1).astype(xp.complex64)


def estimate_noise(y: Array, radius: Array, comm: Processes | None = None) -> Array:
    """Estimate the noise variance of k-space from the samples farthest from its center.

    The estimate is the median energy, which a few samples with signal hardly change, divided by ln 2, its value for
    complex Gaussian noise of variance 1.

    Args:
        y (array): k-space (..., coils, *k), zero where not sampled.
        radius (array): Distance of each sample from the k-space center, shape (*k).
        comm (None or Processes): Processes that hold other coils; the estimate is that of all coils.

    Returns:
        array: Variance E|n|^2 per complex sample, float32 (..., 1, 1); 0 where nothing is sampled.
    """
    xp = sp.get_array_module(y)
    batch, coils = y.shape[: -radius.ndim - 1], y.shape[-radius.ndim - 1]
    radius = radius.ravel()
    variances = []
    for item in y.reshape(-1, coils, radius.size):
        sampled = (item != 0).any(axis=0)
        if comm is not None:
            count = sampled.astype(np.float32)
            comm.allreduce(count)
            sampled = count > 0
        far = sampled & (radius >= xp.quantile(radius[sampled], 1 - PERIPHERY_FRACTION)) if sampled.any() else sampled
        energy = xp.abs(item[:, far]) ** 2
        energy = energy if comm is None else comm.concatenate(energy)
        variances.append(xp.median(energy) / log(2) if energy.size else xp.zeros(()))
    return xp.stack(variances).astype(xp.float32).reshape(*batch, 1, 1)

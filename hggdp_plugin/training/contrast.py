"""Random remaps of the magnitude: the same anatomy in another contrast."""

import torch
from torch import Tensor

from hggdp_plugin.training.fields import smooth_curve

#: Entries of a curve, which is linear in between.
CURVE_LENGTH = 65
#: Cosines of a curve.
CURVE_ORDER = 5
#: Log of the largest slope of a monotone curve, relative to its mean.
LOG_SLOPE = 1.5
#: Value of a non-monotone curve at its darkest inner point.
DARKEST = 0.1
#: Range of the slope at zero of a non-monotone curve. Steeper ones would raise the noise of the background.
RISE = (2.0, 4.0)


def monotone_curves(uniform: Tensor) -> Tensor:
    """Make increasing curves from 0 to 1.

    Args:
        uniform (Tensor): Numbers (n, :data:`CURVE_ORDER`) within [-1, 1].

    Returns:
        Tensor: Values (n, :data:`CURVE_LENGTH`) at evenly spaced magnitudes from 0 to 1.
    """
    slope = torch.exp(LOG_SLOPE * _spread(uniform))
    curve = torch.cumulative_trapezoid(slope, dim=1)
    return torch.nn.functional.pad(curve / curve[:, -1:], (1, 0))


def nonmonotone_curves(uniform: Tensor) -> Tensor:
    """Make curves that rise from 0 and then go up and down within (0, 1], so that tissues change their order.

    Args:
        uniform (Tensor): Numbers (n, :data:`CURVE_ORDER`) within [-1, 1].

    Returns:
        Tensor: Values (n, :data:`CURVE_LENGTH`) at evenly spaced magnitudes from 0 to 1; the largest is 1.
    """
    low, high = RISE
    steepness = low + (high - low) * (0.5 + 0.5 * uniform[:, :1])
    magnitude = torch.linspace(0, 1, CURVE_LENGTH, device=uniform.device)
    rise = 1 - (1 - magnitude) ** steepness
    level = DARKEST + (1 - DARKEST) * (0.5 + 0.5 * _spread(uniform))
    return rise * level / (rise * level).amax(1, keepdim=True)


def evaluate_curves(curves: Tensor, magnitude: Tensor) -> Tensor:
    """Evaluate one curve per item.

    Args:
        curves (Tensor): Values (n, :data:`CURVE_LENGTH`) at evenly spaced magnitudes from 0 to 1.
        magnitude (Tensor): Magnitudes (n, H, W); above 1 a curve is constant.

    Returns:
        Tensor: Remapped magnitudes (n, H, W).
    """
    position = (magnitude.flatten(1) * (CURVE_LENGTH - 1)).clamp(0, CURVE_LENGTH - 1)
    index = position.long().clamp_max(CURVE_LENGTH - 2)
    low, high = curves.gather(1, index), curves.gather(1, index + 1)
    return torch.lerp(low, high, position - index).view_as(magnitude)


def remap(batch: Tensor, curves: Tensor) -> Tensor:
    """Remap the magnitude of real images (n, 2, H, W) and keep their phase."""
    magnitude = torch.hypot(*batch.unbind(1))  # norm() along a strided axis takes ten times as long
    gain = evaluate_curves(curves, magnitude) / magnitude.clamp_min(1e-6)
    return batch * gain[:, None]


def _spread(uniform: Tensor) -> Tensor:
    """Smooth curves (n, :data:`CURVE_LENGTH`) that reach both -1 and 1."""
    curve = smooth_curve(uniform, CURVE_LENGTH)
    low, high = curve.amin(1, keepdim=True), curve.amax(1, keepdim=True)
    return 2 * (curve - low) / (high - low).clamp_min(1e-6) - 1

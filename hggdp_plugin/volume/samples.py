"""Samples of a measurement: how they differ in the part of k-space that was measured, and in the rest."""

import logging
from dataclasses import dataclass

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spread:
    """Standard deviation of samples, as a part of the root mean square of their mean.

    Attributes:
        measured: In the part of k-space that was measured; None off the Cartesian grid.
        unmeasured: In the rest; None where all was measured.
        image: In the image.
    """

    measured: float | None
    unmeasured: float | None
    image: float


def spread(samples: Array, mask: Array | None) -> Spread:
    """Compare samples of one measurement.

    Args:
        samples (array): At least two samples, complex (samples, ..., y, x).
        mask (array or None): What was measured, bool (..., y, x); None: no Cartesian grid.

    Returns:
        Spread: Their spread.
    """
    power = [0.0] * 4  # variance and squared mean, where measured and elsewhere
    shape = samples.shape[1:-2]
    for index in np.ndindex(shape):
        place = (slice(None), *index)
        frame = sp.fft(samples[place], axes=(-2, -1))
        mean, variance = abs(frame.mean(axis=0)) ** 2, frame.var(axis=0, ddof=1)
        inside = np.zeros(mean.shape, bool) if mask is None else mask[index]
        for i, values in enumerate((variance[inside], mean[inside], variance[~inside], mean[~inside])):
            power[i] += float(values.sum(dtype=np.float64))
    found = Spread(
        _relative(power[0], power[1]),
        None if mask is None else _relative(power[2], power[3]),
        _relative(power[0] + power[2], power[1] + power[3]) or 0.0,
    )
    _logger.info("Spread of %d samples: %s.", len(samples), _describe(found))
    return found


def _relative(variance: float, power: float) -> float | None:
    return (variance / power) ** 0.5 if power > 0 else None


def _describe(found: Spread) -> str:
    text = f"{100 * found.image:.3g} % of the image"
    if found.measured is not None:
        text += f", {100 * found.measured:.3g} % of the measured part of k-space"
    return text if found.unmeasured is None else f"{text}, {100 * found.unmeasured:.3g} % of the rest"

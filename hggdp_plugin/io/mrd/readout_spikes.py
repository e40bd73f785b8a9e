"""Spikes in oversampled readouts: they are replaced before the oversampling is removed, which would spread them.

The image fills a part of the field of view of such a readout. So every sample follows from the others.
"""

import logging

import numpy as np

from hggdp_plugin.io.mrd.readout import Readout
from hggdp_plugin.spikes import MAX_SHARE, RATIO, ROUNDING, relative_energy, running_max

_logger = logging.getLogger(__name__)

#: Largest part of the field of view of a readout that the image may fill, so that samples follow from the others.
MAX_FILLED = 0.6
#: Samples on both sides with which a sample is compared, and half the width of the center, in parts of the readout,
#: where nothing is taken for a spike.
HALF_WIDTH, CENTER = 16, 1 / 32
#: Most spikes in a readout. Where more stand out, they are something else.
MOST = 3


def interpolate_spikes(samples: np.ndarray, offset: int, readout: Readout) -> tuple[np.ndarray, np.ndarray]:
    """Replace single samples of oversampled readouts that far exceed all others around them.

    Args:
        samples (array): Samples (acquisitions, coils, samples).
        offset (int): Position of the first one in the complete readout.
        readout (Readout): How they will be cropped.

    Returns:
        tuple: The samples, and the number of spikes in each acquisition (acquisitions,).
    """
    n_samples, size = samples.shape[-1], readout.encoded
    if readout.stored != size or readout.cropped > MAX_FILLED * size or n_samples < max(4 * HALF_WIDTH, size // 2):
        return samples, np.zeros(len(samples), int)
    levels = relative_energy(samples.transpose(1, 0, 2)[None])[0]
    beside = running_max(np.pad(levels, [(0, 0), (0, 0), (HALF_WIDTH, HALF_WIDTH)]), HALF_WIDTH, -1)
    others = np.maximum(beside[..., :n_samples], beside[..., HALF_WIDTH + 1 : HALF_WIDTH + 1 + n_samples])
    spikes = ((levels > RATIO**2 * others) & (others > ROUNDING * levels.max())).any(axis=0)
    spikes[:, abs(np.arange(offset, offset + n_samples) - size // 2) <= CENTER * size] = False
    spikes[spikes.sum(axis=1) > MOST] = False
    if not spikes.any() or spikes.sum() > max(1, MAX_SHARE * spikes.size):
        return samples, np.zeros(len(samples), int)
    result = samples.copy()
    first = -(readout.cropped // 2)
    inside = np.isin(np.arange(size), np.arange(first, first + readout.cropped) % size)
    kernel = np.fft.fft(inside) / size  # of the projection on the field of view of the image, by distance
    for number in np.flatnonzero(spikes.any(axis=1)):
        result[number] = _interpolate(samples[number], np.flatnonzero(spikes[number]), kernel)
    return result, spikes.sum(axis=1)


class SpikeLog:
    """Counts the spikes of a measurement for one line of the log.

    Args:
        source (str): Where the measurement comes from.
    """

    def __init__(self, source: str) -> None:
        self.source, self.number, self.slices = source, 0, set[int]()

    def add(self, numbers: np.ndarray, slices: np.ndarray) -> None:
        """Count the spikes of some acquisitions.

        Args:
            numbers (array): Number of spikes in each.
            slices (array): Slice of each.
        """
        self.number += int(numbers.sum())
        self.slices.update(slices[numbers > 0].tolist())

    def report(self) -> None:
        """Log how many there were."""
        if self.number:
            spikes = "sample of readouts is a spike" if self.number == 1 else "samples of readouts are spikes"
            slices = f"{len(self.slices)} slice{'s' if len(self.slices) > 1 else ''}"
            _logger.warning(
                "%s: %d %s, far above all others around (in %s). They are interpolated, which oversampling allows.",
                *(self.source, self.number, spikes, slices),
            )


def _interpolate(samples: np.ndarray, where: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Replace samples of a readout (coils, samples) so that nothing of them lies outside the field of view."""
    result = samples.copy()
    result[:, where] = 0
    rows = kernel[where[:, None] - np.arange(samples.shape[-1])]  # of the projection; negative distances are periodic
    result[:, where] = np.linalg.solve(np.eye(len(where)) - rows[:, where], rows @ result.T).T
    return result

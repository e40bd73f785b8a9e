"""The k-space center: where k-space really peaks, against where the header says it does."""

from dataclasses import dataclass

import numpy as np

#: Smallest distance from the center of the header that counts, as a fraction of the matrix and in samples.
TOLERANCE_FRACTION, TOLERANCE = 1 / 32, 2
#: How much more energy a readout at the peak must hold than any near the center of the header.
DOMINANCE = 4.0


@dataclass(frozen=True)
class Energy:
    """Energy of the samples, collected while they are read.

    Attributes:
        acquisition (array): Energy of each acquisition, float64 (acquisitions,).
        readout (array): Energy at each position of the encoded readout, float64 (samples,).
    """

    acquisition: np.ndarray
    readout: np.ndarray

    def add(self, samples: np.ndarray, numbers: np.ndarray, offset: int) -> None:
        """Add readouts.

        Args:
            samples (array): Samples (acquisitions, coils, samples), reversed readouts already flipped.
            numbers (array): Numbers of the acquisitions.
            offset (int): Position of the first sample on the encoded readout.
        """
        power = (samples.real**2 + samples.imag**2).sum(axis=1, dtype=np.float64)
        self.acquisition[numbers] = power.sum(axis=1)
        start, stop = max(0, offset), min(len(self.readout), offset + samples.shape[-1])
        self.readout[start:stop] += power[:, start - offset : stop - offset].sum(axis=0)


def find_peak(profile: np.ndarray, center: int) -> int | None:
    """Find where k-space peaks along an axis, if that is far from where it should.

    Args:
        profile (array): Energy at each index; 0 where nothing was measured.
        center (int): Index of the center that the header gives.

    Returns:
        int or None: The index of the peak; None if the center of the header is plausible.
    """
    measured = np.flatnonzero(profile)
    if not measured.size or not np.isfinite(profile).all():
        return None
    peak = int(np.argmax(profile))
    spacing = int(np.median(np.diff(measured))) if measured.size > 1 else 1
    tolerance = max(TOLERANCE, int(TOLERANCE_FRACTION * len(profile))) + spacing - 1
    near = profile[max(0, center - tolerance) : max(0, center + tolerance + 1)]
    if abs(peak - center) <= tolerance or profile[peak] < DOMINANCE * near.max(initial=0):
        return None
    return peak

"""The k-space center: where k-space really peaks, against where the header says it does."""

from dataclasses import dataclass

import numpy as np

#: Distance from the center of the header that does not count, as a fraction of the matrix and in samples.
TOLERANCE_FRACTION, TOLERANCE = 1 / 32, 1
#: How much more energy a readout at the peak must hold than any near the center of the header.
DOMINANCE = 4.0
#: Part of the energy that even or odd phase encodings must hold for a comparison.
MIN_PARITY_FRACTION = 0.1


@dataclass(frozen=True)
class Energy:
    """Energy of the samples, collected while they are read.

    Attributes:
        acquisition (array): Energy of each acquisition, float64 (acquisitions,).
        readout (array): Energy at each position of the encoded readout, of even and of odd phase encodings apart,
            float64 (2, samples).
    """

    acquisition: np.ndarray
    readout: np.ndarray

    @classmethod
    def empty(cls, n_acquisitions: int, n_samples: int) -> "Energy":
        """Return the energy of nothing."""
        return cls(np.zeros(n_acquisitions), np.zeros((2, n_samples)))

    def add(self, samples: np.ndarray, numbers: np.ndarray, offset: int, ky: np.ndarray) -> None:
        """Add readouts.

        Args:
            samples (array): Samples (acquisitions, coils, samples), reversed readouts already flipped.
            numbers (array): Numbers of the acquisitions.
            offset (int): Position of the first sample on the encoded readout.
            ky (array): Their phase encoding.
        """
        power = (samples.real**2 + samples.imag**2).sum(axis=1, dtype=np.float64)
        self.acquisition[numbers] = power.sum(axis=1)
        start, stop = max(0, offset), min(self.readout.shape[1], offset + samples.shape[-1])
        for parity in (0, 1):
            of_parity = power[ky % 2 == parity]
            self.readout[parity, start:stop] += of_parity[:, start - offset : stop - offset].sum(axis=0)

    @property
    def parity_shift(self) -> float:
        """Distance in samples between the centers of even and odd phase encodings; 0 if they have none."""
        total = self.readout.sum(axis=1)
        if not np.isfinite(total).all() or not total.min() > MIN_PARITY_FRACTION * total.sum():
            return 0.0
        if (self.readout.max(axis=1) < DOMINANCE * self.readout.mean(axis=1)).any():  # noise
            return 0.0
        # As many samples on both sides of the peak: an asymmetric echo has no center of mass.
        profile = self.readout.sum(axis=0)
        measured, peak = np.flatnonzero(profile), int(np.argmax(profile))
        half = min(peak - measured[0], measured[-1] - peak)
        window = self.readout[:, peak - half : peak + half + 1]
        center = window @ np.arange(window.shape[1]) / window.sum(axis=1)
        return float(abs(center[0] - center[1]))


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

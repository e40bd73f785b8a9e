"""The k-space center: where k-space really peaks, against where the header says it does."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

#: Distance from the center of the header that does not count, as a fraction of the matrix and in samples.
TOLERANCE_FRACTION, TOLERANCE = 1 / 32, 1
#: How much more energy a readout at the peak must hold than any near the center of the header.
DOMINANCE = 4.0
#: Part of the energy of the strongest phase encoding below which the center of another one is not asked for.
MIN_LINE_ENERGY = 0.01
#: How probable a distance between even and odd readouts may be by chance.
MAX_CHANCE = 0.01


@dataclass(frozen=True)
class Energy:
    """Energy of the samples, collected while they are read.

    Attributes:
        acquisition (array): Energy of each acquisition, float64 (acquisitions,).
        ky (array): Phase encodings that were measured, in ascending order (lines,).
        readout (array): Energy of each of them at each position of the encoded readout, float64 (lines, samples).
    """

    acquisition: np.ndarray
    ky: np.ndarray
    readout: np.ndarray

    @classmethod
    def empty(cls, n_acquisitions: int, ky: np.ndarray, n_samples: int) -> "Energy":
        """Return the energy of nothing, for these phase encodings, and no others: a header may promise any matrix."""
        ky = np.unique(ky)
        return cls(np.zeros(n_acquisitions), ky, np.zeros((len(ky), n_samples)))

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
        lines = np.searchsorted(self.ky, ky)
        np.add.at(self.readout[:, start:stop], lines, power[:, start - offset : stop - offset])

    @property
    def parity_shift(self) -> float:
        """Distance in samples between the centers of even and odd phase encodings; 0 if it may be by chance.

        The spectrum of an object is not symmetric, so that the centers of its lines scatter. Offset, slope and
        alternation are fitted to them, weighted by energy, and the alternation is compared with its standard error.
        """
        profile = self.readout.sum(axis=0)
        measured, peak = np.flatnonzero(profile), int(np.argmax(profile))
        if not measured.size or not np.isfinite(profile).all():
            return 0.0
        # As many samples on both sides of the peak: an asymmetric echo has no center of mass.
        half = min(peak - measured[0], measured[-1] - peak)
        window = self.readout[:, peak - half : peak + half + 1]
        energy, highest = window.sum(axis=1), window.max(axis=1)
        strong = (energy > MIN_LINE_ENERGY * energy.max()) & (highest > DOMINANCE * window.mean(axis=1))  # not noise
        lines = self.ky[strong]
        if (freedom := len(lines) - 3) < 1:
            return 0.0
        center, weight = window[strong] @ np.arange(window.shape[1]) / energy[strong], np.sqrt(energy[strong])
        terms = np.stack([np.ones(len(lines)), lines - lines.mean(), (-1.0) ** lines / 2], axis=1) * weight[:, None]
        fit, residual, rank, _ = np.linalg.lstsq(terms, center * weight)
        if rank < 3:  # all even, or all odd
            return 0.0
        error = np.sqrt(residual[0] / freedom * np.linalg.inv(terms.T @ terms)[2, 2])
        return float(abs(fit[2])) if abs(fit[2]) > stdtrit(freedom, 1 - MAX_CHANCE / 2) * error else 0.0


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

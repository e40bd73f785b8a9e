"""One Cartesian readout: aligned to the k-space center, and cropped to the field of view of the image."""

import logging
from dataclasses import dataclass

import numpy as np
from scipy import fft

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import constants
from hggdp_plugin.io.mrd.acquisitions import Acquisitions, flagged

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readout:
    """The readout of a measurement.

    Attributes:
        encoded (int): Samples of a complete readout, oversampling included.
        cropped (int): Samples that remain for the field of view of the image.
        hybrid (bool): Whether readouts become image space (3D data) instead of k-space.
    """

    encoded: int
    cropped: int
    hybrid: bool

    @property
    def stored(self) -> int:
        """Samples of the grid that the offset of a readout refers to."""
        return self.encoded

    def __call__(self, samples: np.ndarray, offset: int) -> np.ndarray:
        """Place samples on the encoded grid and remove the oversampling.

        Args:
            samples (array): Samples (acquisitions, coils, samples); reversed readouts are already flipped.
            offset (int): Grid position of the first sample.

        Returns:
            array: Readouts (acquisitions, coils, cropped), zero where :meth:`measured` is false.
        """
        size, half = self.cropped, self.encoded // 2
        start, stop = max(0, offset), min(self.encoded, offset + samples.shape[-1])
        samples = samples[..., start - offset : stop - offset]
        line = np.zeros((*samples.shape[:-1], self.encoded), samples.dtype)
        if size == self.encoded and not self.hybrid:
            line[..., start:stop] = samples
            return line
        # A centered transform swaps the halves of its input and its output: done here while padding and cropping.
        center = half - start
        line[..., : stop - half], line[..., self.encoded - center :] = samples[..., center:], samples[..., :center]
        line = fft.ifft(line, norm="ortho", overwrite_x=True)
        line = np.concatenate([line[..., : size - size // 2], line[..., self.encoded - size // 2 :]], axis=-1)
        if self.hybrid:
            return fft.fftshift(line, axes=-1)
        line = fft.fftshift(fft.fft(line, norm="ortho", overwrite_x=True), axes=-1)
        line[..., ~self._covered(offset, stop - offset)] = 0  # Cropping leaks beyond the measured samples.
        return line

    def measured(self, offset: int, count: int) -> np.ndarray:
        """Find which of the cropped samples lie among the measured ones.

        Args:
            offset (int): Grid position of the first sample.
            count (int): Number of samples.

        Returns:
            array: bool (cropped,). In hybrid space all positions are measured.
        """
        return self._covered(offset, count)

    def _covered(self, offset: int, count: int) -> np.ndarray:
        """Find which of the cropped samples lie among those at an offset of the encoded grid."""
        if self.hybrid:
            return np.ones(self.cropped, bool)
        position = (np.arange(self.cropped) - self.cropped // 2) * (self.encoded / self.cropped) + self.encoded // 2
        return (position >= max(0, offset)) & (position <= min(self.encoded, offset + count) - 1)


def readout_offsets(acquisitions: Acquisitions, wanted: np.ndarray, kept: np.ndarray, encoded: int) -> np.ndarray:
    """Find where on the encoded grid each acquisition starts, so that its ``center_sample`` falls on encoded // 2.

    Args:
        acquisitions (Acquisitions): All acquisitions.
        wanted (array): Which of them to place, bool (acquisitions,).
        kept (array): Samples of each that are not discarded, as :meth:`Acquisitions.kept_samples` counts them.
        encoded (int): Samples of a complete readout.

    Returns:
        array: int64 (acquisitions,); zero for those not wanted.

    Raises:
        InputError: If a readout is longer than the grid, or its center lies outside it.
    """
    numbers = np.flatnonzero(wanted)
    headers, count = acquisitions.headers[numbers], kept[numbers]
    if (count > encoded).any():
        raise InputError(
            acquisitions.location_of(numbers[np.argmax(count > encoded)]),
            f"it has {count.max()} samples, the encoded matrix {encoded}",
            "correct the encoded matrix in the header",
        )
    center = headers["center_sample"].astype(np.int64) - headers["discard_pre"]
    stored = encoded // 2 - center
    offset = np.where(flagged(headers, constants.ACQ_IS_REVERSE), encoded // 2 - (count - 1 - center), stored)
    # Flipping an even readout moves its center by one sample, and some writers give the center of the flipped one.
    fits = (offset >= 0) & (offset + count <= encoded)
    offset = np.where(~fits & (stored >= 0) & (stored + count <= encoded), stored, offset)
    unset = (headers["center_sample"] == 0) & (count == encoded)
    if unset.any():
        _logger.info("center_sample is 0 on %d complete readouts: taken as not set.", int(unset.sum()))
        offset[unset] = 0
    outside = (center < 0) | (center >= count) | (offset + count <= encoded // 2) | (offset > encoded // 2)
    if (outside & ~unset).any():
        raise InputError(
            acquisitions.location_of(numbers[np.argmax(outside & ~unset)]),
            "its center_sample lies outside the readout",
            "correct the header of the acquisition",
        )
    placed = np.zeros(len(wanted), np.int64)
    placed[numbers] = offset
    return placed

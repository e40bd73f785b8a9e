"""One Cartesian readout: aligned to the k-space centre, and cropped to the image's field of view."""

import logging
from dataclasses import dataclass

import numpy as np
from scipy import fft

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.classify import REVERSE, flagged
from hggdp_plugin.io.mrd.hdf5 import Lines

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readout:
    """The readout of a measurement.

    Attributes:
        encoded (int): samples of a complete readout, oversampling included.
        cropped (int): samples that remain for the image's field of view.
        hybrid (bool): whether readouts become image space (3D data) instead of k-space.
    """

    encoded: int
    cropped: int
    hybrid: bool

    def __call__(self, samples: np.ndarray, offset: int) -> np.ndarray:
        """Places samples on the encoded grid and removes the oversampling.

        Args:
            samples (array): (lines, coils, samples), reversed lines already flipped.
            offset (int): grid position of the first sample.

        Returns:
            array: (lines, coils, cropped); k-space that was not measured is zero.
        """
        size, half = self.cropped, self.encoded // 2
        start, stop = max(0, offset), min(self.encoded, offset + samples.shape[-1])
        samples = samples[..., start - offset : stop - offset]
        line = np.zeros((*samples.shape[:-1], self.encoded), samples.dtype)
        if size == self.encoded and not self.hybrid:
            line[..., start:stop] = samples
            return line
        # A centred transform swaps the halves of its input and its output: done here while padding and cropping.
        centre = half - start
        line[..., : stop - half], line[..., self.encoded - centre :] = samples[..., centre:], samples[..., :centre]
        line = fft.ifft(line, norm="ortho", overwrite_x=True)
        line = np.concatenate([line[..., : size - size // 2], line[..., self.encoded - size // 2 :]], axis=-1)
        if self.hybrid:
            return fft.fftshift(line, axes=-1)
        line = fft.fftshift(fft.fft(line, norm="ortho", overwrite_x=True), axes=-1)
        line[..., ~self.measured(offset, stop - offset)] = 0  # cropping leaks beyond the measured samples
        return line

    def measured(self, offset: int, count: int) -> np.ndarray:
        """Finds which of the cropped samples lie among the measured ones.

        Args:
            offset (int): position of the first sample on the encoded grid.
            count (int): number of samples.

        Returns:
            array: bool (cropped,); in hybrid space everything is measured.
        """
        if self.hybrid:
            return np.ones(self.cropped, bool)
        position = (np.arange(self.cropped) - self.cropped // 2) * (self.encoded / self.cropped) + self.encoded // 2
        return (position >= max(0, offset)) & (position <= min(self.encoded, offset + count) - 1)


def trimmed(heads: np.ndarray, where: str, numbers: np.ndarray) -> np.ndarray:
    """Counts the samples of each line that remain after ``discard_pre`` and ``discard_post``.

    Args:
        heads (array): acquisition headers, shape (lines,).
        where (str): file and group, for messages.
        numbers (array): line numbers, shape (lines,), for messages.

    Returns:
        array: int64 (lines,).

    Raises:
        InputError: nothing remains of a line.
    """
    count = heads["number_of_samples"].astype(np.int64) - heads["discard_pre"] - heads["discard_post"]
    if (count < 1).any():
        line = numbers[np.argmax(count < 1)]
        raise InputError(
            f"{where}/data line {line}",
            "discard_pre and discard_post leave no sample of it",
            "correct the line's header",
        )
    return count


def offsets(lines: Lines, wanted: np.ndarray, encoded: int) -> np.ndarray:
    """Finds where on the encoded grid each line starts, so that its ``center_sample`` falls on encoded // 2.

    Args:
        lines (Lines): all acquisitions.
        wanted (array): bool (lines,), the lines to place.
        encoded (int): samples of a complete readout.

    Returns:
        array: int64 (lines,); zero for lines not wanted.

    Raises:
        InputError: a line is longer than the grid, or its centre lies outside it.
    """
    numbers = np.flatnonzero(wanted)
    heads = lines.heads[numbers]
    count = trimmed(heads, lines.where, numbers)
    if (count > encoded).any():
        line = numbers[np.argmax(count > encoded)]
        raise InputError(
            f"{lines.where}/data line {line}",
            f"it has {count.max()} samples, the encoded matrix {encoded}",
            "correct the encoded matrix in the header",
        )
    centre = heads["center_sample"].astype(np.int64) - heads["discard_pre"]
    stored = encoded // 2 - centre
    offset = np.where(flagged(heads, REVERSE), encoded // 2 - (count - 1 - centre), stored)
    # Flipping an even line moves its centre by one sample, and some writers give the centre of the flipped line.
    fits = (offset >= 0) & (offset + count <= encoded)
    offset = np.where(~fits & (stored >= 0) & (stored + count <= encoded), stored, offset)
    unset = (heads["center_sample"] == 0) & (count == encoded)
    if unset.any():
        _logger.info(f"center_sample is 0 on {int(unset.sum())} complete lines: taken as not set.")
        offset[unset] = 0
    outside = (centre < 0) | (centre >= count) | (offset + count <= encoded // 2) | (offset > encoded // 2)
    if (outside & ~unset).any():
        line = numbers[np.argmax(outside & ~unset)]
        raise InputError(
            f"{lines.where}/data line {line}", "its center_sample lies outside the line", "correct the line's header"
        )
    lost = np.maximum(0, -offset) + np.maximum(0, offset + count - encoded)
    if lost.any():
        _logger.info(f"Up to {lost.max()} samples of a line lie outside the encoded matrix and are left out.")
    placed = np.zeros(len(wanted), np.int64)
    placed[numbers] = offset
    return placed

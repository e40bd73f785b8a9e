"""K-space arrays that lines are added to: repeated lines are averaged, absent ones stay zero."""

import logging
import math

import numpy as np

from hggdp_plugin.io.files import InputError

_logger = logging.getLogger(__name__)


def allocate(shape: tuple[int, ...], measured: int, where: str) -> np.ndarray:
    """Makes a zero complex64 array, unless its size is out of all proportion to the samples that were measured.

    Args:
        shape (tuple): of the array.
        measured (int): bytes of samples in the file.
        where (str): file and group, for messages.

    Returns:
        array: zeros.

    Raises:
        InputError: header or counters ask for a nonsense size.
    """
    size = 8 * math.prod(shape)
    if size > 64 * measured + 2**26:
        raise InputError(
            where,
            f"matrix and counters ask for a k-space array of {size / 2**20:.0f} MiB,"
            f" the lines hold {measured / 2**20:.1f} MiB",
            "correct the matrix sizes or the counters",
        )
    try:
        return np.zeros(shape, np.complex64)
    except MemoryError:
        raise InputError(
            where,
            f"the k-space array of {size / 2**30:.1f} GiB does not fit into memory",
            "use a machine with more memory",
        ) from None


class Grid:
    """Frames of k-space, filled line by line.

    Args:
        array (array): zeros, shape (frames, kz, ky, coils, x) - a view of any memory layout.
        columns (int): kx positions that ``measured`` tells apart: x, or 1 where x is image space.

    Attributes:
        count (array): how often each line was measured, int32 (frames, kz, ky).
        measured (array): which samples were measured, bool (frames, kz, ky, columns).
    """

    def __init__(self, array: np.ndarray, columns: int) -> None:
        self.array = array
        self.count = np.zeros(array.shape[:3], np.int32)
        self.measured = np.zeros((*array.shape[:3], columns), bool)

    def add(
        self, frame: np.ndarray, row_2: np.ndarray, row_1: np.ndarray, samples: np.ndarray, measured: np.ndarray
    ) -> None:
        """Adds lines to their places.

        Args:
            frame (array): frame number of each line, shape (lines,).
            row_2 (array): kz index, shape (lines,).
            row_1 (array): ky index, shape (lines,).
            samples (array): (lines, coils, x).
            measured (array): which samples were measured, bool (lines, columns).
        """
        turn = _occurrence(np.ravel_multi_index((frame, row_2, row_1), self.count.shape))
        for k in range(turn.max() + 1):  # one pass for each time that a place is repeated among these lines
            now = turn == k
            place = (frame[now], row_2[now], row_1[now])
            if self.count[place].any():
                self.array[place] += samples[now]
            else:
                self.array[place] = samples[now]
            self.count[place] += 1
            self.measured[place] |= measured[now]

    def average(self, unit_noise: bool) -> None:
        """Divides by the number of times that each line was measured.

        Args:
            unit_noise (bool): whether to scale the result so that a line measured the median number of times keeps
                the noise variance of a single one.
        """
        counts = self.count[self.count > 0]
        if not (counts > 1).any():
            return
        usual = float(np.median(counts))
        gain = np.sqrt(usual) if unit_noise else 1.0
        for frame, count in enumerate(self.count):
            weight = (gain / np.maximum(1, count)).astype(np.float32)
            self.array[frame] *= weight[..., None, None]


def _occurrence(keys: np.ndarray) -> np.ndarray:
    """Numbers equal keys in their order: [5, 7, 5, 5] gives [0, 0, 1, 2]."""
    order = np.argsort(keys, kind="stable")
    __, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
    turn = np.empty(len(keys), np.int64)
    turn[order] = np.arange(len(keys)) - np.repeat(first, counts)
    return turn

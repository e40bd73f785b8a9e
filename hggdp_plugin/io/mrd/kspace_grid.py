"""k-space arrays that readouts are added to: repeated ones are averaged, absent ones stay zero."""

import math

import numpy as np

from hggdp_plugin.io.files import InputError

#: Largest ratio of a k-space array to the samples that fill it; a small array may be larger.
MAX_EXPANSION, SMALL_ARRAY_BYTES = 64, 2**26


def allocate(shape: tuple[int, ...], stored_bytes: int, source: str) -> np.ndarray:
    """Make a zero complex64 array, unless its size is out of all proportion to the samples that were measured.

    Args:
        shape (tuple of int): Shape of the array.
        stored_bytes (int): Bytes of samples in the file.
        source (str): File and group, for messages.

    Returns:
        array: Zeros.

    Raises:
        InputError: If header or counters ask for a nonsense size.
    """
    size = 8 * math.prod(shape)
    if size > MAX_EXPANSION * stored_bytes + SMALL_ARRAY_BYTES:
        raise InputError(
            source,
            f"matrix and counters ask for a k-space array of {size / 2**20:.0f} MiB,"
            f" the acquisitions hold {stored_bytes / 2**20:.1f} MiB",
            "correct the matrix sizes or the counters",
        )
    try:
        return np.zeros(shape, np.complex64)
    except MemoryError:
        raise InputError(
            source,
            f"the k-space array of {size / 2**30:.1f} GiB does not fit into memory",
            "use a machine with more memory",
        ) from None


class Grid:
    """Frames of k-space, filled readout by readout.

    Args:
        array (array): Zeros, shape (frames, kz, ky, coils, x); a view of any memory layout.
        columns (int): Positions along the readout that ``measured`` tells apart: x, or 1 where x is image space.

    Attributes:
        count (array): How often each readout was measured, int32 (frames, kz, ky).
        measured (array): Which samples were measured, bool (frames, kz, ky, columns).
    """

    def __init__(self, array: np.ndarray, columns: int) -> None:
        self.array = array
        self.count = np.zeros(array.shape[:3], np.int32)
        self.measured = np.zeros((*array.shape[:3], columns), bool)

    def add(self, frame: np.ndarray, kz: np.ndarray, ky: np.ndarray, samples: np.ndarray, measured: np.ndarray) -> None:
        """Add readouts at their indices.

        Args:
            frame (array): Frame number of each readout (readouts,).
            kz (array): kz index of each readout.
            ky (array): ky index of each readout.
            samples (array): Samples (readouts, coils, x).
            measured (array): Which samples were measured, bool (readouts, columns).
        """
        repeat_index = _occurrence(np.ravel_multi_index((frame, kz, ky), self.count.shape))
        for k in range(repeat_index.max() + 1):  # one pass for each time that an index is repeated
            now = repeat_index == k
            index = (frame[now], kz[now], ky[now])
            if self.count[index].any():
                self.array[index] += samples[now]
            else:
                self.array[index] = samples[now]
            self.count[index] += 1
            self.measured[index] |= measured[now]

    def average(self, unit_noise: bool) -> None:
        """Divide by the number of times that each readout was measured.

        Args:
            unit_noise (bool): Whether to scale the result so that a readout measured the median number of times keeps
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
    """Count equal keys in their order: [5, 7, 5, 5] gives [0, 0, 1, 2]."""
    order = np.argsort(keys, kind="stable")
    _, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
    repeat_index = np.empty(len(keys), np.int64)
    repeat_index[order] = np.arange(len(keys)) - np.repeat(first, counts)
    return repeat_index

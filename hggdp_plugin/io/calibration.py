"""The fully sampled centre of k-space, from which coil maps are estimated."""

import numpy as np


def centred_region(sampled: np.ndarray) -> tuple[int, int]:
    """Finds the largest centred rectangle in which every position was sampled.

    Args:
        sampled (array): bool, shape (ky, kx).

    Returns:
        tuple: height and width of the rectangle of largest area that :func:`sigpy.resize` would crop to, or (0, 0).
    """
    height, width = sampled.shape
    # Half-open extents of the centred block of n among N, as sigpy.resize places it.
    columns = _centred(width)
    best, allowed = (0, 0), width
    holes = np.zeros((height + 1, width + 1), np.int64)
    holes[1:, 1:] = np.cumsum(np.cumsum(~sampled, axis=0), axis=1)
    for h, (top, bottom) in enumerate(_centred(height), start=1):
        strip = holes[bottom] - holes[top]
        while allowed and strip[columns[allowed - 1][1]] > strip[columns[allowed - 1][0]]:
            allowed -= 1  # the blocks are nested: a taller one is never wider
        if h * allowed > best[0] * best[1]:
            best = (h, allowed)
    return best


def _centred(size: int) -> list[tuple[int, int]]:
    return [(size // 2 - n // 2, size // 2 - n // 2 + n) for n in range(1, size + 1)]

"""Flips and transpositions of slices, and volumes as slices."""

from collections.abc import Sequence

import sigpy as sp


def flips(ishape: Sequence[int]) -> list[sp.linop.Linop]:
    """Return the eight flips and quarter turns of images, as unitary Linops.

    Args:
        ishape (sequence of int): Image shape (..., H, W).

    Returns:
        list of Linop: From images (..., H, W) to (..., H, W) or, transposed, (..., W, H); the first is the identity.

    Example:
        >>> [tuple(T.oshape) for T in flips((3, 5))][3:5]
        [(3, 5), (5, 3)]
    """
    n = len(ishape)
    linops = []
    for transpose in (sp.linop.Identity(ishape), sp.linop.Transpose(ishape, (*range(n - 2), n - 1, n - 2))):
        for axes in ((), (-2,), (-1,), (-2, -1)):
            linops.append(sp.linop.Flip(transpose.oshape, axes) * transpose if axes else transpose)
    return linops


def slice_stacks(ishape: Sequence[int]) -> list[sp.linop.Linop]:
    """Return the three ways to see volumes as stacks of slices, as unitary Linops: an axis before the other two.

    Args:
        ishape (sequence of int): Shape of the volumes (..., D, H, W).

    Returns:
        list of Linop: From volumes to slices (..., D, H, W), (..., H, D, W) and (..., W, D, H).

    Example:
        >>> [tuple(T.oshape) for T in slice_stacks((2, 3, 5))]
        [(2, 3, 5), (3, 2, 5), (5, 2, 3)]
    """
    n = len(ishape)
    orders = ((n - 3, n - 2, n - 1), (n - 2, n - 3, n - 1), (n - 1, n - 3, n - 2))
    return [sp.linop.Transpose(ishape, (*range(n - 3), *order)) for order in orders]

"""Guess from its values what an array is: an image, Cartesian k-space, or the readouts of a trajectory."""

from typing import Literal

import numpy as np

from hggdp_plugin._typing import Array

#: Fraction of the norm inside the central eighth of the axes: k-space has more than the first, images less than the
#: second. Between them the kind is open.
KSPACE_FRACTION, IMAGE_FRACTION = 0.7, 0.4
#: Largest over mean energy along an axis: at least the first where the axis runs through the k-space center, at most
#: the second along an axis of readouts that all do.
PEAKED, FLAT = 4.0, 2.0
#: A shorter axis is never taken for a phase encoding in place of coils.
MIN_PHASE_ENCODINGS = 16


def guess_kind(array: Array) -> Literal["image", "kspace"] | None:
    """Guess whether an array is an image or k-space.

    Several coils along the second of four axes mean k-space, and real numbers an image. Otherwise the energy decides:
    k-space has nearly all of it around its center, an image only a few percent.

    Args:
        array (array): Array of 2 to 4 axes, the last two of them (y, x) or (ky, kx).

    Returns:
        str or None: ``"image"``, ``"kspace"``, or None if it can't be told.
    """
    if array.ndim == 4 and array.shape[1] > 1:
        return "kspace"
    if not np.iscomplexobj(array):
        return "image"
    fraction = central_fraction(array)
    return "kspace" if fraction > KSPACE_FRACTION else "image" if fraction < IMAGE_FRACTION else None


def central_fraction(array: Array, n_axes: int = 2) -> float:
    """Return the fraction of the norm inside the central eighth of the last axes."""
    index = [slice(None)] * (array.ndim - n_axes)
    index += [slice(n // 2 - n // 16, n // 2 + n // 16 + 1) for n in array.shape[-n_axes:]]
    return float(np.linalg.norm(array[tuple(index)]) / max(float(np.linalg.norm(array)), 1e-30))


def coils_look_like_phase_encodings(kspace: Array) -> bool:
    """Return whether k-space has its energy in the middle of the coil axis, so that the axes seem to be confused.

    Args:
        kspace (array): Complex (..., coils, ky, kx).

    Returns:
        bool: Whether another axis is probably the coils.
    """
    if kspace.shape[-3] < MIN_PHASE_ENCODINGS:
        return False
    return central_fraction(_energy(kspace, -3) ** 0.5, 1) > KSPACE_FRACTION


def looks_like_readouts(kspace: Array) -> bool:
    """Return whether all lines of k-space have the same energy, as the spokes of a radial trajectory do.

    Args:
        kspace (array): Complex (..., ky, kx), zero where it was not sampled.

    Returns:
        bool: Whether this is probably not Cartesian.
    """
    profiles = [_energy(kspace, axis) for axis in (-2, -1)]
    peaks = [float(profile.max() / profile[profile > 0].mean()) for profile in profiles if len(profile) > 1]
    return len(peaks) == 2 and min(peaks) <= FLAT and max(peaks) >= PEAKED


def _energy(array: Array, axis: int) -> Array:
    """Return the energy at every position along an axis."""
    others = tuple(other for other in range(-array.ndim, 0) if other != axis)
    return (abs(array) ** 2).sum(axis=others, dtype=float)

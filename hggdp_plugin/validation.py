"""Checks of the arguments of a reconstruction. SigPy would turn what they refuse into a RuntimeError deep inside."""

import logging
from numbers import Real

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array
from hggdp_plugin.plausibility import (
    IMAGE_FRACTION,
    KSPACE_FRACTION,
    central_fraction,
    coils_look_like_phase_encodings,
)

_logger = logging.getLogger(__name__)

#: Fraction of k-space that may be zero in all coils and have a weight before a warning is logged.
MAX_UNSAMPLED = 0.05
#: Smallest matrix whose center is looked at.
MIN_MATRIX = 16
#: Largest coordinate, relative to half the matrix: outside the first range it is refused, outside the second doubted.
POSSIBLE_EXTENT, PLAUSIBLE_EXTENT = (0.25, 4.0), (0.5, 1.1)


def check_arguments(
    y: Array,
    mps: Array | None,
    noise_var: float | None,
    weights: Array | None,
    coord: Array | None,
    ndim: int | None = None,
    maps: int = 1,
) -> None:
    """Refuse arguments of :class:`hggdp_plugin.HGGDPRecon` that do not fit together.

    Args:
        y (array): As in :class:`hggdp_plugin.HGGDPRecon`, like the others.
        mps (None or array): Coil sensitivity maps.
        noise_var (None or float): Noise variance.
        weights (None or array): k-space weights.
        coord (None or array): Non-Cartesian coordinates.
        ndim (None or int): Axes of an image.
        maps (int): Sets of maps.

    Raises:
        ValueError: Names the argument, its shape and what would fit.
    """
    if ndim not in (None, 2, 3):
        raise ValueError(f"ndim: expected 2 for slices or 3 for volumes, got {ndim!r}")
    if noise_var is not None and not isinstance(noise_var, Real):
        raise ValueError(f"noise_var: expected a number, got {noise_var!r}")
    if coord is not None and (coord.ndim < 2 or coord.shape[-1] not in ((2, 3) if ndim is None else (ndim,))):
        raise ValueError(f"coord: expected shape (..., {ndim or '2 or 3'}), got {coord.shape}")
    ndim = ndim or (2 if coord is None else coord.shape[-1])
    image_axes = ("D", "H", "W")[-ndim:]
    image = ", ".join(image_axes)
    if coord is not None and maps > 1:
        raise ValueError(f"maps: expected 1 with coord, got {maps}; objects fold over on the Cartesian grid only")
    if coord is not None and mps is None:
        raise ValueError(f"mps: coord needs sensitivity maps (coils, {image}); for one coil, ones of the image's shape")
    axes = image_axes if coord is None else coord.shape[:-1]
    if y.ndim < len(axes) + 1 or (coord is not None and y.shape[-len(axes) :] != axes):
        raise ValueError(f"y: expected shape (..., coils, {', '.join(map(str, axes))}), got {y.shape}")
    if not np.iscomplexobj(y):
        raise ValueError(f"y: expected complex k-space, got {y.dtype}")
    for name, array in {"y": y, "mps": mps, "weights": weights, "coord": coord}.items():
        if array is not None and not _all_finite(array):
            raise ValueError(f"{name}: has NaN or infinite values (shape {array.shape}); set them to zero or leave out")
    with sp.get_device(y):
        if not y.any():
            raise ValueError("y: all samples are zero; there is nothing to reconstruct")
    coils = y.shape[-len(axes) - 1]
    if mps is None and (coils != 1 or maps != 1):
        shape = f"({'maps, ' if maps > 1 else ''}coils, {image})"
        raise ValueError(f"mps: y has {coils} coils (shape {y.shape}); give sensitivity maps {shape}")
    if mps is not None:
        _check_maps(mps, maps, y, len(axes), ndim, y.shape[-ndim:] if coord is None else mps.shape[-ndim:])
    if coord is None and ndim == 2 and coils_look_like_phase_encodings(y):
        raise ValueError(
            f"y: of shape {y.shape}, expected (..., coils, H, W); the energy is in the middle of the coil axis. Move "
            "the coils there. For volumes (coils, D, H, W) give ndim=3 or, along an axis that is fully sampled, an "
            "inverse FFT, and it becomes a leading axis"
        )
    if mps is not None and ndim == 2 and maps == 1 and _are_coils_first(mps):
        raise ValueError(
            f"mps: of shape {mps.shape}, expected (..., coils, H, W); the squares of the maps sum to a constant along "
            "the first axis, not along the third last. Move the coils there, in y too: numpy.moveaxis(a, 0, -3)"
        )
    if weights is not None and not _are_weights(weights, y):
        raise ValueError(f"weights: expected values >= 0 that broadcast to y {y.shape}, got shape {weights.shape}")
    if weights is not None and not weights.any():
        raise ValueError(f"weights: all are zero (shape {weights.shape}); nothing of y would count")
    if coord is None and weights is not None and weights.size > 1:
        _warn_of_unsampled(y, weights, -ndim - 1)
    if coord is not None and mps is not None:
        _check_units(coord, mps.shape[-ndim:])
    if noise_var is not None and not 0 <= noise_var < float("inf"):
        raise ValueError(f"noise_var: expected a noise variance >= 0, got {noise_var}")


def sets_axis(maps: int) -> tuple[int, ...]:
    """Return the axis of the sets of coil maps in the shapes of maps and images: there is none for one set."""
    return (maps,) if maps > 1 else ()


def check_counts(**counts: int | None) -> None:
    """Refuse counts below 1; None is allowed.

    Args:
        **counts: Counts by the name of the argument.

    Raises:
        ValueError: Names the count.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")


def check_reference_noise(mps: Array | None, weights: Array | None, coord: Array | None) -> None:
    """Refuse data for which the data consistency of the HGGDP paper's code, a gradient step of unit size, fails.

    Args:
        mps (None or array): Coil sensitivity maps.
        weights (None or array): k-space weights.
        coord (None or array): Non-Cartesian coordinates.

    Raises:
        ValueError: Names the argument and what would fit.
    """
    if coord is not None:
        raise ValueError("coord: reference_noise is for Cartesian data only; leave it out")
    if weights is not None and (top := float(weights.max())) > 1:
        raise ValueError(f"weights: reference_noise needs weights of at most 1, got up to {top:.3g}")
    if mps is not None and (top := float((abs(mps) ** 2).sum(axis=-3).max())) > 1.01:
        raise ValueError(f"mps: reference_noise needs a sum of squares of 1 over the coils, got up to {top:.3g}")


def _check_maps(mps: Array, maps: int, y: Array, kspace_axes: int, ndim: int, matrix: tuple[int, ...]) -> None:
    """Refuse maps of zeros, or of another shape than (coils, *matrix) with what may stand in front."""
    if not mps.any():
        raise ValueError(f"mps: all values are zero (shape {mps.shape}); estimate them from calibration data")
    batch, coils = y.shape[: -kspace_axes - 1], y.shape[-kspace_axes - 1]
    expected = (*sets_axis(maps), coils, *matrix)
    if mps.shape not in (expected, (*batch, *expected)):
        is_two = maps == 1 and mps.shape[-ndim - 2 :] == (2, coils, *matrix)
        hint = "; for two sets give maps=2" if is_two else ""
        raise ValueError(f"mps: expected shape {expected} for y of shape {y.shape}, got {mps.shape}{hint}")


def _check_units(coord: Array, matrix: tuple[int, ...]) -> None:
    """Refuse or doubt coordinates that are not in cycles per field of view."""
    peak, edge = float(abs(coord).max()), max(matrix) / 2
    message = (
        f"coord: the largest coordinate is {peak:.4g}, expected about {edge:g}, half the matrix of"
        f" {' x '.join(map(str, matrix))} pixels; the unit is 1 / field of view"
    )
    if not POSSIBLE_EXTENT[0] < peak / edge < POSSIBLE_EXTENT[1]:
        raise ValueError(message)
    if not PLAUSIBLE_EXTENT[0] <= peak / edge <= PLAUSIBLE_EXTENT[1]:
        _logger.warning("%s.", message)


def _all_finite(array: Array) -> bool:
    with sp.get_device(array):
        return bool(sp.get_array_module(array).isfinite(array).all())


def _are_coils_first(mps: Array) -> bool:
    """Return whether maps with leading axes have their coils along the first instead of the third last."""
    if mps.ndim < 4 or mps.shape[0] == 1:
        return False

    def deviation(axis: int) -> float:
        power = (abs(mps) ** 2).sum(axis=axis)
        power = power[power > 0]
        return float(power.std() / power.mean())

    return deviation(0) < 0.01 and deviation(-3) > 0.1


def warn_of_image(y: Array) -> None:
    """Log that k-space has little energy in its center, where its Fourier transform, or the corners, have much.

    Args:
        y (array): Cartesian k-space (..., coils, H, W).
    """
    if min(y.shape[-2:]) < MIN_MATRIX or central_fraction(y) >= IMAGE_FRACTION:
        return
    with sp.get_device(y):
        xp = sp.get_array_module(y)
        if central_fraction(xp.fft.fftshift(y, axes=(-2, -1))) > KSPACE_FRACTION:
            _logger.warning(
                "y: the energy is in the corners of k-space; apply numpy.fft.fftshift to its last two axes."
            )
        elif central_fraction(sp.fft(y, axes=(-2, -1))) > KSPACE_FRACTION:
            _logger.warning("y: little of the energy is in the center of k-space. Is it an image?")


def _warn_of_unsampled(y: Array, weights: Array, coil_axis: int) -> None:
    """Log that weights count samples that are zero in all coils, which measured ones hardly are."""
    with sp.get_device(y):
        counted = (weights > 0) & ~(y != 0).any(axis=coil_axis, keepdims=True)
        fraction = float(counted.mean())
    if fraction > MAX_UNSAMPLED:
        _logger.warning(
            "weights: %.0f %% of k-space is zero in y but has a weight, so it counts as measured. If it was not "
            "sampled, set its weight to 0.",
            100 * fraction,
        )


def _are_weights(weights: Array, y: Array) -> bool:
    try:
        broadcasts = np.broadcast_shapes(weights.shape, y.shape) == tuple(y.shape)
    except ValueError:
        return False
    with sp.get_device(weights):
        return broadcasts and not np.iscomplexobj(weights) and bool((weights >= 0).all())

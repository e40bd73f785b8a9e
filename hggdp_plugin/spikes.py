"""Spikes in Cartesian k-space: single samples far above all others around them, as sparks in the scanner leave them.

Images make streaks and speckle in k-space, where a sample has others of similar magnitude near it: in scans of many
kinds, with and without noise, and however undersampled, nothing is taken for a spike (``benchmarks/spikes.py``). The
exception is a regular pattern over the whole field of view, which is made of single samples too. It is recognized where
the opposite position of k-space was measured, or by several coils.
"""

import logging

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array

_logger = logging.getLogger(__name__)

#: A spike has more than so many times the magnitude of the largest of the others around it. In noise alone, less than
#: one sample in ten billion does.
RATIO = 4.0
#: Others that are needed to judge a sample, and half the widths of the windows in which they are looked for.
MIN_OTHERS, HALF_WIDTHS = 32, (3, 4, 6, 9, 13, 19)
#: Where nothing is taken for a spike: half the width of the center, in parts of the matrix and at least in samples, and
#: of the axes of k-space, along which straight edges of the object make sharp lines.
CENTER, MIN_CENTER, AXES = 1 / 32, 2, 1
#: What is a regular pattern of the image, not a spike: the magnitude at the opposite position of k-space is at least
#: this part of that of the sample; or so many coils see it as they see the center, with this correlation.
MIRRORED = 0.5
MIN_COILS, CORRELATED = 3, 0.95
#: Energy, in parts of the largest one, below which others are rounding errors, with which nothing can be compared.
ROUNDING = 1e-10
#: Largest part of the samples of a frame that are spikes. Where more stand out, they are something else.
MAX_SHARE = 0.01
#: Spikes can hide each other: the search is repeated without those that were found, so many times in all.
ROUNDS = 3
#: Samples of all coils to look at in one go, and samples of a coil that its usual energy is taken from.
AT_A_TIME, TO_SCALE = 2**22, 2**13
#: Slices that a message names.
MAX_NAMED = 5


def find_spikes(y: Array, measured: Array | None = None) -> Array:
    """Find single samples of Cartesian k-space that far exceed all others around them, in one coil or in several.

    Args:
        y (array): k-space (..., coils, H, W), its center at (H // 2, W // 2).
        measured (array or None): Which samples were measured, bool (..., H, W). None: where ``y`` is not 0.

    Returns:
        array: Where the spikes are, bool (..., H, W), on the device of ``y``.

    Example:
        >>> from hggdp_plugin.simulation import head_phantom
        >>> y = sp.fft(head_phantom((64, 64)), axes=(-2, -1))  # one coil: (1, 64, 64)
        >>> y[:, 20, 50] = 0.1 * abs(y).max()
        >>> np.argwhere(find_spikes(y))
        array([[20, 50]])
    """
    with (device := sp.get_device(y)):
        xp, shape = device.xp, y.shape[-2:]
        frames = y.reshape(-1, *y.shape[-3:])
        found = xp.zeros((len(frames), *shape), bool)
        if measured is not None:
            measured = xp.broadcast_to(sp.to_device(measured, device), y.shape[:-3] + shape).reshape(found.shape)
        step = max(1, AT_A_TIME // max(1, frames[:1].size))
        for start in range(0, len(frames), step):
            part = slice(start, start + step)
            found[part] = _find(frames[part], None if measured is None else measured[part])
        return found.reshape(y.shape[:-3] + shape)


def leave_out_spikes(ksp: np.ndarray, mask: np.ndarray, source: str, n_axes: int = 2) -> np.ndarray:
    """Set the spikes of a measurement to zero, and log how many there are.

    Args:
        ksp (array): k-space (..., slice, coil, *k). The spikes in it become zero.
        mask (array): Which samples were measured, bool (..., slice, *k).
        source (str): Where the measurement comes from, for the message.
        n_axes (int): Number of axes k, 2 or 3.

    Returns:
        array: Which samples are left, bool (..., slice, *k).
    """
    planes = ksp if n_axes == 2 else np.moveaxis(ksp, -4, -3)
    spikes = find_spikes(planes, mask)
    if not spikes.any():
        return mask
    values = np.moveaxis(planes, -3, -1)
    frames = np.asarray(spikes.any(axis=-3)) if n_axes == 3 else spikes
    text = describe_spikes(frames, values[spikes])
    _logger.warning("%s: %s. They are left out, as if they had not been measured.", source, text)
    values[spikes] = 0
    return mask & ~spikes


def warn_of_spikes(y: Array, weights: Array | None = None) -> None:
    """Log that k-space has spikes, and what to do.

    Args:
        y (array): Cartesian k-space (..., coils, H, W).
        weights (array or None): k-space weights that broadcast to ``y``; spikes of weight 0 do no harm.
    """
    with (device := sp.get_device(y)):
        spikes = find_spikes(y)
        if weights is not None:
            counted = device.xp.broadcast_to(sp.to_device(weights, device), y.shape) > 0
            spikes &= counted.any(axis=-3)
        if spikes.any():
            text = describe_spikes(sp.to_device(spikes), sp.to_device(device.xp.moveaxis(y, -3, -1)[spikes]))
            _logger.warning(
                "y: %s, and may ruin the image. Set them to zero, in weights too if you give any:"
                " y * ~hggdp_plugin.spikes.find_spikes(y)[..., None, :, :].",
                text,
            )


def describe_spikes(spikes: np.ndarray, values: np.ndarray) -> str:
    """Describe how many spikes there are, in which slices and coils.

    Args:
        spikes (array): Where they are, bool (..., slice, H, W).
        values (array): k-space there (spikes, coils).

    Returns:
        str: The description, a clause.
    """
    n_coils, size = values.shape[-1], abs(values)
    coils = np.flatnonzero((size > MIRRORED * size.max(axis=-1, keepdims=True)).any(axis=0)) + 1
    places = []
    if spikes.ndim > 2 and spikes.shape[-3] > 1:
        slices = np.unique(np.nonzero(spikes)[-3]) + 1
        places.append(f"slice{'s' if len(slices) > 1 else ''} {_named(slices)}")
    if n_coils > 1:
        places.append(
            "all coils" if len(coils) > n_coils / 2 else f"coil{'s' if len(coils) > 1 else ''} {_named(coils)}"
        )
    where = f" ({'; '.join(places)})" if places else ""
    samples = "1 sample of k-space is a spike" if len(values) == 1 else f"{len(values)} samples of k-space are spikes"
    return f"{samples}, far above all others around{where}"


def _named(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers[:MAX_NAMED])) + (" ..." if len(numbers) > MAX_NAMED else "")


def _find(y: Array, measured: Array | None) -> Array:
    """Find the spikes of frames (frames, coils, H, W)."""
    xp = sp.get_array_module(y)
    levels = relative_energy(y)
    present = levels[:, 0] > 0
    present = present if measured is None else present & measured
    levels *= present[:, None]
    total, spikes = present.sum(axis=(-2, -1)), xp.zeros_like(present)
    for _ in range(ROUNDS):
        new = _stand_out(levels, present)
        if not new.any():
            break
        spikes |= new
        present &= ~new
        levels *= present[:, None]
    if spikes.any():
        spikes &= ~_seen_as_center(y, levels[:, 0], spikes)
    few = spikes.sum(axis=(-2, -1)) <= xp.maximum(1, MAX_SHARE * total)
    return spikes & few[:, None, None]


def relative_energy(y: Array) -> Array:
    """Return the sum over coils of the energy in parts of what is usual in that coil, and the largest of them.

    The first is sensitive to spikes in all coils, the second to those in one.

    Args:
        y (array): k-space (frames, coils, H, W).

    Returns:
        array: float32 (frames, 2, H, W), of one coil (frames, 1, H, W).
    """
    xp = sp.get_array_module(y)
    top = xp.maximum(abs(y.real), abs(y.imag)).max(axis=(1, 2, 3), keepdims=True)
    y = y / xp.where(top > 0, top, 1)  # whose energies float32 can hold
    energy = y.real**2 + y.imag**2
    some = energy.reshape(*energy.shape[:2], -1)[..., :: (energy[0, 0].size // TO_SCALE) | 1]
    # The geometric mean of what was measured, as neither the center nor spikes change it much.
    counted = (some > ROUNDING).any(axis=1, keepdims=True)
    usual = (xp.log(xp.maximum(some, ROUNDING)) * counted).sum(axis=-1) / xp.maximum(1, counted.sum(axis=-1))
    relative = energy / xp.exp(usual)[..., None, None]
    summed = relative.sum(axis=1)
    return xp.stack([summed] if y.shape[1] == 1 else [summed, relative.max(axis=1)], axis=1)


def _stand_out(levels: Array, present: Array) -> Array:
    """Return which samples exceed the others around them, bool (frames, H, W)."""
    xp = sp.get_array_module(levels)
    rounding = ROUNDING * levels.max(axis=(-2, -1), keepdims=True)
    candidates = (levels > 0) & sp.to_device(_eligible(levels.shape[-2:]), sp.get_device(levels))
    spikes, judged = xp.zeros_like(present), xp.zeros_like(present)
    for half_width in HALF_WIDTHS:
        others = _largest_other(levels, half_width)
        candidates &= levels > RATIO**2 * others
        enough = ~judged & (_number_of_others(present, half_width) >= MIN_OTHERS)
        spikes |= enough & (candidates & (others > rounding)).any(axis=1)
        judged |= enough
        if not (candidates.any(axis=1) & ~judged).any():
            break
    return spikes & ~_is_mirrored(levels) if spikes.any() else spikes


def _eligible(shape: tuple[int, ...]) -> np.ndarray:
    """Return where samples are neither in the center nor on the axes of k-space, bool (H, W)."""
    ky, kx = (abs(np.arange(n) - n // 2) for n in shape)
    half_y, half_x = (max(MIN_CENTER, CENTER * n) for n in shape)
    eligible: np.ndarray = ((ky > half_y)[:, None] | (kx > half_x)) & (ky > AXES)[:, None] & (kx > AXES)
    return eligible


def _largest_other(levels: Array, half_width: int) -> Array:
    """Return the largest of the others in the window around each sample."""
    xp, (height, width) = sp.get_array_module(levels), levels.shape[-2:]
    padding = [(0, 0)] * (levels.ndim - 2) + [(half_width, half_width)] * 2
    row = running_max(xp.pad(levels, padding), half_width, -1)
    beside = xp.maximum(row[..., :width], row[..., half_width + 1 : half_width + 1 + width])
    inside = slice(half_width, half_width + height)
    whole = beside.copy()
    xp.maximum(whole[..., inside, :], levels, out=whole[..., inside, :])
    column = running_max(whole, half_width, -2)
    above, below = column[..., :height, :], column[..., half_width + 1 : half_width + 1 + height, :]
    return xp.maximum(beside[..., inside, :], xp.maximum(above, below))


def running_max(values: Array, length: int, axis: int) -> Array:
    """Return the largest of each so many values in a row.

    Args:
        values (array): Values.
        length (int): How many.
        axis (int): Axis.

    Returns:
        array: Element i is the largest of i and those after it; ``length - 1`` shorter.
    """
    xp, done = sp.get_array_module(values), 1
    values = xp.moveaxis(values, axis, -1)
    while done < length:
        step = min(done, length - done)
        values = xp.maximum(values[..., :-step], values[..., step:])
        done += step
    return xp.moveaxis(values, -1, axis)


def _number_of_others(present: Array, half_width: int) -> Array:
    """Return how many others in the window around each sample were measured."""
    xp, size = sp.get_array_module(present), 2 * half_width + 1
    count = xp.pad(present.astype(np.int32), [(0, 0)] + [(half_width + 1, half_width)] * 2)
    for axis in (-2, -1):
        count = xp.moveaxis(xp.cumsum(count, axis=axis, dtype=np.int32), axis, -1)
        count = xp.moveaxis(count[..., size:] - count[..., :-size], -1, axis)
    return count - present


def _seen_as_center(y: Array, energy: Array, spikes: Array) -> Array:
    """Return which spikes the coils see as the largest other sample, that of the center; bool (frames, H, W)."""
    xp, seen = sp.get_array_module(y), spikes & False
    frame, row, column = spikes.nonzero()
    if y.shape[1] >= MIN_COILS:
        top = energy.reshape(len(energy), -1).argmax(axis=-1)
        center = y.reshape(*y.shape[:2], -1)[xp.arange(len(y)), :, top][frame]
        values = y[frame, :, row, column]
        product, norms = abs((center.conj() * values).sum(axis=-1)), 1.0
        for vectors in (center, values):
            norms = norms * (abs(vectors) ** 2).sum(axis=-1) ** 0.5
        seen[frame, row, column] = product > CORRELATED * norms
    return seen


def _is_mirrored(levels: Array) -> Array:
    """Return where the opposite position of k-space, or one beside it, has a similar magnitude, bool (frames, H, W)."""
    xp, (height, width) = sp.get_array_module(levels), levels.shape[-2:]
    near = xp.maximum(_largest_other(levels, 1), levels)
    opposite = xp.roll(near[..., ::-1, ::-1], (1 - height % 2, 1 - width % 2), axis=(-2, -1))
    mirrored = (opposite > MIRRORED**2 * levels).all(axis=1)
    mirrored[:, : 1 - height % 2] = mirrored[..., : 1 - width % 2] = False  # the edge of an even axis has no opposite
    return mirrored

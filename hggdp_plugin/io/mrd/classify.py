"""Which acquisitions are image lines, calibration or noise, and which image frame each belongs to."""

import logging
import math
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.hdf5 import Lines
from hggdp_plugin.io.mrd.header import Encoding, Header

_logger = logging.getLogger(__name__)

NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE, SURFACE_COIL = 19, 20, 21, 22, 29
#: Flags of lines that belong to no image, and how a log line calls them.
NOT_IMAGE = {
    NOISE: "noise",
    23: "navigation",
    24: "phase correction",
    26: "HP feedback",
    27: "dummy",
    28: "real-time feedback",
    SURFACE_COIL: "surface-coil correction",
    30: "phase stabilisation reference",
    31: "phase stabilisation",
}
#: The counters that span image frames, in the order of the axes of a k-space array.
COUNTERS = ("repetition", "contrast", "phase", "set", "slice")


def flagged(heads: np.ndarray, bit: int) -> np.ndarray:
    """Tells which headers carry a flag, counted from 1 as the standard does."""
    return (heads["flags"] >> np.uint64(bit - 1)) & np.uint64(1) == 1


@dataclass(frozen=True)
class Selection:
    """The lines of one encoding by purpose; each array is bool of shape (lines,)."""

    encoding: Encoding
    image: np.ndarray
    calibration: np.ndarray  # flags 20 and 21
    noise: np.ndarray


def select(lines: Lines, header: Header) -> Selection:
    """Sorts acquisitions by purpose and drops those that cannot be used together.

    Args:
        lines (Lines): all acquisitions.
        header (Header): the XML header.

    Returns:
        Selection: image lines all have one encoding, channel count and readout length.

    Raises:
        InputError: no image line, or image lines that contradict each other.
    """
    heads = lines.heads
    noise = flagged(heads, NOISE)
    other = np.any([flagged(heads, bit) for bit in NOT_IMAGE if bit != SURFACE_COIL], axis=0)
    if (~other & ~flagged(heads, SURFACE_COIL)).any():  # some converters set this flag on every line of the image
        other |= flagged(heads, SURFACE_COIL)
    both = flagged(heads, CALIBRATION_AND_IMAGING)
    image = ~other & (both | ~flagged(heads, CALIBRATION))
    calibration = ~other & (both | flagged(heads, CALIBRATION))
    if not image.any():
        kinds = sorted({name for bit, name in NOT_IMAGE.items() if flagged(heads, bit).any()})
        kinds += ["calibration"] if calibration.any() else []
        raise InputError(
            f"{lines.where}/data",
            f"there are no image lines, only {', '.join(kinds)} lines",
            "give the file of the image measurement",
        )
    for bit, name in NOT_IMAGE.items():
        if bit != NOISE and (count := int((flagged(heads, bit) & other).sum())):
            _logger.info(f"{count} {name} lines are left out.")

    encoding = _one_encoding(lines, header, image, calibration)
    _agree(lines, image, "active_channels", "channels")
    _agree(lines, image, "number_of_samples", "samples")
    first = heads[image][0]
    if first["active_channels"] == 0 or first["number_of_samples"] == 0:
        raise InputError(f"{lines.where}/data", "the image lines hold no samples", "convert the raw data again")
    like = (heads["active_channels"] == first["active_channels"]) & (
        heads["number_of_samples"] == first["number_of_samples"]
    )
    if (calibration & ~like).any():
        _logger.info(
            f"{int((calibration & ~like).sum())} calibration lines of another size than the image's are left out."
        )
    return Selection(encoding, image, calibration & like, noise)


def _one_encoding(lines: Lines, header: Header, image: np.ndarray, calibration: np.ndarray) -> Encoding:
    """Keeps the first encoding that has image lines; clears the others from ``image`` and ``calibration``."""
    spaces = lines.heads["encoding_space_ref"]
    chosen = int(spaces[image].min())
    if chosen >= len(header.encodings):
        line = int(np.flatnonzero(image & (spaces == chosen))[0])
        raise InputError(
            f"{lines.where}/data line {line}",
            f"it refers to encoding {chosen}, the header has {len(header.encodings)}",
            "correct encoding_space_ref or the header",
        )
    encoding = header.encodings[chosen]
    same = [i for i, other in enumerate(header.encodings) if other.encoded == encoding.encoded]
    dropped = int((image & (spaces != chosen)).sum()) + int((calibration & ~image & ~np.isin(spaces, same)).sum())
    if dropped:
        _logger.info(f"{dropped} lines of other encodings than number {chosen} are left out.")
    calibration &= np.where(image, spaces == chosen, np.isin(spaces, same))
    image &= spaces == chosen
    return encoding


def _agree(lines: Lines, image: np.ndarray, field: str, what: str) -> None:
    numbers = np.flatnonzero(image)
    values = lines.heads[field][numbers]
    odd = np.flatnonzero(values != values[0])
    if odd.size:
        raise InputError(
            f"{lines.where}/data line {numbers[odd[0]]}",
            f"it has {values[odd[0]]} {what}, line {numbers[0]} has {values[0]}",
            "convert one kind of readout per file",
        )


@dataclass(frozen=True)
class Frames:
    """The image frames of a measurement: the counters that occur, and every line's place among them.

    Attributes:
        values (tuple of array): for each of ``COUNTERS`` the values that occur, sorted.
        number (array): flat frame number of each line, shape (lines,); -1 where a line belongs to no frame.
    """

    values: tuple[np.ndarray, ...]
    number: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of (repetition, contrast, phase, set, slice)."""
        return tuple(len(v) for v in self.values)


def find_frames(heads: np.ndarray, image: np.ndarray) -> Frames:
    """Numbers the frames that the image lines make up.

    Args:
        heads (array): acquisition headers, shape (lines,).
        image (array): bool, shape (lines,).

    Returns:
        Frames: with as many places on each axis as its counter takes values.
    """
    values = tuple(np.unique(heads["idx"][name][image]) for name in COUNTERS)
    places = [np.searchsorted(v, heads["idx"][name][image]) for v, name in zip(values, COUNTERS, strict=True)]
    number = np.full(len(heads), -1, np.int64)
    shape = tuple(len(v) for v in values)
    if math.prod(shape) < 2**62:  # a nonsense shape is refused when its array is asked for
        number[image] = np.ravel_multi_index(places, shape)
    return Frames(values, number)


def central_heads(heads: np.ndarray, frames: Frames, distance: np.ndarray) -> np.ndarray:
    """Picks the header of the line nearest to the k-space centre in each frame.

    Args:
        heads (array): acquisition headers, shape (lines,).
        frames (Frames): the frames.
        distance (array): distance of each line from the k-space centre, shape (lines,).

    Returns:
        array: headers of shape (repetition, contrast, phase, set, slice). A frame without lines gets the header of
        another frame of the same slice, with its own counters.
    """
    order = np.lexsort((distance, frames.number))
    order = order[frames.number[order] >= 0]
    present, first = np.unique(frames.number[order], return_index=True)
    slices = present % frames.shape[-1]
    nearest = np.empty(int(np.prod(frames.shape)), np.int64)
    __, example = np.unique(slices, return_index=True)
    nearest[:] = np.resize(order[first[example]], nearest.shape)  # the slice axis is the last
    nearest[present] = order[first]
    centre = heads[nearest].reshape(frames.shape)
    for axis, (name, values) in enumerate(zip(COUNTERS, frames.values, strict=True)):
        centre["idx"][name] = np.expand_dims(values, tuple(i for i in range(5) if i != axis))
    return centre

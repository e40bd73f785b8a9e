"""The image frames of a measurement: the values that its counters take."""

import math
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.mrd._ismrmrd import acquisition_header_dtype

#: The counters that span image frames, in the order of the axes of a k-space array.
COUNTERS = ("repetition", "contrast", "phase", "set", "slice")


@dataclass(frozen=True)
class Frames:
    """The counter values that occur, and the frame of each acquisition.

    Attributes:
        values (tuple of array): For each of ``COUNTERS`` the values that occur, sorted.
        number (array): Flat frame number of each acquisition, int64 (acquisitions,); -1 for those of no frame.
    """

    values: tuple[np.ndarray, ...]
    number: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of (repetition, contrast, phase, set, slice)."""
        return tuple(len(v) for v in self.values)

    @property
    def n_frames(self) -> int:
        """Number of frames, with or without acquisitions."""
        return math.prod(self.shape)

    @property
    def slices(self) -> np.ndarray:
        """The values of the slice counter."""
        return self.values[-1]


def find_frames(headers: np.ndarray, image: np.ndarray) -> Frames:
    """Find the frames that the image acquisitions make up.

    Args:
        headers (array): Acquisition headers (acquisitions,).
        image (array): Which of them belong to images, bool (acquisitions,).

    Returns:
        Frames: As many places on each axis as its counter takes values.
    """
    values = tuple(np.unique(headers["idx"][name][image]) for name in COUNTERS)
    index = [np.searchsorted(v, headers["idx"][name][image]) for v, name in zip(values, COUNTERS, strict=True)]
    number = np.full(len(headers), -1, np.int64)
    shape = tuple(len(v) for v in values)
    if math.prod(shape) < 2**62:  # the allocation of a larger array is refused later
        number[image] = np.ravel_multi_index(index, shape)
    return Frames(values, number)


def central_headers(headers: np.ndarray, frames: Frames, distance: np.ndarray) -> np.ndarray:
    """Pick the header of the acquisition nearest to the k-space center in each frame.

    Args:
        headers (array): Acquisition headers (acquisitions,).
        frames (Frames): The frames.
        distance (array): Distance of each acquisition from the k-space center (acquisitions,).

    Returns:
        array: Headers (repetition, contrast, phase, set, slice). A frame without acquisitions gets the header of
        another frame of the same slice, with its own counters.
    """
    order = np.lexsort((distance, frames.number))
    order = order[frames.number[order] >= 0]
    present, first = np.unique(frames.number[order], return_index=True)
    slices = present % frames.shape[-1]
    nearest = np.empty(frames.n_frames, np.int64)
    _, example = np.unique(slices, return_index=True)
    nearest[:] = np.resize(order[first[example]], nearest.shape)  # the slice axis is the last
    nearest[present] = order[first]
    central = headers[nearest].reshape(frames.shape)
    for axis, (name, values) in enumerate(zip(COUNTERS, frames.values, strict=True)):
        central["idx"][name] = np.expand_dims(values, tuple(i for i in range(5) if i != axis))
    return central


def default_headers(frame_shape: tuple[int, ...], n_coils: int, spacing: float) -> np.ndarray:
    """Make headers for a measurement that has none: axial slices along z.

    Args:
        frame_shape (tuple of int): Length of (repetition, contrast, phase, set, slice).
        n_coils (int): Number of coils.
        spacing (float): Distance between the slices [mm].

    Returns:
        array: Headers of shape ``frame_shape``.
    """
    headers = np.zeros(frame_shape, acquisition_header_dtype)
    headers["version"] = 1
    headers["active_channels"] = headers["available_channels"] = n_coils
    headers["read_dir"], headers["phase_dir"], headers["slice_dir"] = np.eye(3)
    headers["position"][..., 2] = spacing * np.arange(frame_shape[-1])
    for axis, name in enumerate(COUNTERS):
        headers["idx"][name] = np.indices(frame_shape)[axis]
    return headers

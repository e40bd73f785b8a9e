"""Training images, from every kind of file that scans are kept in."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io import InputError
from hggdp_plugin.plausibility import guess_kind
from hggdp_plugin.training.batches import Domain
from hggdp_plugin.training.readers import SUFFIXES, read_stacks

#: A slice of a scan whose maximum is below this fraction of the scan's shows nothing but noise.
EMPTY = 0.05


def load_images(paths: Sequence[PathLike]) -> list[Tensor]:
    """Read images, each slice divided by its maximum magnitude.

    Args:
        paths (sequence of path): Files or folders of files, of complex images

            - ``.npy`` and ``.cfl`` arrays (..., H, W),
            - ``.mat`` files with one complex array (H, W, ...),
            - ``.h5`` files with a dataset ``image``, (..., H, W), or integers (N, 2, H, W) with the attribute ``step``
              and channels real, imaginary,
            - ``.h5`` files of fully sampled Cartesian ISMRMRD raw data, whose coils are combined with ESPIRiT maps,

            or of magnitude images: real arrays in any of these, ``.h5`` files with a group for each domain
            (:func:`load_domains`), NIfTI, DICOM and ``.png`` files.

    Returns:
        list of Tensor: Real (2, H, W), float32, channels real and imaginary, the latter zero for magnitude images.
        Slices of zeros, and those of a scan that show nothing but noise, are left out.

    Raises:
        InputError: A path has no readable image; the message names it.
    """
    return [image for domain in load_domains(paths) for image in domain.images]


def load_domains(paths: Sequence[PathLike], weights: Mapping[str, float] | None = None) -> list[Domain]:
    """Read images by domain.

    In an ``.h5`` file with groups that have the attribute ``step``, every group is a domain of its name, and every
    dataset in it a magnitude image (H, W) of integers, in units of ``step``. Other files are one domain, ``images``.

    Args:
        paths (sequence of path): As :func:`load_images` takes them.
        weights (None or mapping): How often domains are drawn, relative to the others, whose weight is 1; a domain of
            weight 0 is left out.

    Returns:
        list of Domain: Domains in the order of the files.

    Raises:
        InputError: A path has no readable image, or there is no domain of a name in ``weights``.
    """
    slices: list[_Slice] = []
    for file in _find_files(paths):
        for stack in read_stacks(file):
            slices += [_Slice(stack.domain, stack.scan, *one) for one in _normalized_slices(file, stack.array)]
    peaks: dict[str | None, float] = {}
    for one in slices:
        peaks[one.scan] = max(one.peak, peaks.get(one.scan, 0.0))
    found: dict[str, list[Tensor]] = {}
    for one in slices:
        if one.scan is None or one.peak > EMPTY * peaks[one.scan]:
            found.setdefault(one.domain, []).append(one.image)
    if not found:
        raise InputError(", ".join(map(str, paths)), "all images are empty", "give other files")
    weights = dict(weights or {})
    if unknown := sorted(weights.keys() - found.keys()):
        raise InputError(unknown[0], "there is no such domain", f"choose from {', '.join(found)}")
    return [Domain(name, tuple(images), weights.get(name, 1.0)) for name, images in found.items()]


class _Slice(NamedTuple):
    """An image with its scan's name, if it has one, and the maximum that it was divided by."""

    domain: str
    scan: str | None
    image: Tensor
    peak: float


def _find_files(paths: Sequence[PathLike]) -> Iterator[Path]:
    for path in map(Path, paths):
        found = sorted(f for f in path.rglob("*") if f.name.lower().endswith(SUFFIXES)) if path.is_dir() else [path]
        if not found:
            raise InputError(path, "no training images here", f"give files ending in {', '.join(SUFFIXES)}")
        yield from found


def _normalized_slices(file: Path, array: np.ndarray) -> Iterator[tuple[Tensor, float]]:
    """Check images (..., H, W), and give those that are not zero, real (2, H, W) of maximum 1, with their maxima."""
    if array.ndim < 2 or array.dtype.kind not in "fiuc":
        raise InputError(file, f"expected images (..., H, W), got {array.dtype} {array.shape}", "give images")
    if min(array.shape[-2:]) < 2:
        size = " x ".join(map(str, array.shape[-2:]))
        raise InputError(file, f"images of {size} pixels cannot fill a crop", "give images of at least 2 x 2 pixels")
    if not np.isfinite(array).all():
        raise InputError(file, "has NaN or infinite values", "remove them before training")
    slices = array.reshape(-1, *array.shape[-2:])
    if guess_kind(slices) == "kspace":
        raise InputError(file, "its energy is all in the center, as in k-space", "give images")
    for one, peak in zip(slices, np.abs(slices).max(axis=(1, 2)), strict=True):
        if peak > 0:
            channels = np.stack([one.real, one.imag]) / peak
            yield torch.from_numpy(channels.astype(np.float32)), float(peak)

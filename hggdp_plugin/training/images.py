"""Training images, from every kind of file that scans are kept in."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from hggdp_plugin._typing import PathLike
from hggdp_plugin.coil_maps import KERNEL_WIDTH, combine_coils
from hggdp_plugin.io import InputError, RawData, read_array, read_raw
from hggdp_plugin.io.array_kind import guess_kind
from hggdp_plugin.training.batches import Domain

SUFFIXES = (".h5", ".npy", ".cfl", ".mat")

#: Name of the domain of images that have no other.
IMAGES = "images"

#: A slice of raw data whose maximum is below this share of the scan's is beside the object: noise.
EMPTY = 0.05


def load_images(paths: Sequence[PathLike]) -> list[Tensor]:
    """Read images, each slice divided by its maximum magnitude.

    Args:
        paths (sequence of path): Files or folders of files: ``.npy`` and ``.cfl`` arrays of images (..., H, W), complex
            or real, ``.mat`` files with one complex array (H, W, ...), ``.h5`` files with a dataset ``image``, complex
            or real (..., H, W) or integer (N, 2, H, W) with the attribute ``step`` and channels real, imaginary,
            ``.h5`` files with a group for each domain (:func:`load_domains`), and ``.h5`` files of fully sampled
            Cartesian ISMRMRD raw data, whose coils are combined with ESPIRiT maps.

    Returns:
        list of Tensor: Real (2, H, W), float32, channels real and imaginary, the latter zero for magnitude images;
        empty slices are left out.

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
    found: dict[str, list[Tensor]] = {}
    for file in _find_files(paths):
        for name, arrays in _read(file).items():
            found.setdefault(name, []).extend(image for array in arrays for image in _slices(file, array))
    found = {name: images for name, images in found.items() if images}
    if not found:
        raise InputError(", ".join(map(str, paths)), "all images are empty", "give other files")
    weights = dict(weights or {})
    if unknown := sorted(weights.keys() - found.keys()):
        raise InputError(unknown[0], "there is no such domain", f"choose from {', '.join(found)}")
    return [Domain(name, tuple(images), weights.get(name, 1.0)) for name, images in found.items()]


def _find_files(paths: Sequence[PathLike]) -> Iterator[Path]:
    for path in map(Path, paths):
        found = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not found:
            raise InputError(path, "no training images here", f"give files ending in {', '.join(SUFFIXES)}")
        yield from found


def _slices(file: Path, array: np.ndarray) -> list[Tensor]:
    """Check an array of images (..., H, W) and return its slices as real (2, H, W) of maximum 1."""
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
    peaks = np.abs(slices).max(axis=(1, 2))
    return [
        torch.from_numpy((np.stack([s.real, s.imag]) / peak).astype(np.float32))
        for s, peak in zip(slices, peaks, strict=True)
        if peak > 0
    ]


def _read(file: Path) -> dict[str, list[np.ndarray]]:
    """Read the images of a file, by domain."""
    suffix = file.suffix.lower()
    if suffix == ".mat":
        return {IMAGES: [_read_mat(file)]}
    if suffix != ".h5":
        return {IMAGES: [read_array(file)]}
    try:
        with h5py.File(file, "r") as h5:
            if "image" in h5:
                return {IMAGES: [_stored(h5["image"])]}
            domains = {name: group for name, group in h5.items() if "step" in group.attrs}
            if domains:
                return {name: _stored_domain(group) for name, group in domains.items()}
    except (OSError, KeyError, IndexError, TypeError, AttributeError) as error:
        problem = f"not a training file with a dataset 'image' or groups of images ({error})"
        raise InputError(file, problem, "see docs/training.md for the layout") from error
    return {IMAGES: [combined(read_raw(file))]}


def _stored(dataset: Any) -> np.ndarray:
    data = dataset[()]
    if np.issubdtype(data.dtype, np.integer):
        real = data.astype(np.float32) * np.float32(dataset.attrs["step"])
        data = real[:, 0] + 1j * real[:, 1]
    return data


def _stored_domain(group: Any) -> list[np.ndarray]:
    return [dataset[()] * np.float32(group.attrs["step"]) for dataset in group.values()]


def _read_mat(file: Path) -> np.ndarray:
    """Read the one complex array of a MATLAB file, (H, W, ...) there, as (..., H, W)."""
    from scipy.io import loadmat

    try:
        if h5py.is_hdf5(file):  # MATLAB 7.3: axes reversed, complex numbers as pairs
            with h5py.File(file, "r") as h5:
                pairs = {k: v[()] for k, v in h5.items() if isinstance(v, h5py.Dataset) and v.dtype.names}
            arrays = {k: (v["real"] + 1j * v["imag"]).T for k, v in pairs.items() if v.dtype.names == ("real", "imag")}
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of variables that are no arrays
                arrays = {k: v for k, v in loadmat(file).items() if np.iscomplexobj(v)}
    except Exception as e:  # SciPy raises what its parser stumbles over: struct.error, zlib.error, TypeError and more
        raise ValueError(f"{file}: not a readable MATLAB file ({e})") from e
    if len(arrays) != 1:
        found = ", ".join(sorted(arrays)) or "none"
        raise ValueError(f"{file}: expected one complex array, found {found}; save the images alone")
    (array,) = arrays.values()
    return np.moveaxis(array, (0, 1), (-2, -1))


def combined(raw: RawData) -> np.ndarray:
    """Images of fully sampled raw data, as a reconstruction with ESPIRiT maps would see them.

    Args:
        raw (RawData): Cartesian measurement.

    Returns:
        array: complex64 (images, H, W) on the measured grid; slices beside the object are left out.

    Raises:
        InputError: The measurement is not Cartesian, or not fully sampled.
    """
    if raw.coord is not None or raw.calib is None:
        raise InputError(raw.source, f"its trajectory is {raw.trajectory}", "train on Cartesian data, or on images")
    ksp = raw.ksp.reshape(-1, *raw.ksp.shape[4:])
    ksp = ksp[ksp.any(axis=(1, 2, 3, 4))]  # a frame that was not measured at all is none
    sampled = float(ksp.any(axis=2).mean())
    if sampled < 1:
        raise InputError(
            raw.source, f"{100 * sampled:.0f} % of its k-space was measured", "train on fully sampled scans"
        )
    images = np.zeros((*ksp.shape[:2], *raw.grid), np.complex64)
    coils, width = ksp.shape[2], min(raw.grid)
    if coils > 1 and width <= KERNEL_WIDTH:
        raise InputError(raw.source, f"a matrix of {raw.grid} is too small for coil maps", "train on larger images")
    for slice_, calib in enumerate(raw.calib):
        images[:, slice_] = combine_coils(ksp[:, slice_], calib, raw.calib_width)
    images = images.reshape(-1, *raw.grid)
    peaks = np.abs(images).max(axis=(1, 2))
    return images[peaks > EMPTY * peaks.max()]

"""Training images, from every kind of file that scans are kept in."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from hggdp_plugin.coil_maps import KERNEL_WIDTH, combine_coils
from hggdp_plugin.io import InputError, RawData, read_array, read_raw
from hggdp_plugin.simulation.source import guess_kind

SUFFIXES = (".h5", ".npy", ".cfl", ".mat")

#: A slice of raw data whose maximum is below this share of the scan's is beside the object: noise.
EMPTY = 0.05


def load_images(paths: Sequence[str | Path]) -> list[Tensor]:
    """Read complex images, each slice divided by its maximum magnitude.

    Args:
        paths: Files or folders of files: ``.npy`` and ``.cfl`` arrays of complex images (..., H, W), ``.mat`` files
            with one complex array (H, W, ...), ``.h5`` files with a dataset ``image``, complex (..., H, W) or integer
            (N, 2, H, W) with the attribute ``step`` and channels real, imaginary, and ``.h5`` files of fully sampled
            Cartesian ISMRMRD raw data, whose coils are combined by ESPIRiT maps.

    Returns:
        list of Tensor: Real (2, H, W), float32, channels real and imaginary; empty slices are left out.

    Raises:
        ValueError: A path has no readable image; the message names it.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path}: no training images here; expected files ending in {', '.join(SUFFIXES)}")
        files += found
    images = [torch.from_numpy(image) for file in files for image in _slices(file)]
    if not images:
        raise ValueError(f"{', '.join(map(str, paths))}: all images are empty; nothing to train on")
    return images


def _slices(file: Path) -> list[np.ndarray]:
    array = _read(file)
    if array.ndim < 2 or not np.iscomplexobj(array):
        raise ValueError(f"{file}: expected complex images (..., H, W), got {array.dtype} {array.shape}")
    if min(array.shape[-2:]) < 2:
        raise ValueError(
            f"{file}: images of {array.shape[-2]} x {array.shape[-1]} pixels cannot fill a crop; need 2 x 2"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{file}: has NaN or infinite values; remove them before training")
    slices = array.reshape(-1, *array.shape[-2:])
    peaks = np.abs(slices).max(axis=(1, 2))
    if guess_kind(slices) == "kspace":
        raise ValueError(f"{file}: its energy is all in the centre, as in k-space; give images")
    return [
        (np.stack([s.real, s.imag]) / peak).astype(np.float32)
        for s, peak in zip(slices, peaks, strict=True)
        if peak > 0
    ]


def _read(file: Path) -> np.ndarray:
    suffix = file.suffix.lower()
    if suffix == ".mat":
        return _read_mat(file)
    if suffix != ".h5":
        return read_array(file)
    try:
        with h5py.File(file, "r") as h5:
            if "image" in h5:
                return _stored(h5["image"])
    except (OSError, KeyError, IndexError, TypeError, AttributeError) as e:
        raise ValueError(f"{file}: not a training file with a dataset 'image' ({e})") from e
    return combined(read_raw(file))


def _stored(dataset: Any) -> np.ndarray:
    data = dataset[()]
    if np.issubdtype(data.dtype, np.integer):
        real = data.astype(np.float32) * np.float32(dataset.attrs["step"])
        data = real[:, 0] + 1j * real[:, 1]
    return data


def _read_mat(file: Path) -> np.ndarray:
    """The one complex array of a MATLAB file, (H, W, ...) there, as (..., H, W)."""
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

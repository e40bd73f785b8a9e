"""Readers of training images, one for every kind of file that scans are kept in."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hggdp_plugin.coil_maps import combine_coils
from hggdp_plugin.io import InputError, RawData, read_array, read_raw
from hggdp_plugin.io.nifti import read_nifti

SUFFIXES = (".h5", ".npy", ".cfl", ".mat", ".nii", ".nii.gz", ".dcm", ".ima", ".png")

#: Name of the domain of images that have no other.
IMAGES = "images"


class Stack(NamedTuple):
    """Images that were read together.

    Attributes:
        domain (str): Name of their domain.
        array (array): Images (..., H, W), complex or real.
        scan (str or None): Name of the scan whose slices, of one intensity scale, they are; None: each has its own.
    """

    domain: str
    array: np.ndarray
    scan: str | None = None


def read_stacks(file: Path) -> list[Stack]:
    """Read the images of a file.

    Args:
        file (Path): File with one of the :data:`SUFFIXES`.

    Returns:
        list of Stack: Its images.

    Raises:
        InputError: It has no readable images; the message names it.
    """
    name = file.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return [Stack(IMAGES, read_nifti(file), str(file))]
    if name.endswith((".dcm", ".ima")):
        return [_read_dicom(file)]
    if name.endswith(".png"):
        return [Stack(IMAGES, _read_png(file))]
    if name.endswith(".mat"):
        return [Stack(IMAGES, _read_mat(file))]
    if name.endswith(".h5"):
        return _read_hdf5(file)
    return [Stack(IMAGES, read_array(file))]


def _read_hdf5(file: Path) -> list[Stack]:
    try:
        with h5py.File(file, "r") as h5:
            if "image" in h5:
                return [Stack(IMAGES, _stored(h5["image"]))]
            domains = {name: group for name, group in h5.items() if "step" in group.attrs}
            if domains:
                return [
                    Stack(name, dataset[()] * np.float32(group.attrs["step"]))
                    for name, group in domains.items()
                    for dataset in group.values()
                ]
    except (OSError, KeyError, IndexError, TypeError, AttributeError) as error:
        problem = f"not a training file with a dataset 'image' or groups of images ({error})"
        raise InputError(file, problem, "see docs/training.md for the layout") from error
    return [Stack(IMAGES, combine_scan(read_raw(file)), str(file))]


def _stored(dataset: Any) -> np.ndarray:
    data = dataset[()]
    if np.issubdtype(data.dtype, np.integer):
        real = data.astype(np.float32) * np.float32(dataset.attrs["step"])
        data = real[:, 0] + 1j * real[:, 1]
    return data


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
                warnings.simplefilter("ignore")  # about variables that are not arrays
                arrays = {k: v for k, v in loadmat(file).items() if np.iscomplexobj(v)}
    except Exception as error:  # SciPy raises whatever its parser runs into: struct.error, zlib.error, TypeError, ...
        raise InputError(file, f"not a readable MATLAB file ({error})", "save the images again") from error
    if len(arrays) != 1:
        found = ", ".join(sorted(arrays)) or "none"
        raise InputError(file, f"expected one complex array, found {found}", "save the images alone")
    (array,) = arrays.values()
    return np.moveaxis(array, (0, 1), (-2, -1))


def _read_dicom(file: Path) -> Stack:
    if find_spec("pydicom") is None:
        raise InputError(file, "DICOM files need the package pydicom", "pip install pydicom")
    import pydicom
    from pydicom.pixels import apply_rescale

    try:
        dataset = pydicom.dcmread(file)
        array = apply_rescale(dataset.pixel_array, dataset).astype(np.float32)
        gray = dataset.PhotometricInterpretation == "MONOCHROME2"
        series = str(dataset.get("SeriesInstanceUID", file))
    except Exception as error:  # pydicom lets through whatever a damaged file provokes
        raise InputError(file, f"not a readable DICOM image ({error})", "give another file") from error
    if not gray:
        raise InputError(file, f"its pixels are {dataset.PhotometricInterpretation}", "give MONOCHROME2 images")
    return Stack(IMAGES, array, series)


def _read_png(file: Path) -> np.ndarray:
    from PIL import Image

    if not file.is_file():
        raise InputError(file, "there is no such file", "check the path")
    try:
        with Image.open(file) as image:
            if image.mode in ("P", "LA", "RGBA"):
                image = image.convert("RGB")
            array = np.asarray(image).astype(np.float32)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(file, f"not a readable PNG image ({error})", "save the image again") from error
    if array.ndim == 3:
        if (array != array[..., :1]).any():
            raise InputError(file, "a color image", "give gray images")
        array = array[..., 0]
    return array


def combine_scan(raw: RawData) -> np.ndarray:
    """Combine the coils of fully sampled raw data, as a reconstruction with ESPIRiT maps would see them.

    Args:
        raw (RawData): Cartesian measurement.

    Returns:
        array: complex64 (images, H, W) on the measured grid.

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
    for slice_, calib in enumerate(raw.calib):
        images[:, slice_] = combine_coils(ksp[:, slice_], calib, raw.calib_shape)
    return images.reshape(-1, *raw.grid)

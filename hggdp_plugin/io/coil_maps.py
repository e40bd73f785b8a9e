"""Coil sensitivity maps from HDF5 files: an ISMRMRD image series with the coils as channels, or a plain array."""

import os
from typing import Any

import h5py
import numpy as np

from hggdp_plugin.io.files import InputError

_REMEDY = "give a file with one complex array (coils, y, x) or (slices, coils, y, x), or one ISMRMRD image series"


def read_h5_maps(path: str | os.PathLike[str], is_3d: bool) -> np.ndarray:
    """Reads the one array of complex numbers in a file that can be maps.

    Args:
        path (path): HDF5 file. The array is complex as h5py or ISMRMRD write it (a pair of floats), of shape (coils,
            y, x) or (slices, coils, y, x), or the data (n, coils, z, y, x) of an ISMRMRD image series.
        is_3d (bool): whether the measurement is 3D Cartesian; the maps of an image series are then volumes.

    Returns:
        array: complex, (coils, y, x) or (slices, coils, y, x); of volumes (x, coils, z, y).

    Raises:
        InputError: the file cannot be used.
    """
    if not os.path.isfile(path):
        raise InputError(path, "there is no such file", "check the path")
    try:
        with h5py.File(path, "r") as file:
            found: list[str] = []
            file.visititems(lambda name, item: found.append(name) if _can_be_maps(item) else None)
            if len(found) != 1:
                several = ", ".join(found)
                raise InputError(path, f"it holds several complex arrays: {several}" if several else "no maps", _REMEDY)
            data = file[found[0]]
            if data.size * data.dtype.itemsize > 64 * os.path.getsize(path) + 2**26:
                raise InputError(f"{path}:/{found[0]}", f"its shape {data.shape} is too large for the file", _REMEDY)
            mps = _complex(data[()])
            if mps.ndim == 5:
                mps = _of_series(mps, data.parent, is_3d, f"{path}:/{data.parent.name.strip('/')}")
    except InputError:
        raise
    except Exception as error:  # anything that a damaged or foreign HDF5 file provokes
        raise InputError(path, f"it is not a readable HDF5 file ({error})", _REMEDY) from None
    if not np.isfinite(mps).all():
        raise InputError(path, "it does not hold finite numbers", "make the maps again")
    return mps


def _can_be_maps(item: Any) -> bool:
    if not isinstance(item, h5py.Dataset):
        return False
    pair = item.dtype.names in (("real", "imag"), ("r", "i")) and item.dtype[0].kind == item.dtype[1].kind == "f"
    in_series = item.ndim == 5 and item.name.endswith("/data")
    return (pair or item.dtype.kind == "c") and (item.ndim in (3, 4) or in_series) and item.size > 0


def _complex(values: np.ndarray) -> np.ndarray:
    names = values.dtype.names
    return values if names is None else values[names[0]] + 1j * values[names[1]]


def _of_series(mps: np.ndarray, series: h5py.Group, is_3d: bool, where: str) -> np.ndarray:
    """Puts the images (n, coils, z, y, x) of a series in the order of their slices."""
    slices = series["header"]["slice"].reshape(-1)
    if len(slices) != len(mps) or len(np.unique(slices)) != len(slices):
        raise InputError(where, f"it holds {len(mps)} images of {len(np.unique(slices))} slices", _REMEDY)
    mps = mps[np.argsort(slices)]
    if is_3d:
        mps = np.moveaxis(mps, -1, 1)
        return mps.reshape(-1, *mps.shape[2:])
    if mps.shape[2] != 1:
        raise InputError(where, f"it holds volumes of {mps.shape[2]} partitions", "give maps of 2D slices")
    return mps[:, :, 0]

"""Read coil sensitivity maps: arrays of BART and NumPy, HDF5 files and ISMRMRD image series."""

import logging
import os

import h5py
import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.arrays import is_bart, peak_magnitude, read_array
from hggdp_plugin.io.cfl import take_dims
from hggdp_plugin.io.files import InputError, suffix_of
from hggdp_plugin.io.hdf5 import open_hdf5
from hggdp_plugin.io.mrd.images import complex_values, read_series
from hggdp_plugin.io.mrd.kspace_grid import MAX_EXPANSION, SMALL_ARRAY_BYTES
from hggdp_plugin.io.raw import MAX_SAMPLE, SliceAxis

_logger = logging.getLogger(__name__)

_MAPS = "a file with one complex array (coils, y, x) or (slices, coils, y, x), or one ISMRMRD image series"
_REMEDY = f"give {_MAPS}"


def read_maps(path: PathLike, slice_axis: SliceAxis = "slice", maps: int = 1) -> np.ndarray:
    """Read coil sensitivity maps.

    Args:
        path (path): .cfl in BART's dimensions; .npy or HDF5 (.h5) of shape (coils, *grid) or (slices, coils, *grid); or
            an ISMRMRD image series (.h5) with the coils as channels.
        slice_axis (SliceAxis): What the slices of the measurement count, see :class:`RawData`. Maps of volumes in .cfl
            files and image series are split accordingly.
        maps (int): Sets of maps. 1: no axis of sets; of several in a .cfl file the first is taken. More: an axis before
            the coils, in .cfl files MAPS; not in image series.

    Returns:
        array: complex64 (slices, coils, *grid), or (slices, maps, coils, *grid) for several sets.

    Raises:
        InputError: If the file cannot be used.
    """
    if suffix_of(path) == ".h5":
        mps = _read_h5(path, slice_axis, maps)
    else:
        mps = read_array(path)
        if is_bart(path):
            mps = _sets_of_bart(mps, path, slice_axis, maps)
    n_axes = (4 if slice_axis == "slab" else 3) + (maps > 1)
    if mps.ndim not in (n_axes, n_axes + 1):
        axes = f"({'maps, ' if maps > 1 else ''}coils, {'z, ' if slice_axis == 'slab' else ''}y, x)"
        raise InputError(path, f"an array of shape {mps.shape} holds no maps", f"give axes {axes}")
    if not 0 < (peak := peak_magnitude(mps)) <= MAX_SAMPLE:
        problem = "all maps are zero" if peak == 0 else "its values are too large for sensitivities"
        raise InputError(path, problem, "normalize the maps" if peak else "estimate them again")
    return mps.astype(np.complex64).reshape((1,) * (n_axes + 1 - mps.ndim) + mps.shape)


def _sets_of_bart(array: np.ndarray, path: PathLike, slice_axis: SliceAxis, maps: int) -> np.ndarray:
    """Return maps (slices, coils, *grid) or (slices, maps, coils, *grid) from BART's dimensions, reversed."""
    sets = take_dims(array, ("MAPS", "SLICE", "COIL", "PHS2", "PHS1", "READ"), path, "coil maps")
    if len(sets) < maps:
        raise InputError(path, f"it has {len(sets)} set of maps", f"make {maps} with bart ecalib -m{maps}")
    if len(sets) > maps:
        used = "the first is used; --maps 2 uses two" if maps == 1 else f"the first {maps} are used"
        _logger.warning("%s: %d sets of maps; %s.", path, len(sets), used)
    parts = [_split_volumes(one, slice_axis) for one in sets[:maps]]
    return parts[0] if maps == 1 else np.stack(parts, axis=1)


def _split_volumes(mps: np.ndarray, slice_axis: SliceAxis) -> np.ndarray:
    """Split maps (slabs, coils, z, y, x) along the axis that counts 2D problems."""
    if slice_axis == "slab":
        return mps
    mps = np.moveaxis(mps, -1 if slice_axis == "x" else 2, 1)
    return mps.reshape(-1, *mps.shape[2:])


def _read_h5(path: PathLike, slice_axis: SliceAxis, maps: int) -> np.ndarray:
    """Read the one array of complex numbers in an HDF5 file that can be maps."""
    try:
        with open_hdf5(path, _MAPS) as file:
            data = _find_maps(file, path, maps)
            size = data.size * data.dtype.itemsize
            if size > MAX_EXPANSION * os.path.getsize(path) + SMALL_ARRAY_BYTES:
                raise InputError(f"{path}:{data.name}", f"its shape {data.shape} is too large for the file", _REMEDY)
            in_series = data.ndim == 5 and maps == 1
            mps = _read_volumes(data.parent, slice_axis, path) if in_series else complex_values(data[()])
    except InputError:
        raise
    except Exception as error:  # whatever a damaged or foreign HDF5 file provokes
        raise InputError(path, f"it is not a readable HDF5 file ({error})", _REMEDY) from None
    if not np.isfinite(mps).all():
        raise InputError(path, "it does not hold finite numbers", "make the maps again")
    return mps


def _find_maps(file: h5py.File, path: PathLike, maps: int) -> h5py.Dataset:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if _can_be_maps(item, maps) else None)
    if len(found) != 1:
        names = ", ".join(found)
        remedy = _REMEDY if maps == 1 else "give one complex array (maps, coils, y, x) or (slices, maps, coils, y, x)"
        raise InputError(path, f"it holds several complex arrays: {names}" if names else "it holds no maps", remedy)
    return file[found[0]]


def _can_be_maps(item: object, maps: int) -> bool:
    if not isinstance(item, h5py.Dataset):
        return False
    pair = item.dtype.names in (("real", "imag"), ("r", "i")) and item.dtype[0].kind == item.dtype[1].kind == "f"
    in_series = item.ndim == 5 and item.name.endswith("/data")
    fits = item.ndim in (3, 4) or in_series if maps == 1 else item.ndim in (4, 5) and not in_series
    return bool((pair or item.dtype.kind == "c") and fits and item.size > 0)


def _read_volumes(series: h5py.Group, slice_axis: SliceAxis, path: PathLike) -> np.ndarray:
    """Read the maps of an image series in the order of their slices."""
    where = f"{path}:{series.name}"
    try:
        mps = read_series(series, ("slice",))
    except ValueError as error:
        raise InputError(where, str(error), _REMEDY) from None
    if slice_axis == "slice" and mps.shape[2] != 1:
        raise InputError(where, f"it holds volumes of {mps.shape[2]} partitions", "give maps of 2D slices")
    return _split_volumes(mps, slice_axis)

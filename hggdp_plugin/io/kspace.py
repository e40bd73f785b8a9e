"""K-space, trajectories and coil maps that come as plain arrays: BART's cfl, and NumPy."""

import logging
import os

import numpy as np
import sigpy as sp

from hggdp_plugin.io.cfl import IMAGE_DIMS, take_dims
from hggdp_plugin.io.coil_maps import read_h5_maps
from hggdp_plugin.io.files import InputError, suffix_of
from hggdp_plugin.io.images import read_array
from hggdp_plugin.io.mrd.classify import COUNTERS
from hggdp_plugin.io.mrd.hdf5 import MAX_SAMPLE, acquisition_header_dtype
from hggdp_plugin.io.mrd.header import MAX_MATRIX
from hggdp_plugin.io.raw import RawData, Shape3, Size3

#: Suffixes of files that hold an array rather than acquisitions.
ARRAY_SUFFIXES = (".cfl", ".hdr", ".npy")

PathLike = str | os.PathLike[str]

_FRAMES = IMAGE_DIMS[:5]
_logger = logging.getLogger(__name__)


def read_kspace(path: PathLike, coord: PathLike | None = None, grid: tuple[int, int] | None = None) -> RawData:
    """Reads k-space from an array file; what arrays do not tell, such as geometry and noise, is left open.

    BART's .cfl files have their dimensions as its ``pics`` takes them: READ, PHS1, PHS2, COIL, and frames along TE,
    TIME, TIME2, SLICE and BATCH; with a trajectory (1, samples, shots, COIL). Cartesian data with several PHS2 are
    split into 2D problems along READ. NumPy's .npy files are (coils, ky, kx) or (slices, coils, ky, kx); with a
    trajectory (shots, samples) takes the place of (ky, kx).

    Args:
        path (path): k-space, centred, zero where not sampled.
        coord (path or None): trajectory in units of 1 / field of view: .cfl of dimensions (3, samples, shots), in the
            order x, y, z, or .npy of shape (shots, samples, 2), in the order y, x. None: Cartesian data.
        grid (tuple or None): image matrix (y, x) of non-Cartesian data; None: the square that the trajectory covers.

    Returns:
        RawData: the measurement, with voxels of 1 mm.

    Raises:
        InputError: a file cannot be used, or the two do not fit together.
    """
    ksp = _axes(read_array(path), path, coord is not None)
    if not np.iscomplexobj(ksp):
        raise InputError(path, f"it holds {ksp.dtype}, not complex numbers", "give k-space, not an image")
    if not 0 < (peak := _peak(ksp)) <= MAX_SAMPLE:
        what = "all samples are zero" if peak == 0 else f"samples reach {peak:.3g}"
        raise InputError(path, what, "measure again, or save the array again")
    ksp = ksp.astype(np.complex64)
    if coord is None:
        return _cartesian(ksp, path)
    if ksp.shape[-1] != 1:
        raise InputError(path, f"READ is {ksp.shape[-1]}, not 1", "leave out the trajectory of Cartesian data")
    return _other(ksp[..., 0], coord, grid, path)


def read_maps(path: PathLike, is_3d: bool = False) -> np.ndarray:
    """Reads coil sensitivity maps.

    Args:
        path (path): .cfl in BART's dimensions; .npy or HDF5 (.h5) of shape (coils, y, x) or (slices, coils, y, x), in
            3D with the 2D problems' positions along the readout as slices; or an ISMRMRD image series (.h5) with the
            coils as channels.
        is_3d (bool): whether the measurement is 3D Cartesian.

    Returns:
        array: complex64 (slices, coils, y, x), in 3D (readout positions, coils, z, y).

    Raises:
        InputError: the file cannot be used.
    """
    mps = read_h5_maps(path, is_3d) if suffix_of(path) == ".h5" else read_array(path)
    if suffix_of(path) in (".cfl", ".hdr"):
        mps = take_dims(mps, ("SLICE", "COIL", "PHS2", "PHS1", "READ"), path, "one set of coil maps")
        mps = np.moveaxis(mps, -1, 1) if is_3d else np.moveaxis(mps, 2, 1)  # the axis that counts 2D problems
        mps = mps.reshape(-1, *mps.shape[2:])
    elif mps.ndim not in (3, 4):
        raise InputError(path, f"an array of shape {mps.shape} holds no maps", "give axes (coils, y, x)")
    if _peak(mps) > MAX_SAMPLE:
        raise InputError(path, "its values are too large for sensitivities", "normalise the maps")
    return mps.astype(np.complex64).reshape((1,) * (4 - mps.ndim) + mps.shape)


def _is_bart(path: PathLike) -> bool:
    return suffix_of(path) != ".npy"


def _peak(array: np.ndarray) -> float:
    with np.errstate(over="ignore"):  # infinite is large enough
        return float(np.abs(array).max(initial=0))


def _axes(ksp: np.ndarray, path: PathLike, with_coord: bool) -> np.ndarray:
    """Brings k-space to (repetition, contrast, phase, set, slice, coil, PHS2, PHS1, READ), as in BART."""
    if _is_bart(path):
        return take_dims(ksp, (*_FRAMES, "COIL", "PHS2", "PHS1", "READ"), path, "k-space arrays")
    if ksp.ndim not in (3, 4):
        axes = "(coils, shots, samples)" if with_coord else "(coils, ky, kx)"
        raise InputError(path, f"an array of shape {ksp.shape} is no k-space", f"give axes {axes}")
    ksp = ksp.reshape((1,) * (8 - ksp.ndim) + ksp.shape)
    return ksp[..., None] if with_coord else ksp[..., None, :, :]


def _trajectory(path: PathLike) -> np.ndarray:
    """Reads positions as float32 (repetition, contrast, phase, set, slice, shots, samples, 2), in the order y, x."""
    k = read_array(path)
    if _is_bart(path):
        k = take_dims(k, (*_FRAMES, "PHS2", "PHS1", "READ"), path, "trajectories")
        if k.shape[-1] != 3:
            raise InputError(path, f"READ is {k.shape[-1]}, not 3 (x, y, z)", "give a trajectory, as bart traj writes")
        if k[..., 2].any():
            raise InputError(path, "the trajectory is three-dimensional", "only 2D trajectories can be read")
        return k[..., 1::-1].real.astype(np.float32)
    if k.ndim != 3 or k.shape[-1] != 2 or np.iscomplexobj(k):
        raise InputError(
            path, f"{k.dtype} of shape {k.shape} is no trajectory", "give real numbers, axes (shots, samples, 2)"
        )
    return k.astype(np.float32).reshape(1, 1, 1, 1, 1, *k.shape)


def _other(ksp: np.ndarray, coord: PathLike, grid: tuple[int, int] | None, path: PathLike) -> RawData:
    k = _trajectory(coord)
    frames = zip(k.shape[:5], ksp.shape[:5], strict=True)
    if k.shape[5:7] != ksp.shape[-2:] or any(n not in (1, m) for n, m in frames):
        sizes = f"(frames, shots, samples) of {k.shape[:-1]}, k-space of {ksp.shape[:5] + ksp.shape[-2:]}"
        raise InputError(coord, f"the trajectory has {sizes}", "give both of one scan")
    largest = _peak(k)
    if not 0.51 < largest <= MAX_MATRIX / 2:
        raise InputError(coord, f"its largest coordinate is {largest:.4g}", "give it in units of 1 / field of view")
    width = 2 * int(np.ceil(largest))
    shared = k.size == k[0, 0, 0, 0, 0].size
    k = k[0, 0, 0, 0, 0] if shared else np.broadcast_to(k, ksp.shape[:5] + k.shape[5:])
    return _raw(ksp, k, grid or (width, width), None, path)


def _cartesian(ksp: np.ndarray, path: PathLike) -> RawData:
    depth, rows, columns = ksp.shape[-3:]
    if depth == 1:
        return _raw(ksp[..., 0, :, :], None, (rows, columns), None, path)
    sampled = ksp.any(axis=5).reshape(-1, depth, rows, columns)
    if (sampled.any(axis=-1, keepdims=True) & sampled.any(axis=(0, 1, 2)) & ~sampled).any():
        raise InputError(path, "3D k-space is undersampled along READ", "make READ the fully sampled dimension")
    ksp = np.moveaxis(sp.ifft(ksp, axes=(-1,)), -1, 5)  # the positions along READ are the 2D problems
    ksp = ksp.reshape(*ksp.shape[:4], -1, *ksp.shape[6:])
    return _raw(ksp, None, (depth, rows), columns, path)


def _raw(
    ksp: np.ndarray, coord: np.ndarray | None, grid: tuple[int, int], readout: int | None, path: PathLike
) -> RawData:
    """Fills in what arrays do not tell; ``readout`` is the number of positions along the readout in 3D."""
    slabs, (rows, columns) = ksp.shape[4], grid
    fov_shape = Shape3(slabs, rows, columns)
    if readout is not None:
        slabs, fov_shape = slabs // readout, Shape3(*grid, readout)
    depth = 1 if readout is None else fov_shape.z
    heads = np.zeros((*ksp.shape[:4], slabs), acquisition_header_dtype)
    heads["version"] = 1
    heads["active_channels"] = heads["available_channels"] = ksp.shape[5]
    heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = np.eye(3)
    heads["position"][..., 2] = depth * np.arange(slabs)
    for axis, name in enumerate(COUNTERS):
        heads["idx"][name] = np.indices(heads.shape)[axis]
    # An array has no other way to say what was measured; BART and SigPy read it so too.
    mask = np.asarray(ksp.any(axis=5)) if coord is None else None
    _logger.info("The array tells no geometry: voxels of 1 mm.")
    return RawData(
        ksp=ksp,
        mask=mask,
        coord=coord,
        calib=ksp[0, 0, 0, 0] if coord is None else None,
        calib_mask=None if mask is None else mask[0, 0, 0, 0],
        trajectory="cartesian" if coord is None else "non-Cartesian",
        is_3d=readout is not None,
        whitened=False,
        noise_cov=None,
        grid=grid,
        fov_shape=fov_shape,
        image_shape=Shape3(depth * slabs, *fov_shape[1:]),
        fov=Size3(float(depth), float(fov_shape.y), float(fov_shape.x)),
        acq_headers=heads,
        header="",
        source=str(path),
    )

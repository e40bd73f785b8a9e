"""Read k-space and trajectories that come as plain arrays: BART's cfl, and NumPy."""

import logging

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.arrays import is_bart, peak_magnitude, read_array
from hggdp_plugin.io.cfl import IMAGE_DIMS, take_dims
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.frames import default_headers
from hggdp_plugin.io.raw import MAX_MATRIX, MAX_SAMPLE, RawData, Shape3, Size3

_logger = logging.getLogger(__name__)

_FRAMES = IMAGE_DIMS[:5]
#: Largest coordinate of a trajectory in cycles per pixel, with some tolerance. Arrays must be in other units.
_PER_PIXEL_MAX = 0.51


def read_kspace(path: PathLike, coord: PathLike | None = None, grid: tuple[int, int] | None = None) -> RawData:
    """Read k-space from an array file. What arrays do not say, such as geometry and noise, is left open.

    BART's .cfl files have their dimensions as its ``pics`` takes them: READ, PHS1, PHS2, COIL, and frames along TE,
    TIME, TIME2, SLICE and BATCH; with a trajectory (1, samples, shots, COIL). Cartesian data with several PHS2 are
    split into 2D problems along READ. NumPy's .npy files are (coils, ky, kx) or (slices, coils, ky, kx); with a
    trajectory (shots, samples) takes the place of (ky, kx).

    Args:
        path (path): k-space, centered, zero where it was not sampled.
        coord (path or None): Trajectory in units of 1 / field of view: .cfl of dimensions (3, samples, shots), in the
            order x, y, z, or .npy of shape (shots, samples, 2), in the order y, x. None: Cartesian data.
        grid (tuple or None): Image matrix (y, x) of non-Cartesian data; None: the square that the trajectory covers.

    Returns:
        RawData: The measurement, with voxels of 1 mm.

    Raises:
        InputError: If a file cannot be used, or the two do not fit together.
    """
    ksp = _standard_axes(read_array(path), path, coord is not None)
    if not np.iscomplexobj(ksp):
        raise InputError(path, f"it holds {ksp.dtype}, not complex numbers", "give k-space, not an image")
    if not 0 < (peak := peak_magnitude(ksp)) <= MAX_SAMPLE:
        problem = "all samples are zero" if peak == 0 else f"samples reach {peak:.3g}"
        raise InputError(path, problem, "measure again, or save the array again")
    ksp = ksp.astype(np.complex64)
    if coord is None:
        return _cartesian(ksp, path)
    if ksp.shape[-1] != 1:
        raise InputError(path, f"READ is {ksp.shape[-1]}, not 1", "leave out the trajectory of Cartesian data")
    return _noncartesian(ksp[..., 0], coord, grid, path)


def _standard_axes(ksp: np.ndarray, path: PathLike, with_coord: bool) -> np.ndarray:
    """Bring k-space to (repetition, contrast, phase, set, slice, coil, PHS2, PHS1, READ), as in BART."""
    if is_bart(path):
        return take_dims(ksp, (*_FRAMES, "COIL", "PHS2", "PHS1", "READ"), path, "k-space arrays")
    if ksp.ndim not in (3, 4):
        axes = "(coils, shots, samples)" if with_coord else "(coils, ky, kx)"
        raise InputError(path, f"an array of shape {ksp.shape} is not k-space", f"give axes {axes}")
    ksp = ksp.reshape((1,) * (8 - ksp.ndim) + ksp.shape)
    return ksp[..., None] if with_coord else ksp[..., None, :, :]


def _read_trajectory(path: PathLike) -> np.ndarray:
    """Read coordinates, float32 (repetition, contrast, phase, set, slice, shots, samples, 2), in the order y, x."""
    k = read_array(path)
    if is_bart(path):
        k = take_dims(k, (*_FRAMES, "PHS2", "PHS1", "READ"), path, "trajectories")
        if k.shape[-1] != 3:
            raise InputError(path, f"READ is {k.shape[-1]}, not 3 (x, y, z)", "give a trajectory, as bart traj writes")
        if k[..., 2].any():
            raise InputError(path, "the trajectory is three-dimensional", "only 2D trajectories can be read")
        return k[..., 1::-1].real.astype(np.float32)
    if k.ndim != 3 or k.shape[-1] != 2 or np.iscomplexobj(k):
        raise InputError(
            path, f"{k.dtype} of shape {k.shape} is not a trajectory", "give real numbers, axes (shots, samples, 2)"
        )
    return k.astype(np.float32).reshape(1, 1, 1, 1, 1, *k.shape)


def _noncartesian(ksp: np.ndarray, coord: PathLike, grid: tuple[int, int] | None, path: PathLike) -> RawData:
    k = _read_trajectory(coord)
    frames = zip(k.shape[:5], ksp.shape[:5], strict=True)
    if k.shape[5:7] != ksp.shape[-2:] or any(n not in (1, m) for n, m in frames):
        sizes = f"(frames, shots, samples) of {k.shape[:-1]}, k-space of {ksp.shape[:5] + ksp.shape[-2:]}"
        raise InputError(coord, f"the trajectory has {sizes}", "give both of one scan")
    largest = peak_magnitude(k)
    if not _PER_PIXEL_MAX < largest <= MAX_MATRIX / 2:
        raise InputError(coord, f"its largest coordinate is {largest:.4g}", "give it in units of 1 / field of view")
    width = 2 * int(np.ceil(largest))
    one_trajectory = k.size == k[0, 0, 0, 0, 0].size
    k = k[0, 0, 0, 0, 0] if one_trajectory else np.broadcast_to(k, ksp.shape[:5] + k.shape[5:])
    return _raw_data(ksp, k, grid or (width, width), None, path)


def _cartesian(ksp: np.ndarray, path: PathLike) -> RawData:
    import sigpy as sp

    depth, rows, columns = ksp.shape[-3:]
    if depth == 1:
        return _raw_data(ksp[..., 0, :, :], None, (rows, columns), None, path)
    sampled = ksp.any(axis=5).reshape(-1, depth, rows, columns)
    if (sampled.any(axis=-1, keepdims=True) & sampled.any(axis=(0, 1, 2)) & ~sampled).any():
        raise InputError(path, "3D k-space is undersampled along READ", "make READ the fully sampled dimension")
    ksp = np.moveaxis(sp.ifft(ksp, axes=(-1,)), -1, 5)  # the positions along READ are the 2D problems
    ksp = ksp.reshape(*ksp.shape[:4], -1, *ksp.shape[6:])
    return _raw_data(ksp, None, (depth, rows), columns, path)


def _raw_data(
    ksp: np.ndarray, coord: np.ndarray | None, grid: tuple[int, int], readout: int | None, path: PathLike
) -> RawData:
    """Fill in what arrays do not say; ``readout`` is the number of positions along the readout in 3D."""
    _logger.info("No geometry in the file; assuming 1 mm voxels.")
    slabs, (rows, columns) = ksp.shape[4], grid
    fov_shape = Shape3(slabs, rows, columns)
    if readout is not None:
        slabs, fov_shape = slabs // readout, Shape3(*grid, readout)
    depth = 1 if readout is None else fov_shape.z
    # An array has no other way to say what was not measured than zeros. BART and SigPy read it so, too.
    mask = np.asarray(ksp.any(axis=5)) if coord is None else None
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
        acq_headers=default_headers((*ksp.shape[:4], slabs), ksp.shape[5], spacing=depth),
        header="",
        source=str(path),
    )

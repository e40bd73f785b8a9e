"""Read k-space and trajectories that come as plain arrays: BART's cfl, and NumPy."""

import logging

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.arrays import is_bart, peak_magnitude, read_array
from hggdp_plugin.io.cfl import IMAGE_DIMS, take_dims
from hggdp_plugin.io.coil_maps import read_maps
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.frames import default_headers
from hggdp_plugin.io.raw import MAX_MATRIX, MAX_SAMPLE, RawData, Shape3, Size3, SliceAxis
from hggdp_plugin.io.trajectory import KSpaceExtent, check_step, split_partitions, to_cycles_per_fov
from hggdp_plugin.plausibility import (
    IMAGE_FRACTION,
    central_fraction,
    coils_look_like_phase_encodings,
    looks_like_readouts,
)
from hggdp_plugin.spikes import leave_out_spikes

_logger = logging.getLogger(__name__)

_FRAMES = IMAGE_DIMS[:5]


def read_kspace(
    path: PathLike, coord: PathLike | None = None, grid: tuple[int, ...] | None = None, *, mps: PathLike | None = None
) -> RawData:
    """Read k-space from an array file. What arrays do not say, such as geometry and noise, is left open.

    BART's .cfl files have their dimensions as its ``pics`` takes them: READ, PHS1, PHS2, COIL, and frames along TE,
    TIME, TIME2, SLICE and BATCH; with a trajectory (1, samples, shots, COIL). Cartesian data with several PHS2 are
    split into 2D problems along READ, and remain volumes if they are undersampled along it. NumPy's .npy files are
    (coils, ky, kx) or (slices, coils, ky, kx); with a trajectory (shots, samples) takes the place of (ky, kx). Complete
    stacks of equal planar trajectories are split into partitions; other trajectories in three dimensions are volumes.

    Args:
        path (path): k-space, centered, zero where it was not sampled.
        coord (path or None): Trajectory in units of 1 / field of view: .cfl of dimensions (3, samples, shots), in the
            order x, y, z, or .npy of shape (shots, samples, 2 or 3), in the order y, x or z, y, x. None: Cartesian
            data.
        grid (tuple or None): Image matrix (y, x) or (z, y, x) of non-Cartesian data. None: that of the coil maps, or
            what the trajectory covers.
        mps (path or None): Coil maps of the measurement, for their matrix.

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
    k = _read_trajectory(coord)
    if grid is None and mps is not None:
        grid = read_maps(mps, "slab" if k.shape[-1] == 3 else "slice").shape[-k.shape[-1] :]
    return _noncartesian(ksp[..., 0], k, coord, grid, path)


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
    """Read coordinates, float32 (*frames, shots, samples, axes), in the order y, x or z, y, x."""
    k = read_array(path)
    if is_bart(path):
        k = take_dims(k, (*_FRAMES, "PHS2", "PHS1", "READ"), path, "trajectories")
        if k.shape[-1] != 3:
            raise InputError(path, f"READ is {k.shape[-1]}, not 3 (x, y, z)", "give a trajectory, as bart traj writes")
        n_axes = 3 if k[..., 2].any() else 2
        return np.ascontiguousarray(k[..., :n_axes][..., ::-1].real, np.float32)
    if k.ndim != 3 or k.shape[-1] not in (2, 3) or np.iscomplexobj(k):
        raise InputError(
            path,
            f"{k.dtype} of shape {k.shape} is not a trajectory",
            "give real numbers, axes (shots, samples, 2) or (shots, samples, 3)",
        )
    return k.astype(np.float32).reshape(1, 1, 1, 1, 1, *k.shape)


def _noncartesian(
    ksp: np.ndarray, k: np.ndarray, coord: PathLike, grid: tuple[int, ...] | None, path: PathLike
) -> RawData:
    frames = zip(k.shape[:5], ksp.shape[:5], strict=True)
    if k.shape[5:7] != ksp.shape[-2:] or any(n not in (1, m) for n, m in frames):
        sizes = f"(frames, shots, samples) of {k.shape[:-1]}, k-space of {ksp.shape[:5] + ksp.shape[-2:]}"
        raise InputError(coord, f"the trajectory has {sizes}", "give both of one scan")
    if grid is None:
        check_step(k, coord)
        grid = _covered_matrix(k, coord)
    elif len(grid) != k.shape[-1]:
        raise InputError(coord, f"it has {k.shape[-1]} axes, the image matrix {grid}", "give both of one scan")
    else:
        k = to_cycles_per_fov(k, KSpaceExtent(grid, (1.0,) * len(grid)), coord)
    one_trajectory = k.size == k[0, 0, 0, 0, 0].size
    if len(grid) == 3:
        every = np.broadcast_to(k, (*ksp.shape[:5], *k.shape[5:])).reshape(-1, *k.shape[5:])
        stack = split_partitions(
            ksp.reshape(-1, *ksp.shape[5:]), every[:1] if one_trajectory else every, n_partitions=grid[0]
        )
        if stack is not None:
            _logger.info("Stack of %d partitions: transformed along kz.", grid[0])
            ksp, k = stack[0].reshape(*ksp.shape[:4], -1, *stack[0].shape[2:]), stack[1]
            k = k[0] if one_trajectory else np.repeat(k, grid[0], axis=0).reshape(*ksp.shape[:5], *k.shape[1:])
            return _raw_data(ksp, k, "z", Shape3(*grid), path)
    k = k[0, 0, 0, 0, 0] if one_trajectory else np.broadcast_to(k, ksp.shape[:5] + k.shape[5:])
    if len(grid) == 3:
        return _raw_data(ksp, k, "slab", Shape3(*grid), path)
    return _raw_data(ksp, k, "slice", Shape3(1, *grid), path)


def _covered_matrix(k: np.ndarray, coord: PathLike) -> tuple[int, ...]:
    """Return the matrix that a trajectory in cycles per field of view covers, square in the plane."""
    if (largest := peak_magnitude(k)) > MAX_MATRIX / 2:
        raise InputError(coord, f"its largest coordinate is {largest:.4g}", "give it in units of 1 / field of view")
    width = 2 * int(np.ceil(peak_magnitude(k[..., -2:])))
    return (width, width) if k.shape[-1] == 2 else (2 * int(np.ceil(peak_magnitude(k[..., 0]))), width, width)


def _cartesian(ksp: np.ndarray, path: PathLike) -> RawData:
    import sigpy as sp

    depth, rows, columns = ksp.shape[-3:]
    if depth == 1 or columns == 1:
        _check_plausible(ksp[..., 0, :, :] if depth == 1 else ksp[..., 0], path)
    if depth == 1:
        return _raw_data(ksp[..., 0, :, :], None, "slice", Shape3(1, rows, columns), path)
    sampled = ksp.any(axis=5).reshape(-1, depth, rows, columns)
    if (sampled.any(axis=-1, keepdims=True) & sampled.any(axis=(0, 1, 2)) & ~sampled).any():
        _logger.warning(
            "%s: undersampled along READ, so it is reconstructed as a volume. If another dimension is fully sampled, "
            "make it READ (bart transpose): 2D problems remain.",
            path,
        )
        return _raw_data(ksp, None, "slab", Shape3(depth, rows, columns), path)
    ksp = np.moveaxis(sp.ifft(ksp, axes=(-1,)), -1, 5)  # the positions along READ are the 2D problems
    ksp = ksp.reshape(*ksp.shape[:4], -1, *ksp.shape[6:])
    return _raw_data(ksp, None, "x", Shape3(depth, rows, columns), path)


def _check_plausible(ksp: np.ndarray, path: PathLike) -> None:
    """Refuse Cartesian k-space (..., coils, ky, kx) that is something else, and warn about k-space that may be."""
    if coils_look_like_phase_encodings(ksp):
        coils, ky, kx = ksp.shape[-3:]
        problem = f"{coils} coils, {ky} x {kx} k-space: the energy is in the middle of the coil axis"
        remedy = "give axes (coils, ky, kx), or a volume as .cfl with the coils in dimension 3"
        raise InputError(path, problem, remedy)
    if looks_like_readouts(ksp):
        problem = "every line has as much energy as the others, like the spokes of a trajectory"
        raise InputError(path, problem, "give the trajectory with -t")
    if central_fraction(ksp) < IMAGE_FRACTION:
        _logger.warning(
            "%s: little of the energy is in the center of k-space. Is it an image, or is the zero frequency in the "
            "corner (then apply numpy.fft.fftshift)?",
            path,
        )


def _raw_data(
    ksp: np.ndarray, coord: np.ndarray | None, slice_axis: SliceAxis, matrix: Shape3, path: PathLike
) -> RawData:
    """Fill in what arrays do not say; ``matrix`` is that of a slice or of a slab."""
    _logger.info("No geometry in the file; assuming 1 mm voxels.")
    grid: tuple[int, ...] = {"slice": matrix[1:], "x": matrix[:2], "z": matrix[1:], "slab": matrix}[slice_axis]
    depth = {"slice": 1, "x": matrix.x, "z": matrix.z, "slab": 1}[slice_axis]
    n_slabs = ksp.shape[4] // depth
    image_shape = matrix._replace(z=matrix.z * n_slabs)
    # An array has no other way to say what was not measured than zeros. BART and SigPy read it so, too.
    mask = calib = calib_mask = None
    if coord is None:
        measured = np.asarray(ksp.any(axis=5))
        mask = leave_out_spikes(ksp, measured, str(path), len(grid))
        calib, calib_mask = _time_average(ksp, mask), np.asarray(measured[:, 0, :, 0].any(axis=(0, 1)))
    return RawData(
        ksp=ksp,
        mask=mask,
        coord=coord,
        calib=calib,
        calib_mask=calib_mask,
        trajectory="cartesian" if coord is None else "non-Cartesian",
        slice_axis=slice_axis,
        whitened=False,
        noise_cov=None,
        grid=tuple(grid),
        fov_shape=image_shape if slice_axis == "slice" else matrix,
        image_shape=image_shape,
        fov=Size3(float(matrix.z), float(matrix.y), float(matrix.x)),
        acq_headers=default_headers((*ksp.shape[:4], n_slabs), ksp.shape[5], spacing=matrix.z),
        header="",
        source=str(path),
    )


def _time_average(ksp: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Average k-space (slice, coil, *k) over repetitions and phases: interleaved undersampling fills its center."""
    frames, measured = ksp[:, 0, :, 0], mask[:, 0, :, 0]
    if frames.shape[0] * frames.shape[1] == 1:
        return frames[0, 0]
    count = measured.sum(axis=(0, 1))
    return frames.sum(axis=(0, 1)) / np.maximum(1, count)[:, None].astype(np.float32)

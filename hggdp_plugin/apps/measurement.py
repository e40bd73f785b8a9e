"""From a measurement to its image: maps, slices in batches, samples."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import sigpy as sp

from hggdp_plugin import maps
from hggdp_plugin.apps.hggdp import HGGDPRecon
from hggdp_plugin.compression import coil_compression, compress_coils
from hggdp_plugin.io import RawData


def compress(raw: RawData, number: int, log: Callable[[str], None] = print) -> tuple[RawData, np.ndarray]:
    """Combines the coils of a measurement to virtual ones, found from the calibration data if there are any.

    Args:
        raw (RawData): The measurement.
        number (int): Number of virtual coils.
        log (function): Told in one sentence how much signal is kept.

    Returns:
        tuple: the measurement in virtual coils, and the matrix (number, coils) that makes them, for maps.

    Raises:
        ValueError: ``number`` is not between 1 and the number of coils.
    """
    matrix, kept = coil_compression(raw.ksp if raw.calib is None else raw.calib, number)
    log(f"Coils: {raw.ksp.shape[5]} compressed to {number}, {100 * kept:.2f} % of the energy kept.")
    calib = None if raw.calib is None else compress_coils(matrix, raw.calib)
    return replace(raw, ksp=compress_coils(matrix, raw.ksp), calib=calib), matrix


def estimate_maps(
    raw: RawData, width: int | None = None, device: sp.Device = sp.cpu_device, log: Callable[[str], None] = print
) -> np.ndarray:
    """Sensitivity maps of every slice, from the calibration region if there is one.

    Args:
        raw (RawData): The measurement.
        width (int or None): Width of the calibration region; None for what was found.
        device (Device): Where to compute.
        log (function): Told in one sentence how the maps were made.

    Returns:
        array: complex64 (slices, coils, *grid).
    """
    coils, shape = raw.ksp.shape[5], (raw.ksp.shape[5], *raw.grid)
    if coils == 1:
        log("Maps: one coil, taken as uniform.")
        return np.ones((raw.ksp.shape[4], *shape), np.complex64)
    if raw.calib is None:
        width = width or maps.CALIB_WIDTH
        # One trajectory serves all frames; where they differ the first frame's own is used.
        frames = np.ndindex(raw.ksp.shape[4])
        calib = [
            maps.gridded_centre(raw.ksp[0, 0, 0, 0, s], _coord(raw, (0, 0, 0, 0, s)), width, device) for (s,) in frames
        ]
        calib = [sp.resize(c, shape) for c in calib]
    else:
        calib, width = list(raw.calib), width or raw.calib_width
    if width > maps.KERNEL_WIDTH:
        used = min(width, maps.CALIB_WIDTH)
        log(f"Maps: ESPIRiT from the central {used} x {used} of k-space.")
        mps = [maps.espirit_maps(c, width, device) for c in calib]
    else:
        log("Maps: no fully sampled centre; low-resolution coil images over their root sum of squares.")
        mps = [maps.low_resolution_maps(c, device=device) for c in calib]
    return np.stack([sp.to_device(m) for m in mps])


def reconstruct(
    raw: RawData,
    mps: np.ndarray,
    lamda: float | None = None,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 8,
    **options: Any,
) -> np.ndarray:
    """Reconstruct all slices and frames of a measurement.

    Args:
        raw (RawData): The measurement.
        mps (array): Sensitivity maps (slices, coils, *grid) or (coils, *grid).
        lamda (None or float): Noise variance E|n|^2 of a sample; None: 1 for prewhitened data with several coils, else
            as :class:`HGGDPRecon` chooses.
        samples (int): Number of reconstructions with different noise that are averaged.
        seed (int): Seed of the first one's noise.
        batch_size (int): Slices reconstructed at a time.
        **options: Passed to :class:`HGGDPRecon`.

    Returns:
        array: complex64 image (repetition, contrast, phase, set, slice, y, x), as the header asks for.
    """
    frames, coils = raw.ksp.shape[:5], raw.ksp.shape[5]
    if lamda is None and raw.whitened and coils > 1:
        lamda = 1.0
    mps = np.broadcast_to(mps, (frames[4], coils, *raw.grid))
    ksp = raw.ksp.reshape(-1, *raw.ksp.shape[5:])
    image = np.zeros((len(ksp), *raw.grid), np.complex64)
    measured = np.flatnonzero(ksp.any(axis=tuple(range(1, ksp.ndim))))
    if raw.coord is not None and raw.coord.ndim > 3:
        batch_size = 1  # every frame has a trajectory of its own
    for start in range(0, len(measured), batch_size):
        part = measured[start : start + batch_size]
        coord = None if raw.coord is None else _coord(raw, np.unravel_index(part[0], frames))
        for sample in range(samples):
            app = HGGDPRecon(ksp[part], mps[part % frames[4]], lamda=lamda, coord=coord, seed=seed + sample, **options)
            image[part] += sp.to_device(app.run()) / samples
    return raw.to_image(image.reshape(*frames, *raw.grid))


def _coord(raw: RawData, frame: Any) -> Any:
    assert raw.coord is not None
    return raw.coord if raw.coord.ndim == 3 else raw.coord[tuple(frame)]

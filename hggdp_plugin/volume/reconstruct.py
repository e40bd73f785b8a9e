"""From a measurement to its image: maps, slices in batches, samples."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp

from hggdp_plugin import coil_maps as maps
from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.coil_compression import coil_compression, compress_coils
from hggdp_plugin.io import RawData
from hggdp_plugin.memory import coils_at_a_time, slices_at_a_time
from hggdp_plugin.volume.progress import Progress
from hggdp_plugin.volume.resume import Finished, fingerprint

#: Share of the noise variance of prewhitened data that counts. The half, with which PSNR on validation data is better
#: than with all of it (benchmarks/noise.py).
WHITENED_SHARE = 0.5


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
        log (function): Told in one sentence how the maps are made.

    Returns:
        array: complex64 (slices, coils, *grid).
    """
    of_slice = map_estimator(raw, width, device, log)
    return np.stack([of_slice(s) for s in range(raw.ksp.shape[4])])


def map_estimator(
    raw: RawData, width: int | None = None, device: sp.Device = sp.cpu_device, log: Callable[[str], None] = print
) -> Callable[[int], np.ndarray]:
    """As :func:`estimate_maps`, but makes the maps (coils, *grid) of a slice when it is called with its number."""
    coils, shape = raw.ksp.shape[5], (raw.ksp.shape[5], *raw.grid)
    if coils == 1:
        log("Maps: one coil, taken as uniform.")
        return lambda s: np.ones(shape, np.complex64)
    calib_width = width or (maps.CALIB_WIDTH if raw.calib is None else raw.calib_width)
    espirit = calib_width > maps.KERNEL_WIDTH
    if espirit:
        used = min(calib_width, maps.CALIB_WIDTH)
        log(f"Maps: ESPIRiT from the central {used} x {used} of k-space.")
    else:
        log("Maps: no fully sampled centre; low-resolution coil images over their root sum of squares.")

    def of_slice(s: int) -> np.ndarray:
        if raw.calib is None:
            # One trajectory serves all frames; where they differ the first frame's own is used.
            frame = (0, 0, 0, 0, s)
            calib = maps.calibration_from_noncartesian(raw.ksp[frame], _coord(raw, frame), calib_width, device)
            calib = sp.resize(calib, shape)
        else:
            calib = raw.calib[s]
        mps = (
            maps.espirit_maps(calib, calib_width, device) if espirit else maps.low_resolution_maps(calib, device=device)
        )
        return sp.to_device(mps)

    # Other frames of a slice need its maps again.
    return cache(of_slice) if prod(raw.ksp.shape[:4]) > 1 else of_slice


def reconstruct(
    raw: RawData,
    mps: np.ndarray | None = None,
    lamda: float | None = None,
    samples: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    calib_width: int | None = None,
    show_pbar: bool = True,
    keep: Path | None = None,
    log: Callable[[str], None] = print,
    **options: Any,
) -> np.ndarray:
    """Reconstruct all slices and frames of a measurement.

    Args:
        raw (RawData): The measurement.
        mps (array or None): Sensitivity maps (slices, coils, *grid) or (coils, *grid); None: as :func:`estimate_maps`
            makes them, batch by batch.
        lamda (None or float): Noise variance E|n|^2 of a sample; None: :data:`WHITENED_SHARE` for prewhitened data with
            several coils, else as :class:`HGGDPRecon` chooses.
        samples (int): Number of reconstructions with different noise that are averaged.
        seed (int): Seed of the first one's noise.
        batch_size (int or None): Slices reconstructed at a time; None: what fits into the free memory.
        calib_width (int or None): Width of the calibration region; None for what was found.
        show_pbar (bool): Show a progress bar: of slices, or of noise levels where all slices are one batch.
        keep (Path or None): Folder for finished batches. With it the same call, after the first was killed, continues
            and gives the same image bit for bit. :func:`finished.discard` it once the image is safe.
        log (function): Told in sentences what is done, and how long it will take.
        **options: Passed to :class:`HGGDPRecon`.

    Returns:
        array: complex64 image (repetition, contrast, phase, set, slice, y, x), as the header asks for.

    Raises:
        InputError: ``keep`` holds something else.
    """
    frames = raw.ksp.shape[:5]
    if lamda is None and raw.whitened and raw.ksp.shape[5] > 1:
        lamda = WHITENED_SHARE
    options["noise_var"] = lamda
    measured = np.flatnonzero(raw.ksp.any(axis=tuple(range(5, raw.ksp.ndim))))
    sizes = _sizes(raw, len(measured), batch_size, **options)
    kept = None
    if keep and len(measured) > sizes[0]:
        run = fingerprint(raw.ksp, raw.calib, raw.coord, mps, samples, seed, batch_size, calib_width, options)
        kept = Finished(keep, run, sizes, log)
        sizes = kept.sizes  # rounding depends on them
    size, options["coil_batch_size"] = sizes
    if mps is None:
        of_slice = map_estimator(raw, calib_width, options.get("device", sp.cpu_device), log)
    else:
        of_slice = np.broadcast_to(mps, (frames[4], *raw.ksp.shape[5:6], *raw.grid)).__getitem__
    image = np.zeros((*frames, *raw.grid), np.complex64)
    flat = image.reshape(-1, *raw.grid)
    progress = Progress(len(measured), size, show_pbar, log)
    try:
        for start in range(0, len(measured), size):
            part = measured[start : start + size]
            done = kept.load(start) if kept else None
            if done is None:
                done = _batch(raw, part, of_slice, samples, seed, progress, options)
                if kept:
                    kept.save(start, done)
                progress.finish(len(part))
            else:
                progress.skip(len(part))
            flat[part] = done
    except KeyboardInterrupt:
        if kept:
            log(f"Interrupted: {kept.folder} keeps the finished slices; the same command continues.")
        raise
    finally:
        progress.close()
    return raw.to_image(image)


def _batch(
    raw: RawData,
    part: np.ndarray,
    of_slice: Callable[[int], np.ndarray],
    samples: int,
    seed: int,
    progress: Progress,
    options: dict[str, Any],
) -> np.ndarray:
    """Images (frames, *grid) of the frames numbered ``part``."""
    places = np.unravel_index(part, raw.ksp.shape[:5])
    mps = np.stack([of_slice(s) for s in places[4]])
    coord = None if raw.coord is None else _coord(raw, tuple(axis[0] for axis in places))
    image = np.zeros((len(part), *raw.grid), np.complex64)
    for sample in range(samples):
        show = progress.show_levels
        app = HGGDPRecon(raw.ksp[places], mps, coord=coord, seed=seed + sample, show_pbar=show, **options)
        image += sp.to_device(progress.run(app, len(part) / samples)) / samples
    return image


def _sizes(
    raw: RawData,
    count: int,
    batch_size: int | None,
    coil_batch_size: int | None = None,
    device: sp.Device = sp.cpu_device,
    **options: Any,
) -> list[int]:
    """How many slices and coils are processed at a time."""
    coils, cartesian = raw.ksp.shape[5], raw.coord is None
    if raw.coord is not None and raw.coord.ndim > 3:
        batch_size = 1  # every frame has a trajectory of its own
    size = min(batch_size or slices_at_a_time(raw.grid, coils, cartesian, device), count)
    return [size, coil_batch_size or coils_at_a_time((size, *raw.grid), coils, cartesian, device)]


def _coord(raw: RawData, frame: Any) -> Any:
    assert raw.coord is not None
    return raw.coord if raw.coord.ndim == 3 else raw.coord[tuple(frame)]

"""Coil sensitivity maps and virtual coils of a measurement."""

import logging
import threading
from dataclasses import replace
from math import prod

import numpy as np
import sigpy as sp

from hggdp_plugin import coil_maps
from hggdp_plugin._typing import Array
from hggdp_plugin.coil_compression import coil_compression, compress_coils
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.raw import RawData

_logger = logging.getLogger(__name__)


class CoilMapEstimator:
    """Coil sensitivity maps of one slice, or whole slab, after the other, or of several in threads.

    The maps of a slice are made when it is first asked for. Where there are several frames, they are kept for the
    other frames.

    Args:
        raw (RawData): The measurement.
        calib_width (int or None): Width of the calibration region; None: that of the fully sampled region.
        device (Device): Where to compute.
        quiet (bool): Leave it to another estimator of the measurement to log how the maps are made, and to warn.
        maps (int): Sets of maps.

    Raises:
        InputError: Slabs on the Cartesian grid, or several sets, have no fully sampled center.
    """

    def __init__(
        self,
        raw: RawData,
        calib_width: int | None = None,
        *,
        device: sp.Device = sp.cpu_device,
        quiet: bool = False,
        maps: int = 1,
    ) -> None:
        self.raw, self.device, self.maps = raw, device, maps
        self.shape = (raw.n_coils, *raw.grid)
        given = calib_width or (coil_maps.CALIB_WIDTH if raw.calib is None else raw.calib_shape)
        self.calib_shape = coil_maps.calibration_shape(given, raw.grid)
        if len(raw.grid) == 3 and self.shape[0] > 1 and not self._uses_espirit:
            problem = "the volume has no fully sampled center of k-space, from which its coil maps could be estimated"
            raise InputError(raw.source, problem, "give maps (--mps)")
        if maps > 1 and not (self.shape[0] > 1 and self._uses_espirit):
            problem = f"{maps} sets of maps need several coils, and a fully sampled center of k-space to estimate them"
            raise InputError(raw.source, problem, "leave out --maps")
        self._has_several_frames = prod(raw.frame_shape[:4]) > 1
        self._cache: dict[int, Array] = {}
        self._slab: tuple[int, coil_maps.VolumeMaps] | None = None
        self._slab_lock = threading.Lock()
        if not quiet:
            _logger.info("Maps: %s.", self._method())
            self._warn(calib_width)

    def __call__(self, slice_: int) -> Array:
        """Return the maps of a slice.

        Args:
            slice_ (int): Number of the slice.

        Returns:
            array: complex64 (coils, *grid), or (maps, coils, *grid) for several sets, in host memory.
        """
        if slice_ in self._cache:
            return self._cache[slice_]
        mps = self._estimate(slice_)
        if self._has_several_frames:
            self._cache[slice_] = mps
        return mps

    @property
    def _uses_espirit(self) -> bool:
        return min(self.calib_shape) >= coil_maps.MIN_CALIB_WIDTH

    @property
    def _in_slabs(self) -> bool:
        return self.raw.calib is not None and self.raw.slice_axis == "x"

    def _method(self) -> str:
        """Describe how the maps are made."""
        if self.shape[0] == 1:
            return "one coil, assumed uniform"
        if self._uses_espirit:
            region = " x ".join(map(str, self.calib_shape))
            sets = f"{self.maps} sets by " if self.maps > 1 else ""
            return f"{sets}ESPIRiT from the central {region} of k-space{' of each slab' if self._in_slabs else ''}"
        return "no fully sampled center; low-resolution coil images over their root sum of squares"

    def _warn(self, calib_width: int | None) -> None:
        """Warn of maps that will be wrong."""
        raw = self.raw
        if self.shape[0] == 1 or raw.calib_mask is None:
            return
        if self._uses_espirit:
            if calib_width and any(n > m for n, m in zip(self.calib_shape, raw.calib_shape, strict=True)):
                region = " x ".join(map(str, raw.calib_shape))
                _logger.warning("Only %s of the center of k-space are fully sampled: the maps may alias.", region)
        elif any(coil_maps.low_resolution_maps_alias(mask) for mask in _different(raw.calib_mask) if mask.any()):
            _logger.warning(
                "There are no calibration lines, and k-space is undersampled regularly: the coil maps alias, and so "
                "does the image. Give maps with --mps, or scan with calibration lines."
            )

    def _estimate(self, slice_: int) -> Array:
        if self.shape[0] == 1:
            return np.ones(self.shape, np.complex64)
        if self._uses_espirit and self._in_slabs:
            return self._of_slab(slice_)
        calib = self._calibration(slice_)
        if len(self.raw.grid) == 3:
            center = sp.resize(calib, (len(calib), *self.calib_shape))
            return coil_maps.VolumeMaps(center, self.raw.grid, self.device, maps=self.maps).volume()
        if self._uses_espirit:
            mps = coil_maps.espirit_maps(calib, self.calib_shape, self.device, maps=self.maps)
        else:
            mps = coil_maps.low_resolution_maps(calib, device=self.device)
        return sp.to_device(mps)

    def _of_slab(self, slice_: int) -> Array:
        """Estimate the maps of a position along the readout from the whole slab."""
        calib = self.raw.calib
        assert calib is not None
        positions = self.raw.n_slices // self.raw.n_slabs
        slab, position = divmod(slice_, positions)
        with self._slab_lock:
            if self._slab is None or self._slab[0] != slab:
                part = calib[slab * positions : (slab + 1) * positions]
                of_slab = coil_maps.VolumeMaps.along_readout(part, self.calib_shape, self.device, maps=self.maps)
                self._slab = slab, of_slab
            maps = self._slab[1]
        return sp.to_device(maps[position])

    def _calibration(self, slice_: int) -> Array:
        """Return the Cartesian calibration k-space (coils, *k) of a slice, or its center."""
        raw = self.raw
        if raw.calib is not None:
            return raw.calib[slice_]
        ksp, coord = raw.calibration_shots(slice_)
        is_volume = len(raw.grid) == 3
        width = max(self.calib_shape) if is_volume else self.calib_shape[0]
        calib = coil_maps.calibration_from_noncartesian(ksp, coord, width, self.device)
        return calib if is_volume else sp.resize(calib, self.shape)


def _different(masks: Array) -> list[Array]:
    """Return each mask of (slices, y, x) once."""
    return list({mask.tobytes(): mask for mask in masks}.values())


def estimate_maps(raw: RawData, calib_width: int | None = None, *, device: sp.Device = sp.cpu_device) -> Array:
    """Estimate the coil sensitivity maps of all slices.

    Args:
        raw (RawData): The measurement.
        calib_width (int or None): Width of the calibration region; None: that of the fully sampled region.
        device (Device): Where to compute.

    Returns:
        array: complex64 (slices, coils, *grid) in host memory.
    """
    estimator = CoilMapEstimator(raw, calib_width, device=device)
    return np.stack([estimator(slice_) for slice_ in range(raw.n_slices)])


def to_virtual_coils(raw: RawData, n_coils: int) -> tuple[RawData, Array]:
    """Compress the coils of a measurement to virtual coils, found from the calibration data where there are any.

    Args:
        raw (RawData): The measurement.
        n_coils (int): Number of virtual coils.

    Returns:
        tuple: The measurement in virtual coils, and the matrix (n_coils, coils) that maps must be multiplied by.

    Raises:
        ValueError: ``n_coils`` is not between 1 and the number of coils.
    """
    ndim = raw.ksp.ndim - 6
    matrix, kept = coil_compression(raw.ksp if raw.calib is None else raw.calib, n_coils, ndim)
    _logger.info("Coils: %d compressed to %d, %.2f %% of the energy kept.", raw.n_coils, n_coils, 100 * kept)
    calib = None if raw.calib is None else compress_coils(matrix, raw.calib, ndim)
    return replace(raw, ksp=compress_coils(matrix, raw.ksp, ndim), calib=calib), matrix

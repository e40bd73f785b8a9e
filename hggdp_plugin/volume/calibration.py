"""Coil sensitivity maps and virtual coils of a measurement."""

import logging
from dataclasses import replace
from math import prod

import numpy as np
import sigpy as sp

from hggdp_plugin import coil_maps
from hggdp_plugin._typing import Array
from hggdp_plugin.coil_compression import coil_compression, compress_coils
from hggdp_plugin.io.raw import RawData

_logger = logging.getLogger(__name__)


class CoilMapEstimator:
    """Coil sensitivity maps of one slice after the other.

    The maps of a slice are made when it is first asked for. Where there are several frames, they are kept for the
    other frames.

    Args:
        raw (RawData): The measurement.
        calib_width (int or None): Width of the calibration region; None: that of the fully sampled region.
        device (Device): Where to compute.
    """

    def __init__(self, raw: RawData, calib_width: int | None = None, *, device: sp.Device = sp.cpu_device) -> None:
        self.raw, self.device = raw, device
        self.shape = (raw.n_coils, *raw.grid)
        self.calib_width = calib_width or (coil_maps.CALIB_WIDTH if raw.calib is None else raw.calib_width)
        self._has_several_frames = prod(raw.frame_shape[:4]) > 1
        self._cache: dict[int, Array] = {}
        _logger.info("Maps: %s.", self._method())

    def __call__(self, slice_: int) -> Array:
        """Return the maps of a slice.

        Args:
            slice_ (int): Number of the slice.

        Returns:
            array: complex64 (coils, y, x) in host memory.
        """
        if slice_ in self._cache:
            return self._cache[slice_]
        mps = self._estimate(slice_)
        if self._has_several_frames:
            self._cache[slice_] = mps
        return mps

    @property
    def _uses_espirit(self) -> bool:
        return self.calib_width > coil_maps.KERNEL_WIDTH

    def _method(self) -> str:
        """Describe how the maps are made."""
        if self.shape[0] == 1:
            return "one coil, assumed uniform"
        if self._uses_espirit:
            width = min(self.calib_width, coil_maps.CALIB_WIDTH)
            return f"ESPIRiT from the central {width} x {width} of k-space"
        return "no fully sampled center; low-resolution coil images over their root sum of squares"

    def _estimate(self, slice_: int) -> Array:
        if self.shape[0] == 1:
            return np.ones(self.shape, np.complex64)
        calib = self._calibration(slice_)
        if self._uses_espirit:
            mps = coil_maps.espirit_maps(calib, self.calib_width, self.device)
        else:
            mps = coil_maps.low_resolution_maps(calib, device=self.device)
        return sp.to_device(mps)

    def _calibration(self, slice_: int) -> Array:
        """Return the Cartesian calibration k-space (coils, y, x) of a slice."""
        raw = self.raw
        if raw.calib is not None:
            return raw.calib[slice_]
        ksp, coord = raw.calibration_shots(slice_)
        calib = coil_maps.calibration_from_noncartesian(ksp, coord, self.calib_width, self.device)
        return sp.resize(calib, self.shape)


def estimate_maps(raw: RawData, calib_width: int | None = None, *, device: sp.Device = sp.cpu_device) -> Array:
    """Estimate the coil sensitivity maps of all slices.

    Args:
        raw (RawData): The measurement.
        calib_width (int or None): Width of the calibration region; None: that of the fully sampled region.
        device (Device): Where to compute.

    Returns:
        array: complex64 (slices, coils, y, x) in host memory.
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
    matrix, kept = coil_compression(raw.ksp if raw.calib is None else raw.calib, n_coils)
    _logger.info("Coils: %d compressed to %d, %.2f %% of the energy kept.", raw.n_coils, n_coils, 100 * kept)
    calib = None if raw.calib is None else compress_coils(matrix, raw.calib)
    return replace(raw, ksp=compress_coils(matrix, raw.ksp), calib=calib), matrix

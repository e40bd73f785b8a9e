"""Coil sensitivity maps from the center of k-space."""

import logging

import numpy as np
import sigpy as sp
from threadpoolctl import threadpool_limits

from hggdp_plugin import espirit
from hggdp_plugin._typing import Array
from hggdp_plugin.solvers import BatchConjugateGradient, run

_logger = logging.getLogger(__name__)

#: Largest calibration region that is used: larger ones cost time and change little.
CALIB_WIDTH = 24
#: Smallest calibration region that ESPIRiT is used for.
MIN_CALIB_WIDTH = 3
#: Largest side of ESPIRiT's kernels in slices. In volumes, where a kernel has a third side: with few coils, with many.
KERNEL_WIDTH, KERNEL_WIDTH_3D, KERNEL_WIDTH_3D_MANY = 6, 4, 3
#: More coils than these are many.
MANY_COILS = 32
#: ESPIRiT's maps are used if they explain this fraction of the energy of the calibration region.
MIN_EXPLAINED = 0.8


def calibration_shape(calib_width: int | tuple[int, ...], matrix: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of the calibration region that is used.

    Args:
        calib_width (int or tuple of ints): Fully sampled center of k-space: width, or height and width.
        matrix (tuple of ints): Size of k-space.

    Returns:
        tuple of ints: Size along each axis, at most :data:`CALIB_WIDTH` and at most the matrix.
    """
    widths = (calib_width,) * len(matrix) if isinstance(calib_width, int | np.integer) else calib_width
    return tuple(min(int(n), CALIB_WIDTH, m) for n, m in zip(widths, matrix, strict=True))


def espirit_maps(
    calib: Array, calib_width: int | tuple[int, ...], device: sp.Device = sp.cpu_device, *, maps: int = 1
) -> Array:
    """Estimate the maps of slices by ESPIRiT.

    The kernel follows from the size of the calibration region, about a third of it along each axis. Where the maps do
    not explain the calibration data, which is logged, a smaller kernel is used, and at last coil images of low
    resolution.

    Args:
        calib (array): k-space (..., coils, H, W) whose center is fully sampled.
        calib_width (int or tuple of ints): Size of the fully sampled center, see :func:`calibration_shape`.
        device (Device): Where to compute.
        maps (int): Sets of maps, 1, or 2 for soft-SENSE, where the field of view is smaller than the object.

    Returns:
        array: complex64 (..., coils, H, W), or (..., maps, coils, H, W) for several, on ``device``. The sum of squares
        is 1, and falls to 0 outside the object with the eigenvalue. Phases vary as little as possible.

    References:
        Uecker, M., et al. (2014). ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI. MRM, 71(3),
        990-1001. How it is computed: :mod:`hggdp_plugin.espirit`.
    """
    calib = sp.to_device(calib, device)
    *batch, coils, height, width = calib.shape
    with device, _one_thread():
        xp = device.xp
        if coils == 1:
            mps = xp.zeros((*batch, maps, 1, height, width), xp.complex64)
            mps[..., 0, :, :, :] = 1
        else:
            region = calibration_shape(calib_width, (height, width))
            coarse = _coarse_maps(_center(calib.reshape(-1, *calib.shape[-3:]), region), (height, width), maps)
            points = [espirit.positions(n, xp) for n in (height, width)]
            mps = coarse.interpolate(points).reshape(*batch, maps, coils, height, width)
        return mps[..., 0, :, :, :] if maps == 1 else mps


class VolumeMaps:
    """Maps of a volume by ESPIRiT in three dimensions, made section by section.

    Better than maps of each section from its own data, much faster, and smooth along all axes.

    Args:
        center (array): Fully sampled center of k-space, (coils, d, h, w).
        matrix (tuple of ints): Size of the volume (D, H, W).
        device (Device): Where to compute.
        maps (int): Sets of maps, as in :func:`espirit_maps`.
    """

    def __init__(
        self, center: Array, matrix: tuple[int, int, int], device: sp.Device = sp.cpu_device, *, maps: int = 1
    ) -> None:
        self.device, self.matrix, self.maps = device, matrix, maps
        region = tuple(min(n, m, CALIB_WIDTH) for n, m in zip(center.shape[1:], matrix, strict=True))
        with device, _one_thread():
            self._coarse = _coarse_maps(_center(sp.to_device(center, device)[None], region), matrix, maps)

    @classmethod
    def along_readout(
        cls, calib: Array, calib_width: int | tuple[int, ...], device: sp.Device = sp.cpu_device, *, maps: int = 1
    ) -> "VolumeMaps":
        """Estimate the maps of all positions along the readout of a 3D Cartesian scan.

        Args:
            calib (array): k-space (positions, coils, H, W) whose center is fully sampled, in image space along the
                readout.
            calib_width (int or tuple of ints): Size of the fully sampled center, see :func:`calibration_shape`.
            device (Device): Where to compute.
            maps (int): Sets of maps, as in :func:`espirit_maps`.

        Returns:
            VolumeMaps: Its sections are the positions.
        """
        positions, coils, height, width = calib.shape
        region = calibration_shape(calib_width, (height, width))
        center = sp.fft(sp.resize(calib, (positions, coils, *region)), axes=(0,)).swapaxes(0, 1)
        return cls(center, (positions, height, width), device, maps=maps)

    def __len__(self) -> int:
        return self.matrix[0]

    def volume(self) -> Array:
        """Return the maps of the volume, complex64 (coils, D, H, W) or (maps, coils, D, H, W) in host memory."""
        return np.stack([sp.to_device(self[section]) for section in range(len(self))], axis=-3)

    def __getitem__(self, section: int) -> Array:
        """Return the maps of a section across the first axis, as :func:`espirit_maps` does of a slice."""
        if not 0 <= section < len(self):
            raise IndexError(f"section {section} of {len(self)}")
        with self.device, _one_thread():
            points = [espirit.positions(n, self.device.xp) for n in self.matrix]
            points[0] = points[0][section : section + 1]
            mps = self._coarse.interpolate(points)[0, :, :, 0]
            return mps[0] if self.maps == 1 else mps


def low_resolution_maps(kspace: Array, width: int = CALIB_WIDTH, device: sp.Device = sp.cpu_device) -> Array:
    """Estimate maps as smoothed coil images divided by their root sum of squares.

    Needs no fully sampled center, but the aliasing of a regularly undersampled one remains in the maps
    (:func:`low_resolution_maps_alias`).

    Args:
        kspace (array): k-space (..., coils, H, W).
        width (int): Full width at half maximum of the window in k-space, a triangle along each axis.
        device (Device): Where to compute.

    Returns:
        array: complex64 (..., coils, H, W) on ``device``, sum of squares 1.
    """
    kspace = sp.to_device(kspace, device)
    with device:
        xp = device.xp
        images = sp.ifft(kspace * xp.asarray(_triangles(kspace.shape[-2:], width)), axes=(-2, -1))
        norm = xp.sqrt((abs(images) ** 2).sum(axis=-3, keepdims=True))
        return (images / xp.where(norm > 0, norm, 1)).astype(xp.complex64)


def low_resolution_maps_alias(mask: Array, width: int = CALIB_WIDTH) -> bool:
    """Return whether low-resolution maps alias: a center that is undersampled regularly, or nearly so.

    Then a replica in the point spread function is almost as high as its main peak.

    Args:
        mask (array): Which samples were measured, bool (H, W).
        width (int): Window, as in :func:`low_resolution_maps`.

    Returns:
        bool: Whether the maps alias.
    """
    shape = mask.shape
    psf = abs(np.fft.ifft2(np.fft.ifftshift(sp.to_device(mask) * _triangles(shape, width))))
    distance = [abs(np.fft.fftfreq(n)) * min(width, n) for n in shape]  # in widths of the main peak
    replicas = psf[np.maximum(distance[0][:, None], distance[1]) > 1.5]
    return bool(replicas.size and replicas.max() > 0.8 * psf[0, 0] > 0)


def smooth_phase(mps: Array) -> Array:
    """Choose the phases of maps so that they vary as little as possible, as :func:`espirit_maps` does.

    Args:
        mps (array): Maps, complex64 (coils, H, W).

    Returns:
        array: The maps times a phase in each pixel.
    """
    xp = sp.get_array_module(mps)
    with sp.get_device(mps):
        vectors = xp.ascontiguousarray(xp.moveaxis(mps, 0, -1))[None]
        norm = xp.linalg.norm(vectors, axis=-1)
        return xp.moveaxis(espirit.align(vectors, norm**2)[0] * norm[0, ..., None], -1, 0)


def calibration_from_noncartesian(
    kspace: Array, coord: Array, width: int = CALIB_WIDTH, device: sp.Device = sp.cpu_device
) -> Array:
    """Compute the Cartesian center of non-Cartesian k-space: least squares with a NUFFT on a small image.

    Args:
        kspace (array): k-space (coils, *k).
        coord (array): Coordinates (*k, 2) or (*k, 3) in units of 1 / field of view.
        width (int): Width of the region, and of the image in pixels.
        device (Device): Where to compute.

    Returns:
        array: complex64 (coils, width, width), for three coordinates (coils, width, width, width), on ``device``.
    """
    with device:
        xp = device.xp
        kspace, coord = sp.to_device(kspace, device), sp.to_device(coord, device)
        inside = (abs(coord) <= width / 2).all(axis=-1)
        ndim = coord.shape[-1]
        A = sp.linop.NUFFT((len(kspace), *[width] * ndim), coord[inside])
        b = A.H(kspace[:, inside])
        x = run(BatchConjugateGradient(A.N, b, xp.zeros_like(b), ndim=ndim, max_iter=20))
        return sp.fft(x, axes=range(-ndim, 0))


def combine_coils(
    kspace: Array,
    calib: Array | None = None,
    calib_width: int | tuple[int, ...] = CALIB_WIDTH,
    device: sp.Device = sp.cpu_device,
) -> Array:
    """Combine fully sampled k-space of several coils to images, as a reconstruction with ESPIRiT maps sees them.

    Args:
        kspace (array): k-space (..., coils, H, W).
        calib (array or None): k-space for the maps, of a shape that broadcasts to ``kspace``. None: ``kspace``.
        calib_width (int or tuple of ints): Size of its fully sampled center, see :func:`calibration_shape`.
        device (Device): Where to compute.

    Returns:
        array: complex64 images (..., H, W) on ``device``, zero where ESPIRiT finds no signal.
    """
    mps = espirit_maps(kspace if calib is None else calib, calib_width, device)
    with device:
        images = sp.ifft(sp.to_device(kspace, device), axes=(-2, -1))
        return (mps.conj() * images).sum(axis=-3).astype(np.complex64)


def combine_sets(images: Array, ndim: int = 2) -> Array:
    """Combine the images of several sets of maps to one: their root sum of squares, with the phase of the first.

    Where two positions of the object share a pixel, any two orthonormal combinations of their sensitivities are maps of
    it, and what is in which image is arbitrary. The root sum of squares is the same for all of them, that of the coil
    images; the sum is not.

    Args:
        images (array): Images (..., maps, H, W).
        ndim (int): Axes of an image, 3 for volumes.

    Returns:
        array: Images (..., H, W).
    """
    xp, axis = sp.get_array_module(images), -ndim - 1
    with sp.get_device(images):
        first, *others = xp.moveaxis(images, axis, 0)
        size = total = abs(first)
        for other in others:
            total = xp.hypot(total, abs(other))  # squares in raw scanner units can exceed the range of float32
        return xp.where(size > 0, first / xp.where(size > 0, size, 1), 1) * total


def _one_thread() -> threadpool_limits:
    """Keep NumPy's matrix products and eigenvalues in one thread.

    Threads of OpenBLAS spin while they wait. For matrices this small they gain little on an idle machine, and beside
    another busy process they take several times the time.
    """
    return threadpool_limits(1, user_api="blas")


def _center(calib: Array, region: tuple[int, ...]) -> Array:
    """Crop k-space (batch, coils, *matrix) to its center and scale each item to a maximum of 1."""
    xp = sp.get_array_module(calib)
    center = sp.resize(calib, (*calib.shape[:2], *region)).astype(xp.complex64)
    peak = abs(center).max(axis=tuple(range(1, center.ndim)), keepdims=True)
    return center / xp.where(peak > 0, peak, 1)


def _kernels(region: tuple[int, ...], n_coils: int) -> list[tuple[int, ...] | None]:
    """Return the kernels to try in turn for a calibration region, best first; None: no ESPIRiT."""
    if min(region) < MIN_CALIB_WIDTH:
        return [None]
    largest = KERNEL_WIDTH
    if len(region) == 3:
        largest = KERNEL_WIDTH_3D if n_coils <= MANY_COILS else KERNEL_WIDTH_3D_MANY
    # A third of the region leaves enough patches: for 5 to 24 lines within a few per cent of the best of all.
    kernel = tuple(min(largest, max(2, (n + 1) // 3)) for n in region)
    smaller = tuple(max(2, k // 2) for k in kernel)
    return [kernel, None] if smaller == kernel else [kernel, smaller, None]


def _coarse_maps(calib: Array, matrix: tuple[int, ...], n_sets: int = 1) -> espirit.CoarseMaps:
    """Estimate maps from calibration regions (batch, coils, *region) by the first method that explains each."""
    first, *others = _kernels(calib.shape[2:], calib.shape[1])
    maps = espirit.coarse_maps(calib, first, matrix, n_sets)
    empty = ~calib.reshape(len(calib), -1).any(axis=-1)
    for kernel in others:
        failed = np.flatnonzero(sp.to_device((maps.explained < MIN_EXPLAINED) & ~empty))
        if not len(failed):
            break
        where = f"{len(failed)} of {len(calib)} slices" if len(matrix) == 2 else "the volume"
        method = "low-resolution coil images" if kernel is None else f"a kernel of {_by(kernel)}"
        _logger.warning("Maps: ESPIRiT does not explain the calibration region of %s; using %s there.", where, method)
        maps.replace(failed.tolist(), espirit.coarse_maps(calib[failed.tolist()], kernel, matrix, n_sets))
    return maps


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _triangles(shape: tuple[int, ...], width: int) -> Array:
    """Return the window of :func:`low_resolution_maps`, float32."""
    rows, columns = (np.clip(1 - abs(np.arange(n) - n // 2) / width, 0, None) for n in shape)
    return np.outer(rows, columns).astype(np.float32)

"""Non-Cartesian trajectories: their units, and stacks of planar ones."""

import logging
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError

_logger = logging.getLogger(__name__)

#: Range of the largest coordinate, relative to the edge of k-space, in which a unit is taken without doubt.
CLEAR_RANGE = (0.9, 1.12)
#: The same for the two common units where no unit is clear: trajectories may leave out the edge.
COMMON_RANGE = {"cycles per pixel": (0.1, 1.02), "cycles per field of view": (0.5, 1.1)}
#: Difference from the edge within which other units are out of the question.
EXACT = 0.05
#: Smallest step between samples of a readout in cycles per field of view. Real readouts are not oversampled tenfold.
MIN_STEP = 0.1
#: Smallest image, in pixels across, that a trajectory without coil maps may mean.
MIN_WIDTH = 16
#: Largest distance, in cycles per field of view, of coordinates that count as equal.
EQUAL_TOLERANCE = 0.01


@dataclass(frozen=True)
class KSpaceExtent:
    """What a trajectory is expected to cover; all tuples are in the order of its axes, (y, x) or (z, y, x).

    Attributes:
        matrix (tuple of int): Encoded matrix.
        zoom (tuple of float): Field of view of the image over the encoded one.
        fov_mm (tuple of float or None): Field of view of the image in mm, if it is known.
    """

    matrix: tuple[int, ...]
    zoom: tuple[float, ...]
    fov_mm: tuple[float, ...] | None = None

    @property
    def edge(self) -> np.ndarray:
        """Edge of k-space in cycles per field of view of the image."""
        return np.multiply(self.matrix, self.zoom) / 2

    def units(self) -> dict[str, np.ndarray]:
        """Return the factors from units to cycles per field of view of the image, the common units first."""
        per_pixel = np.multiply(self.matrix, self.zoom)
        units = {
            "cycles per pixel": per_pixel,
            "cycles per field of view": np.array(self.zoom),
            "cycles per field of view of the image": np.ones(len(self.matrix)),
            "radians per pixel": per_pixel / (2 * np.pi),
        }
        if self.fov_mm is not None:
            per_mm = np.array(self.fov_mm)
            units["cycles per mm"] = per_mm
            units["cycles per m"] = per_mm / 1e3
            units["radians per mm"] = per_mm / (2 * np.pi)
            units["radians per m"] = per_mm / (2e3 * np.pi)
        return units


def to_cycles_per_fov(coord: np.ndarray, extent: KSpaceExtent, where: object) -> np.ndarray:
    """Scale coordinates to cycles per field of view of the image, the unit of SigPy's NUFFT.

    The file formats leave the unit open. It is found by the largest coordinate along each axis, which lies near the
    edge of k-space.

    Args:
        coord (array): Coordinates (..., axes).
        extent (KSpaceExtent): What they are expected to cover.
        where (object): File, for messages.

    Returns:
        array: float32 coordinates in cycles per field of view.

    Raises:
        InputError: If no unit fits.
    """
    largest = np.abs(coord).reshape(-1, coord.shape[-1]).max(axis=0)
    plane = slice(coord.shape[-1] - 2, None)  # kz may have fewer steps than its matrix
    units = extent.units()
    peak, edge = float(largest[plane].max()), float(extent.edge[plane].max())
    ratio = {name: float((largest * factor)[plane].max()) / edge for name, factor in units.items()}
    axes = {name: (largest * factor / extent.edge)[plane] for name, factor in units.items()}
    fitting = [name for name, r in axes.items() if CLEAR_RANGE[0] <= r.min() and r.max() <= CLEAR_RANGE[1]]
    clear = [name for name, value in ratio.items() if CLEAR_RANGE[0] <= value <= CLEAR_RANGE[1]]
    common = [name for name, (low, high) in COMMON_RANGE.items() if low <= ratio[name] <= high]
    if not (candidates := fitting or clear or common):
        raise InputError(
            where,
            f"the largest coordinate of the trajectory is {peak:.4g}, neither cycles per pixel (0.5)"
            f" nor cycles per field of view (about {edge:g})",
            "convert the trajectory to one of these units",
        )
    name = candidates[0]
    others = [other for other in clear if other.split(" of the")[0] != name.split(" of the")[0]]
    others = [] if abs(ratio[name] - 1) <= EXACT else others
    usual = name in clear and name.startswith(("cycles per field of view", "cycles per pixel"))
    report = _logger.info if usual and not others else _logger.warning
    report(
        "Trajectory in %s (largest coordinate %.4g; in cycles per field of view the edge of k-space is %g)%s.",
        name,
        peak,
        edge,
        f"; it could also be in {others[0]}" if others else "",
    )
    return (coord * units[name]).astype(np.float32)


def check_step(coord: np.ndarray, where: object) -> None:
    """Refuse coordinates that can't be in cycles per field of view, whatever the matrix.

    Args:
        coord (array): Coordinates (..., samples, axes).
        where (object): File, for messages.

    Raises:
        InputError: If the image would be tiny, or the samples of a readout so close, that another unit must be meant.
    """
    peak = float(np.abs(coord).max())
    width = 2 * int(np.ceil(peak))
    step = float(np.linalg.norm(np.diff(coord, axis=-2), axis=-1).max(initial=0))
    if step >= MIN_STEP and width >= MIN_WIDTH:
        return
    unit = "cycles per pixel" if peak <= 0.51 else "radians per pixel" if abs(peak - np.pi) < 0.1 else "another unit"
    raise InputError(
        where,
        f"the largest coordinate of the trajectory is {peak:.4g}, which looks like {unit}: in cycles per field of view"
        f" it means {width} pixels across, for {coord.shape[-2]} samples per readout",
        "scale it to half the matrix size at the edge of k-space, or give coil maps, which have the matrix",
    )


def split_partitions(
    ksp: np.ndarray, coord: np.ndarray, n_partitions: int, spacing: float = 1.0
) -> tuple[np.ndarray, np.ndarray] | None:
    """Split a stack of planar trajectories into partitions, by an FFT along them.

    Args:
        ksp (array): k-space (frames, coils, shots, samples).
        coord (array): Coordinates (frames, shots, samples, 3) in the order (z, y, x), in cycles per field of view.
        n_partitions (int): Partitions of a complete stack.
        spacing (float): Distance of partitions along kz, in cycles per field of view.

    Returns:
        tuple or None: k-space (frames, partitions, coils, shots, samples) of image partitions, and their coordinates
        (frames, shots, samples, 2). None if it is not a complete stack of equal trajectories.
    """
    kz = coord[..., 0] / spacing
    index = np.rint(kz[..., 0]).astype(int) + n_partitions // 2
    n_frames, n_shots = index.shape
    per_partition, rest = divmod(n_shots, n_partitions)
    if rest or np.abs(kz - np.rint(kz[..., :1])).max() > EQUAL_TOLERANCE:
        return None
    order = np.argsort(index, axis=1, kind="stable")
    expected = np.repeat(np.arange(n_partitions), per_partition)
    if (np.take_along_axis(index, order, axis=1) != expected).any():
        return None
    plane = np.take_along_axis(coord[..., 1:], order[..., None, None], axis=1)
    plane = plane.reshape(n_frames, n_partitions, per_partition, *plane.shape[2:])
    if np.abs(plane - plane[:, :1]).max() > EQUAL_TOLERANCE:
        return None
    samples = np.take_along_axis(ksp, order[:, None, :, None], axis=2)
    samples = samples.reshape(*ksp.shape[:2], n_partitions, per_partition, ksp.shape[-1])
    images = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(samples, axes=2), axis=2, norm="ortho"), axes=2)
    return np.ascontiguousarray(images.swapaxes(1, 2)).astype(np.complex64, copy=False), plane[:, 0]

"""A measurement as a reconstruction needs it: one object, whatever the file looked like."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from hggdp_plugin._typing import Array

#: Largest plausible matrix: the counters of acquisitions have 16 bits.
MAX_MATRIX = 65535
#: Samples beyond this magnitude are refused: their squares overflow single precision.
MAX_SAMPLE = 1e15


#: What the slices of raw data count: slices; positions along the readout, or partitions, of slabs; or whole slabs.
SliceAxis: TypeAlias = Literal["slice", "x", "z", "slab"]

_SLICE_NAMES: dict[SliceAxis, str] = {"slice": "slices", "x": "readout positions", "z": "partitions", "slab": "slabs"}


class Shape3(NamedTuple):
    """Number of voxels along each axis of a stack of slices or of a volume."""

    z: int
    y: int
    x: int


class Size3(NamedTuple):
    """Lengths in mm along each axis of a slice or of a volume."""

    z: float
    y: float
    x: float


@dataclass(frozen=True)
class SliceGeometry:
    """Where the slices lie in the patient, in MRD's LPS coordinates (mm); each array has shape (slices, 3).

    ``position`` is the center of voxel (y // 2, x // 2) of a slice.
    """

    position: np.ndarray
    read_dir: np.ndarray
    phase_dir: np.ndarray
    slice_dir: np.ndarray

    @property
    def spatial_order(self) -> np.ndarray:
        """Numbers of the slices in the order of their positions along the slice direction, int (slices,).

        The slices of an interleaved acquisition may be numbered in the order of time.
        """
        return np.argsort(self.position @ self.slice_dir[0], kind="stable")

    def take(self, order: np.ndarray) -> "SliceGeometry":
        """Return the geometry of some of the slices, in a given order."""
        return SliceGeometry(self.position[order], self.read_dir[order], self.phase_dir[order], self.slice_dir[order])


@dataclass(frozen=True, kw_only=True)
class RawData:
    """A measurement: sorted, averaged, prewhitened and cropped along the readout.

    FFTs are SigPy's: centered and orthonormal. ``mask`` says which samples were measured. The others are zero in
    ``ksp``, as SigPy's apps expect, but a zero alone means nothing.

    Attributes:
        ksp (array): k-space, complex64 (repetition, contrast, phase, set, slice, coil, *k). k has the shape of
            ``grid`` for Cartesian data, and is (shots, samples) for other trajectories.
        mask (array or None): Which samples were measured, bool (repetition, contrast, phase, set, slice, *grid).
            Read-only. Spikes count as not measured. None for non-Cartesian data.
        coord (array or None): k-space coordinates in SigPy's units (-N/2 to N/2, axes in the order of ``grid``),
            float32 (shots, samples, axes), with the five frame axes before if the trajectories of the frames differ.
            None for Cartesian data.
        calib (array or None): k-space for coil calibration (slice, coil, *k): calibration lines, and image lines
            where there are none. None for non-Cartesian data.
        calib_mask (array or None): Which samples of ``calib`` were measured, bool (slice, *grid). Spikes among them
            are zero.
        trajectory (str): Name of the trajectory in the header (cartesian, epi, radial, spiral ...), in lower case.
        slice_axis (SliceAxis): What the slice axis of ``ksp`` counts. ``"slice"``: the slices of a 2D measurement. The
            others are 3D: ``"x"``: positions along the readout, ``"z"``: partitions, both slab after slab, which are
            2D problems after an FFT along that axis; ``"slab"``: whole slabs, which are 3D problems.
        whitened (bool): Whether the noise is uncorrelated between coils with E|n|^2 = 1 for each complex sample.
        noise_cov (array or None): Covariance of the noise scan as measured, complex64 (coil, coil).
        grid (tuple of int): Matrix of each problem: (y, x), (z, y) for positions along the readout, or (z, y, x) for
            slabs. The image that ``ksp`` is the transform of.
        fov_shape (Shape3): Voxels in the field of view of the image, at the measured resolution.
        image_shape (Shape3): Slices, rows and columns of the final image (the recon matrix of the header).
        fov (Size3): Field of view of the final image; z is the thickness of a slice in 2D and of a slab in 3D.
        acq_headers (array): Header of the acquisition nearest to the k-space center of each frame (repetition,
            contrast, phase, set, slice). In 3D the last axis counts slabs.
        against_directions (bool): Whether image axes run against the directions in ``acq_headers``.
        header (str): The XML header.
        source (str): File and group.
    """

    ksp: Array
    mask: Array | None
    coord: Array | None
    calib: Array | None
    calib_mask: Array | None
    trajectory: str
    slice_axis: SliceAxis
    whitened: bool
    noise_cov: Array | None
    grid: tuple[int, ...]
    fov_shape: Shape3
    image_shape: Shape3
    fov: Size3
    acq_headers: np.ndarray
    against_directions: bool = False
    header: str
    source: str

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Lengths of the frame axes (repetition, contrast, phase, set, slice)."""
        shape: tuple[int, ...] = self.ksp.shape
        return shape[:5]

    @property
    def is_3d(self) -> bool:
        """Whether the measurement has a second phase encoding or a three-dimensional trajectory."""
        return self.slice_axis != "slice"

    @property
    def n_slices(self) -> int:
        """Length of the slice axis, see ``slice_axis``."""
        return self.frame_shape[4]

    @property
    def n_slabs(self) -> int:
        """Number of slabs of a 3D measurement, of slices of a 2D one."""
        return int(self.acq_headers.shape[-1])

    @property
    def n_coils(self) -> int:
        """Number of coils."""
        return int(self.ksp.shape[5])

    @cached_property
    def measured_frames(self) -> np.ndarray:
        """Which frames hold data, bool (repetition, contrast, phase, set, slice)."""
        if self.mask is None:
            return np.ones(self.frame_shape, bool)
        return np.asarray(self.mask.any(axis=tuple(range(5, self.mask.ndim))))

    @cached_property
    def calib_shape(self) -> tuple[int, ...]:
        """Size of the largest centered rectangle (cube) that is fully sampled in ``calib``, zeros if there is none."""
        if self.calib_mask is None:
            return (0,) * len(self.grid)
        sampled = np.asarray(self.calib_mask.all(axis=0))
        return centered_region(sampled) if sampled.ndim == 2 else centered_cube(sampled)

    @property
    def calib_width(self) -> int:
        """Width of the largest fully sampled square that ESPIRiT can calibrate on, 0 if there is none."""
        return min(self.calib_shape)

    def calibration_shots(self, slice_: int) -> tuple[Array, Array]:
        """Collect non-Cartesian samples for coil calibration: all repetitions and phases of a slice.

        Args:
            slice_ (int): Number of the slice.

        Returns:
            tuple: k-space (coils, shots, samples) and its coordinates (shots, samples, axes). Frames of one trajectory
            are averaged; the shots of different trajectories follow each other.

        Raises:
            ValueError: If the data are Cartesian.
        """
        if self.coord is None:
            raise ValueError("Cartesian data have their calibration k-space in calib")
        ksp = self.ksp[:, 0, :, 0, slice_]
        if self.coord.ndim == 3:
            return ksp.mean(axis=(0, 1)), self.coord
        ksp = ksp.reshape(-1, *ksp.shape[2:]).swapaxes(0, 1)  # coils, frames, shots, samples
        coord = self.coord[:, 0, :, 0, slice_]
        return ksp.reshape(len(ksp), -1, ksp.shape[-1]), coord.reshape(-1, *coord.shape[-2:])

    @property
    def geometry(self) -> SliceGeometry:
        """Position and directions of the slices of the final image (of its first frame), as its axes run."""
        first = self.acq_headers[0, 0, 0, 0]
        sign = -1.0 if self.against_directions else 1.0
        if not self.is_3d:
            read_dir, phase_dir = sign * first["read_dir"].astype(float), sign * first["phase_dir"].astype(float)
            return SliceGeometry(first["position"].astype(float), read_dir, phase_dir, first["slice_dir"].astype(float))
        per_slab = self.image_shape.z // self.n_slabs
        step = (np.arange(per_slab) - per_slab // 2) * self.fov.z / per_slab
        headers = np.repeat(first, per_slab)
        slice_dir = sign * headers["slice_dir"].astype(float)
        with np.errstate(invalid="ignore"):  # Directions may be NaN: the writers of images check them.
            position = headers["position"] + np.tile(step, len(first))[:, None] * slice_dir
        read_dir, phase_dir = sign * headers["read_dir"].astype(float), sign * headers["phase_dir"].astype(float)
        return SliceGeometry(position, read_dir, phase_dir, slice_dir)

    def to_image(self, recon: np.ndarray) -> np.ndarray:
        """Assemble reconstructed problems to the image that the header asks for.

        Phase oversampling is cropped, and the image is interpolated to ``image_shape`` by zero-filling its k-space.

        Args:
            recon (array): Images (repetition, contrast, phase, set, slice, *grid), with the frame axes of ``ksp``.

        Returns:
            array: Image (repetition, contrast, phase, set, slice, y, x).

        Raises:
            ValueError: If ``recon`` has another shape.
        """
        if recon.shape != self.frame_shape + self.grid:
            raise ValueError(f"recon must have shape {self.frame_shape + self.grid}, got {recon.shape}")
        if not self.is_3d:
            image = _resample(recon, self.fov_shape[1:], self.image_shape[1:])
            return image.reshape(*recon.shape[:4], *self.image_shape)
        if self.slice_axis == "x":
            recon = recon.reshape(*recon.shape[:4], self.n_slabs, -1, *self.grid)  # (..., slab, x, z, y)
            recon = np.moveaxis(recon, 5, -1)
        elif self.slice_axis == "z":
            recon = recon.reshape(*recon.shape[:4], self.n_slabs, -1, *self.grid)
        per_slab = self.image_shape._replace(z=self.image_shape.z // self.n_slabs)
        image = _resample(recon, self.fov_shape, per_slab)
        return image.reshape(*recon.shape[:4], *self.image_shape)

    def summary(self) -> str:
        """Describe the measurement in one or two lines of text."""
        names = ("repetitions", "contrasts", "phases", "sets", _SLICE_NAMES[self.slice_axis])
        frames = [f"{n} {name}" for n, name in zip(self.frame_shape, names, strict=True) if n > 1]
        kind = f"{'3D' if self.is_3d else '2D'} {self.trajectory}"
        size = f"{' x '.join(map(str, self.ksp.shape[6:]))} k-space"
        head = ", ".join([kind, *frames, f"{self.n_coils} coils", size])
        text = f"{self.source}: {head}; image matrix {' x '.join(map(str, self.image_shape))}."
        if self.mask is None:
            return text
        region = " x ".join(map(str, self.calib_shape))
        return f"{text}\nSampled: {100 * self.mask.mean():.0f} %; calibration region: {region}."


def _resample(image: np.ndarray, fov_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> np.ndarray:
    """Crop or pad the last axes to a field of view, then interpolate them to a matrix, keeping the intensity."""
    import sigpy as sp

    lead = image.shape[: -len(fov_shape)]
    image = sp.resize(image, lead + fov_shape)
    if fov_shape == image_shape:
        return image
    axes = tuple(range(-len(fov_shape), 0))
    gain = np.sqrt(np.prod(image_shape) / np.prod(fov_shape))
    ksp = sp.resize(sp.fft(image, axes=axes), lead + image_shape)
    return (sp.ifft(ksp, axes=axes) * gain).astype(image.dtype, copy=False)


def centered_region(sampled: np.ndarray) -> tuple[int, int]:
    """Find the largest centered rectangle in which every position was sampled.

    Args:
        sampled (array): bool, shape (ky, kx).

    Returns:
        tuple: Height and width of the rectangle of largest area that :func:`sigpy.resize` would crop to, or (0, 0).
    """
    height, width = sampled.shape
    # Half-open extents of the centered block of n among N, as sigpy.resize places it.
    columns = _centered(width)
    best, allowed = (0, 0), width
    holes = np.zeros((height + 1, width + 1), np.int64)
    holes[1:, 1:] = np.cumsum(np.cumsum(~sampled, axis=0), axis=1)
    for h, (top, bottom) in enumerate(_centered(height), start=1):
        strip = holes[bottom] - holes[top]
        while allowed and strip[columns[allowed - 1][1]] > strip[columns[allowed - 1][0]]:
            allowed -= 1  # The blocks are nested: a taller one is never wider.
        if h * allowed > best[0] * best[1]:
            best = (h, allowed)
    return best


def centered_cube(sampled: np.ndarray) -> tuple[int, ...]:
    """Find the largest centered cube in which every position was sampled.

    Args:
        sampled (array): bool, shape (kz, ky, kx).

    Returns:
        tuple: Its size, along each axis at most that of ``sampled``; zeros if the center was not sampled.
    """
    best: tuple[int, ...] = (0,) * sampled.ndim
    for width in range(1, max(sampled.shape) + 1):
        size = tuple(min(width, n) for n in sampled.shape)
        starts = [n // 2 - m // 2 for n, m in zip(sampled.shape, size, strict=True)]
        if not sampled[tuple(slice(s, s + m) for s, m in zip(starts, size, strict=True))].all():
            break
        best = size
    return best


def _centered(size: int) -> list[tuple[int, int]]:
    return [(size // 2 - n // 2, size // 2 - n // 2 + n) for n in range(1, size + 1)]

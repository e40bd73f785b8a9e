"""What a reconstruction needs of a measurement: one object, whatever the file looked like."""

from dataclasses import dataclass

import numpy as np
import sigpy as sp


@dataclass(frozen=True)
class Geometry:
    """Where the image's slices lie in the patient (MRD's LPS coordinates, mm); each array has shape (slices, 3).

    ``position`` is the centre of voxel (y // 2, x // 2) of a slice.
    """

    position: np.ndarray
    read_dir: np.ndarray
    phase_dir: np.ndarray
    slice_dir: np.ndarray


@dataclass(frozen=True)
class RawData:
    """A measurement, sorted, averaged, whitened and cropped along the readout.

    FFTs are SigPy's: centred and orthonormal. K-space that was not measured is exactly zero.

    Attributes:
        ksp (array): complex64 (repetition, contrast, phase, set, slice, coil, *k): k is (ky, kx) for 2D
            Cartesian, (kz, ky) for 3D Cartesian (the slices are then the positions along the readout) and (shots,
            samples) for other trajectories.
        coord (array or None): k-space positions in SigPy's units (-N/2 to N/2, order (y, x)), float32 (shots, samples,
            2), or with the five frame axes before if the frames' trajectories differ; None for Cartesian data.
        calib (array or None): k-space (slice, coil, *k) for coil calibration: calibration lines, and image lines where
            there are none; None for non-Cartesian data.
        calib_shape (tuple): size of the largest centred, fully sampled rectangle of ``calib``; (0, 0) if none.
        trajectory (str): cartesian, epi, radial, spiral and so on, as the header says, in lower case.
        is_3d (bool): whether this is 3D Cartesian data, split into 2D problems along the readout.
        whitened (bool): whether the noise is uncorrelated between coils with E|n|^2 = 1 per complex sample.
        noise_cov (array or None): covariance of the noise scan as measured, complex64 (coil, coil).
        grid (tuple): matrix of each 2D problem, (ky, kx) or (kz, ky): the image that ``ksp`` is the transform of.
        fov_shape (tuple): (z, y, x) voxels of the image's field of view at the measured resolution.
        image_shape (tuple): (slices, y, x) of the finished image (the header's recon matrix).
        fov (tuple): field of view of the finished image, mm, as (x, y, z); z is one slice's in 2D, the slab's in 3D.
        heads (array): acquisition headers of the lines nearest to the k-space centre, (repetition, contrast, phase,
            set, slice); the last axis counts slabs in 3D.
        header (str): the XML header.
        source (str): file and group.
        log (tuple of str): what was found and decided, in sentences.
    """

    ksp: np.ndarray
    coord: np.ndarray | None
    calib: np.ndarray | None
    calib_shape: tuple[int, int]
    trajectory: str
    is_3d: bool
    whitened: bool
    noise_cov: np.ndarray | None
    grid: tuple[int, int]
    fov_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    fov: tuple[float, float, float]
    heads: np.ndarray
    header: str
    source: str
    log: tuple[str, ...]

    @property
    def calib_width(self) -> int:
        """Width of the largest fully sampled square that ESPIRiT can calibrate on, 0 if there is none."""
        return min(self.calib_shape)

    @property
    def geometry(self) -> Geometry:
        """Position and directions of the finished image's slices (of the first frame)."""
        first = self.heads[0, 0, 0, 0]
        if not self.is_3d:
            return Geometry(*(first[f].astype(float) for f in ("position", "read_dir", "phase_dir", "slice_dir")))
        per_slab = self.image_shape[0] // len(first)
        step = (np.arange(per_slab) - per_slab // 2) * self.fov[2] / per_slab
        heads = np.repeat(first, per_slab)
        slice_dir = heads["slice_dir"].astype(float)
        with np.errstate(invalid="ignore"):  # directions need not be finite: writers of images look after that
            position = heads["position"] + np.tile(step, len(first))[:, None] * slice_dir
        return Geometry(position, heads["read_dir"].astype(float), heads["phase_dir"].astype(float), slice_dir)

    def to_image(self, recon: np.ndarray) -> np.ndarray:
        """Brings reconstructed 2D problems to the image the header asks for.

        Phase oversampling is cropped and the matrix is interpolated (by zeros around k-space) to ``image_shape``.

        Args:
            recon (array): (repetition, contrast, phase, set, slice, *grid), the frame axes as in ``ksp``.

        Returns:
            array: (repetition, contrast, phase, set, slice, y, x).

        Raises:
            ValueError: ``recon`` has another shape.
        """
        if recon.shape != self.ksp.shape[:5] + self.grid:
            raise ValueError(f"recon must have shape {self.ksp.shape[:5] + self.grid}, got {recon.shape}")
        fov_shape: tuple[int, ...] = self.fov_shape[1:]
        image_shape: tuple[int, ...] = self.image_shape[1:]
        if self.is_3d:
            slabs = self.heads.shape[-1]
            recon = recon.reshape(*recon.shape[:4], slabs, -1, *self.grid)  # slab, x, z, y
            recon = np.moveaxis(recon, 5, -1)
            fov_shape, image_shape = self.fov_shape, (self.image_shape[0] // slabs, *image_shape)
        image = _resample(recon, fov_shape, image_shape)
        return image.reshape(*recon.shape[:4], *self.image_shape)

    def summary(self) -> str:
        """Describes the measurement in a few lines of text."""
        names = ("repetitions", "contrasts", "phases", "sets", "readout positions" if self.is_3d else "slices")
        frames = [f"{n} {name}" for n, name in zip(self.ksp.shape, names, strict=False) if n > 1]
        kind = f"{'3D' if self.is_3d else '2D'} {self.trajectory}"
        size = f"{self.ksp.shape[-2]} x {self.ksp.shape[-1]} k-space"
        head = ", ".join([kind, *frames, f"{self.ksp.shape[5]} coils", size])
        lines = [f"{self.source}: {head}; image matrix {' x '.join(map(str, self.image_shape))}."]
        if self.coord is None:
            sampled = self.ksp.any(axis=5).mean()
            lines.append(
                f"Sampled: {100 * sampled:.0f} %; fully sampled centre: {' x '.join(map(str, self.calib_shape))}."
            )
        return "\n".join([*lines, *self.log])


def _resample(image: np.ndarray, fov_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> np.ndarray:
    """Crops or pads the last axes to a field of view, then interpolates them to a matrix; values are kept."""
    lead = image.shape[: -len(fov_shape)]
    image = sp.resize(image, lead + fov_shape)
    if fov_shape == image_shape:
        return image
    axes = tuple(range(-len(fov_shape), 0))
    gain = np.sqrt(np.prod(image_shape) / np.prod(fov_shape))
    ksp = sp.resize(sp.fft(image, axes=axes), lead + image_shape)
    return (sp.ifft(ksp, axes=axes) * gain).astype(image.dtype, copy=False)

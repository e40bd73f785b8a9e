"""A simulated measurement: fully sampled k-space in, the lines a scanner would have recorded out."""

import math
from dataclasses import dataclass

import numpy as np
import sigpy as sp
from numpy.typing import NDArray

from hggdp_plugin.simulation import masks

Complex = NDArray[np.complex64]

NOISE_SAMPLES = 2048
"""Samples per coil of the noise scan."""


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how.

    Attributes:
        mask: ``"full"``, ``"uniform"``, ``"random"``, ``"poisson"`` or ``"radial"``.
        accel: Acceleration: the distance of the lines for ``uniform``, the overall one for ``random`` and ``poisson``;
            for ``radial``, that of the spokes against the number that meets Nyquist at the edge of k-space.
        calib: Fully sampled central lines; for ``poisson``, the width of a square.
        spokes: Number of spokes, instead of ``accel``.
        golden: Whether spokes follow the golden angle.
        seed: Seed of the mask and of the noise.
        snr: Mean signal over the standard deviation of the noise, as ``noise_std`` defines it; None adds no noise.
        noise_scan: Whether the noise is also measured alone; needs ``snr``.
        oversampling: Readout oversampling, 1 or 2.
        partial_fourier: Measured part of the phase encodings, above 0.5 and up to 1.
        partial_echo: Measured part of each readout, above 0.5 and up to 1.
        volume: Whether the slices are measured together, in 3D: the readout runs through them, and both axes of their
            k-space are phase encoded.

    Raises:
        ValueError: If the values contradict each other.
    """

    mask: str = "uniform"
    accel: float = 4.0
    calib: int = 24
    spokes: int | None = None
    golden: bool = True
    seed: int = 0
    snr: float | None = None
    noise_scan: bool = False
    oversampling: int = 1
    partial_fourier: float = 1.0
    partial_echo: float = 1.0
    volume: bool = False

    def __post_init__(self) -> None:
        if self.mask not in ("full", "uniform", "random", "poisson", "radial"):
            raise ValueError(f"there is no mask {self.mask!r}; take full, uniform, random, poisson or radial")
        if self.snr is not None and not 0 < self.snr < np.inf:
            raise ValueError(f"the SNR must be positive and finite, got {self.snr:g}")
        if self.noise_scan and self.snr is None:
            raise ValueError("a noise scan needs noise; give an SNR")
        if not (0.5 < self.partial_fourier <= 1 and 0.5 < self.partial_echo <= 1):
            raise ValueError("the measured part of the phase encodings and of the echo must be above 0.5 and up to 1")
        if self.mask == "radial" and min(self.partial_fourier, self.partial_echo) < 1:
            raise ValueError("spokes are measured whole; leave out partial Fourier and asymmetric echo")
        if self.volume and (self.mask == "radial" or min(self.partial_fourier, self.partial_echo) < 1):
            raise ValueError("a volume is measured on a Cartesian grid; leave out spokes, partial Fourier and echo")
        if self.mask == "poisson" and self.oversampling > 1 and not self.volume:
            raise ValueError("Poisson-disc points leave samples of a line out, which an oversampled readout cannot")
        if self.spokes is not None and self.mask != "radial":
            raise ValueError(f"only a radial measurement has spokes, not a {self.mask} one")


@dataclass(frozen=True)
class Measurement:
    """The lines of a 2D multi-slice measurement, every slice of which takes the same ones, or of a volume.

    Attributes:
        data: Samples (slices, coils, lines, samples); a volume is one slice.
        rows: Counter of each line (lines,), from 0 for the first that a complete measurement would take.
        centre_row: Counter of the line through the k-space centre.
        centre_sample: Index of the k-space centre within each line.
        calib: Which lines are calibration lines too (lines,).
        encoded: Matrix (y, x) of k-space, of a volume (z, y, x), readout oversampling included.
        matrix: Matrix of the image, likewise.
        trajectory: Coordinates (lines, samples, 2), the last axis (kx, ky), in cycles per pixel; None if Cartesian.
        noise: Noise scan (coils, samples), or None.
        partitions: The second counter of each line of a volume (lines,), or None.
    """

    data: Complex
    rows: NDArray[np.intp]
    centre_row: int
    centre_sample: int
    calib: NDArray[np.bool_]
    encoded: tuple[int, ...]
    matrix: tuple[int, ...]
    trajectory: NDArray[np.float32] | None = None
    noise: Complex | None = None
    partitions: NDArray[np.intp] | None = None

    @property
    def accel(self) -> float:
        """Voxels of the image over samples measured, oversampling not counted; for spokes, rows over spokes."""
        if self.trajectory is not None:
            return self.matrix[0] / len(self.rows)
        measured = int(np.any(self.data != 0, axis=(0, 1)).sum())
        return math.prod(self.encoded) / measured


def noise_std(image: Complex, snr: float) -> float:
    """Standard deviation of the noise in the real and in the imaginary part of each sample.

    The orthonormal FFT carries it unchanged into each coil image, and so does a combination by sensitivities whose
    squares sum to 1 into the image.

    Args:
        image: Noise-free image, any shape.
        snr: Mean magnitude of the object, where the image exceeds a tenth of its maximum, over that deviation.
    """
    magnitude = np.abs(image)
    return float(magnitude[magnitude > 0.1 * magnitude.max()].mean() / snr)


def acquire(ksp: Complex, image: Complex, protocol: Protocol) -> Measurement:
    """Measures fully sampled k-space by a protocol.

    Args:
        ksp: Centred k-space (slices, coils, ky, kx), orthonormal FFT.
        image: Its image, any shape: what the SNR refers to.
        protocol: What to measure.

    Returns:
        The measurement; a volume's axes (z, y, x) are the axes (y, x, slices) of ``image``. Where a Poisson-disc mask
        leaves samples of a line out, these are exact zeros, and lines without any sample are left out.

    Raises:
        ValueError: If the protocol cannot be met on this matrix, or the image is zero.
    """
    if not np.any(image):
        raise ValueError("the image is zero everywhere")
    rng = np.random.default_rng([protocol.seed, 1])
    std = 0.0 if protocol.snr is None else noise_std(image, protocol.snr)
    noise = None
    if protocol.noise_scan:
        noise = _noise((ksp.shape[1], NOISE_SAMPLES), std, rng)
    measure = _spokes if protocol.mask == "radial" else _partitions if protocol.volume else _lines
    return measure(ksp, protocol, std, rng, noise)


def _noise(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> Complex:
    return (std * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))).astype(np.complex64)


def _lines(
    ksp: Complex, protocol: Protocol, std: float, rng: np.random.Generator, noise: Complex | None
) -> Measurement:
    """Measures phase-encode lines."""
    ny, nx = ksp.shape[-2:]
    mask = cartesian_mask((ny, nx), protocol)
    if protocol.oversampling > 1:
        wide = sp.resize(sp.ifft(ksp, axes=(-1,)), [*ksp.shape[:-1], nx * protocol.oversampling])
        ksp = sp.fft(wide, axes=(-1,)).astype(np.complex64)
        mask = mask[:, :1]
    skip_y = ny - round(ny * protocol.partial_fourier)
    skip_x = ksp.shape[-1] - round(ksp.shape[-1] * protocol.partial_echo)
    calib = np.zeros(ny, bool)
    centre = masks.centre(ny, protocol.calib)
    calib[centre] = protocol.mask != "full"
    if skip_y > (centre.start if protocol.calib else ny // 2):
        raise ValueError(f"partial Fourier {protocol.partial_fourier:g} leaves out calibration lines; keep more of it")
    rows = skip_y + np.flatnonzero(mask[skip_y:].any(axis=1))
    data = (ksp + _noise(ksp.shape, std, rng)) * mask
    return Measurement(
        data=data[..., rows, skip_x:],
        rows=rows - skip_y,
        centre_row=ny // 2 - skip_y,
        centre_sample=ksp.shape[-1] // 2 - skip_x,
        calib=calib[rows],
        encoded=(ny, ksp.shape[-1]),
        matrix=(ny, nx),
        noise=noise,
    )


def _partitions(
    ksp: Complex, protocol: Protocol, std: float, rng: np.random.Generator, noise: Complex | None
) -> Measurement:
    """Measures lines along the slice axis, each at a point of the slices' k-space."""
    slices, coils, nz, ny = ksp.shape
    mask = cartesian_mask((nz, ny), protocol)
    calib = np.zeros((nz, ny), bool)
    if protocol.mask != "full":
        calib[masks.centre(nz, protocol.calib), masks.centre(ny, protocol.calib)] = True
    partitions, rows = np.nonzero(mask)
    samples = slices * protocol.oversampling
    lines = sp.resize(ksp[..., partitions, rows].transpose(1, 2, 0), (coils, len(rows), samples))
    lines = sp.fft(lines, axes=(-1,))
    return Measurement(
        data=(lines + _noise(lines.shape, std, rng)).astype(np.complex64)[None],
        rows=rows,
        centre_row=ny // 2,
        centre_sample=samples // 2,
        calib=calib[partitions, rows],
        encoded=(nz, ny, samples),
        matrix=(nz, ny, slices),
        noise=noise,
        partitions=partitions,
    )


def cartesian_mask(shape: tuple[int, int], protocol: Protocol) -> masks.Mask:
    """The mask (ky, kx) that a Cartesian protocol asks for, before partial Fourier and partial echo."""
    ny = shape[0]
    if protocol.mask == "poisson":
        return masks.poisson_disc(shape, protocol.accel, protocol.calib, protocol.seed)
    if protocol.mask == "uniform":
        lines = masks.uniform_lines(ny, protocol.accel, protocol.calib)
    elif protocol.mask == "random":
        lines = masks.random_lines(ny, protocol.accel, protocol.calib, protocol.seed)
    else:
        lines = np.ones(ny, bool)
    return np.broadcast_to(lines[:, None], shape)


def _spokes(
    ksp: Complex, protocol: Protocol, std: float, rng: np.random.Generator, noise: Complex | None
) -> Measurement:
    """Measures spokes, by the NUFFT of the images."""
    ny, nx = ksp.shape[-2:]
    nyquist = np.pi / 2 * max(ny, nx)
    spokes = protocol.spokes if protocol.spokes is not None else max(round(nyquist / protocol.accel), 1)
    samples = max(ny, nx) * protocol.oversampling
    trajectory = masks.radial_trajectory(spokes, samples, protocol.golden)
    coord = trajectory[..., ::-1] * np.array([ny, nx], np.float32)  # SigPy: (ky, kx) in cycles per field of view
    data = sp.nufft(sp.ifft(ksp, axes=(-2, -1)), coord)
    return Measurement(
        data=(data + _noise(data.shape, std, rng)).astype(np.complex64),
        rows=np.arange(spokes),
        centre_row=0,
        centre_sample=samples // 2,
        calib=np.zeros(spokes, bool),
        encoded=(ny, nx),
        matrix=(ny, nx),
        trajectory=trajectory,
        noise=noise,
    )

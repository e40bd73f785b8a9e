"""Simulate a scan: from fully sampled k-space to the readouts that a scanner would have acquired."""

import math
from dataclasses import dataclass

import numpy as np
import sigpy as sp
from numpy.typing import NDArray

from hggdp_plugin.simulation import masks

#: Samples per coil of the noise scan.
NOISE_SAMPLES = 2048


@dataclass(frozen=True)
class ScanProtocol:
    """What a simulated scan samples.

    Attributes:
        mask (str): ``"full"``, ``"uniform"``, ``"random"``, ``"poisson"`` or ``"radial"``.
        accel (float): Acceleration. For ``uniform``, the distance of the lines; for ``random`` and ``poisson``, the
            overall acceleration; for ``radial``, relative to the number of spokes that meets Nyquist at the edge of
            k-space.
        calib (int): Number of fully sampled central lines; for ``poisson``, the width of a square.
        spokes (int or None): Number of spokes, instead of ``accel``.
        golden (bool): Whether spokes follow the golden angle.
        seed (int): Seed of the mask and of the noise.
        snr (float or None): Mean signal over the standard deviation of the noise, see :func:`noise_std`; None adds no
            noise.
        noise_scan (bool): Whether a noise scan is acquired too; needs ``snr``.
        oversampling (int): Readout oversampling, 1 or 2.
        partial_fourier (float): Fraction of the phase encoding steps that is acquired, above 0.5 and up to 1.
        partial_echo (float): Fraction of each readout that is acquired, above 0.5 and up to 1.
        volume (bool): Whether the slices are acquired together as a 3D scan. The readout runs through the slices, and
            both axes of their k-space are phase encoded.

    Raises:
        ValueError: The values contradict each other.
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
            raise ValueError(f"unknown mask {self.mask!r}; choose full, uniform, random, poisson or radial")
        if self.snr is not None and not 0 < self.snr < np.inf:
            raise ValueError(f"the SNR must be positive and finite, got {self.snr:g}")
        if self.noise_scan and self.snr is None:
            raise ValueError("a noise scan needs noise; give an SNR")
        if not (0.5 < self.partial_fourier <= 1 and 0.5 < self.partial_echo <= 1):
            raise ValueError("partial Fourier and partial echo must be above 0.5 and up to 1")
        if self.mask == "radial" and min(self.partial_fourier, self.partial_echo) < 1:
            raise ValueError("spokes are acquired in full; leave out partial Fourier and asymmetric echo")
        if self.volume and (self.mask == "radial" or min(self.partial_fourier, self.partial_echo) < 1):
            raise ValueError("a volume is Cartesian; leave out spokes, partial Fourier and asymmetric echo")
        if self.mask == "poisson" and self.oversampling > 1 and not self.volume:
            raise ValueError("Poisson-disc points leave out samples of a readout, which an oversampled readout cannot")
        if self.spokes is not None and self.mask != "radial":
            raise ValueError(f"only a radial scan has spokes, not a {self.mask} one")


@dataclass(frozen=True)
class SimulatedScan:
    """The readouts of a 2D multi-slice scan, which are the same for every slice, or of a 3D scan.

    Attributes:
        data (array): Samples, complex64 (slices, coils, readouts, samples); a 3D scan counts as one slice.
        ky (array): Phase encoding step of each readout (readouts,), starting at 0 for the first that a complete scan
            would acquire.
        center_ky (int): Phase encoding step of the k-space center.
        center_sample (int): Index of the k-space center within each readout.
        is_calib (array): Which readouts are calibration lines too, bool (readouts,).
        encoded_matrix (tuple of ints): Matrix (y, x), in 3D (z, y, x), of k-space, readout oversampling included.
        matrix (tuple of ints): Matrix of the image, with the same axes.
        trajectory (array or None): Coordinates, float32 (readouts, samples, 2), last axis (kx, ky), in cycles per
            pixel; None on the Cartesian grid.
        noise (array or None): Noise scan, complex64 (coils, samples).
        kz (array or None): Second phase encoding step of each readout of a 3D scan (readouts,).
    """

    data: NDArray[np.complex64]
    ky: NDArray[np.intp]
    center_ky: int
    center_sample: int
    is_calib: NDArray[np.bool_]
    encoded_matrix: tuple[int, ...]
    matrix: tuple[int, ...]
    trajectory: NDArray[np.float32] | None = None
    noise: NDArray[np.complex64] | None = None
    kz: NDArray[np.intp] | None = None

    @property
    def accel(self) -> float:
        """Net acceleration: k-space positions over acquired samples; for spokes, image rows over spokes."""
        if self.trajectory is not None:
            return self.matrix[0] / len(self.ky)
        acquired = int(np.any(self.data != 0, axis=(0, 1)).sum())
        return math.prod(self.encoded_matrix) / acquired


def noise_std(image: NDArray[np.complex64], snr: float) -> float:
    """Return the standard deviation of the noise in the real and in the imaginary part of each sample.

    It is the same in k-space, in the coil images (orthonormal FFT), and in an image combined by maps whose squares
    sum to 1.

    Args:
        image (array): Noise-free image, of any shape.
        snr (float): Mean magnitude of the object, where the image exceeds a tenth of its maximum, over the standard
            deviation.

    Returns:
        float: Standard deviation per real channel.
    """
    magnitude = np.abs(image)
    return float(magnitude[magnitude > 0.1 * magnitude.max()].mean() / snr)


def acquire(ksp: NDArray[np.complex64], image: NDArray[np.complex64], protocol: ScanProtocol) -> SimulatedScan:
    """Simulate the scan of fully sampled k-space.

    Args:
        ksp (array): Centered k-space, complex64 (slices, coils, ky, kx), orthonormal FFT.
        image (array): Its image, of any shape, which the SNR refers to.
        protocol (ScanProtocol): What to acquire.

    Returns:
        SimulatedScan: The scan. The axes (z, y, x) of a 3D scan are the axes (y, x, slices) of ``image``. Where a
        Poisson-disc mask leaves out samples of a readout, these are exact zeros; readouts without any sample are left
        out.

    Raises:
        ValueError: The protocol is not possible on this matrix, or the image is zero.
    """
    if not np.any(image):
        raise ValueError("the image is zero everywhere")
    rng = np.random.default_rng([protocol.seed, 1])
    std = 0.0 if protocol.snr is None else noise_std(image, protocol.snr)
    noise = None
    if protocol.noise_scan:
        noise = _noise((ksp.shape[1], NOISE_SAMPLES), std, rng)
    acquire_readouts = _spokes if protocol.mask == "radial" else _partitions if protocol.volume else _lines
    return acquire_readouts(ksp, protocol, std, rng, noise)


def _noise(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> NDArray[np.complex64]:
    return (std * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))).astype(np.complex64)


def _lines(
    ksp: NDArray[np.complex64],
    protocol: ScanProtocol,
    std: float,
    rng: np.random.Generator,
    noise: NDArray[np.complex64] | None,
) -> SimulatedScan:
    """Acquire phase-encode lines."""
    ny, nx = ksp.shape[-2:]
    mask = cartesian_mask((ny, nx), protocol)
    if protocol.oversampling > 1:
        wide = sp.resize(sp.ifft(ksp, axes=(-1,)), [*ksp.shape[:-1], nx * protocol.oversampling])
        ksp = sp.fft(wide, axes=(-1,)).astype(np.complex64)
        mask = mask[:, :1]
    skip_y = ny - round(ny * protocol.partial_fourier)
    skip_x = ksp.shape[-1] - round(ksp.shape[-1] * protocol.partial_echo)
    is_calib = np.zeros(ny, bool)
    center = masks.center(ny, protocol.calib)
    is_calib[center] = protocol.mask != "full"
    if skip_y > (center.start if protocol.calib else ny // 2):
        raise ValueError(f"partial Fourier {protocol.partial_fourier:g} leaves out calibration lines; increase it")
    ky = skip_y + np.flatnonzero(mask[skip_y:].any(axis=1))
    data = (ksp + _noise(ksp.shape, std, rng)) * mask
    return SimulatedScan(
        data=data[..., ky, skip_x:],
        ky=ky - skip_y,
        center_ky=ny // 2 - skip_y,
        center_sample=ksp.shape[-1] // 2 - skip_x,
        is_calib=is_calib[ky],
        encoded_matrix=(ny, ksp.shape[-1]),
        matrix=(ny, nx),
        noise=noise,
    )


def _partitions(
    ksp: NDArray[np.complex64],
    protocol: ScanProtocol,
    std: float,
    rng: np.random.Generator,
    noise: NDArray[np.complex64] | None,
) -> SimulatedScan:
    """Acquire readouts along the slice axis, each at one point of the k-space of the slices."""
    slices, coils, nz, ny = ksp.shape
    mask = cartesian_mask((nz, ny), protocol)
    is_calib = np.zeros((nz, ny), bool)
    if protocol.mask != "full":
        is_calib[masks.center(nz, protocol.calib), masks.center(ny, protocol.calib)] = True
    kz, ky = np.nonzero(mask)
    samples = slices * protocol.oversampling
    readouts = sp.resize(ksp[..., kz, ky].transpose(1, 2, 0), (coils, len(ky), samples))
    readouts = sp.fft(readouts, axes=(-1,))
    return SimulatedScan(
        data=(readouts + _noise(readouts.shape, std, rng)).astype(np.complex64)[None],
        ky=ky,
        center_ky=ny // 2,
        center_sample=samples // 2,
        is_calib=is_calib[kz, ky],
        encoded_matrix=(nz, ny, samples),
        matrix=(nz, ny, slices),
        noise=noise,
        kz=kz,
    )


def cartesian_mask(shape: tuple[int, int], protocol: ScanProtocol) -> masks.Mask:
    """Return the mask (ky, kx) of a Cartesian protocol, before partial Fourier and partial echo."""
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
    ksp: NDArray[np.complex64],
    protocol: ScanProtocol,
    std: float,
    rng: np.random.Generator,
    noise: NDArray[np.complex64] | None,
) -> SimulatedScan:
    """Acquire spokes, by the NUFFT of the images."""
    ny, nx = ksp.shape[-2:]
    nyquist = np.pi / 2 * max(ny, nx)
    spokes = protocol.spokes if protocol.spokes is not None else max(round(nyquist / protocol.accel), 1)
    samples = max(ny, nx) * protocol.oversampling
    trajectory = masks.radial_trajectory(spokes, samples, protocol.golden)
    coord = trajectory[..., ::-1] * np.array([ny, nx], np.float32)  # SigPy: (ky, kx) in cycles per field of view
    data = sp.nufft(sp.ifft(ksp, axes=(-2, -1)), coord)
    return SimulatedScan(
        data=(data + _noise(data.shape, std, rng)).astype(np.complex64),
        ky=np.arange(spokes),
        center_ky=0,
        center_sample=samples // 2,
        is_calib=np.zeros(spokes, bool),
        encoded_matrix=(ny, nx),
        matrix=(ny, nx),
        trajectory=trajectory,
        noise=noise,
    )

"""Scans of many anatomies and contrasts, and undersampled measurements of them: what reach and robustness measure on.

Complex images whose 99.9th percentile is 1. Where coil images or k-space were measured, they are used as they are, with
ESPIRiT maps from 24 x 24 samples; everything else is given a smooth phase, seen by eight simulated coils whose maps are
known, and has noise added in k-space. All methods get the same k-space and the same maps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import need, siat_images
from scipy.ndimage import gaussian_filter

from hggdp_plugin.simulation.coils import coil_maps
from hggdp_plugin.simulation.masks import poisson_disc, radial_trajectory, random_lines

COILS, CALIB, SPOKES = 8, 16, 40
#: Slices of subject 5, one of each orientation: a validation set of the bundled prior, not seen in training.
VALIDATION = (10, 30, 50)
SAMPLINGS = ("random lines R=4", "Poisson R=6", "Poisson R=10", f"radial, {SPOKES} spokes")
#: Share of the slices of a training domain that are set aside, and their least number.
SET_ASIDE, LEAST_ASIDE = 0.08, 4
#: Standard deviation of a complex sample, where the image's 99.9th percentile is 1.
NOISES = (0.003, 0.01, 0.03)
#: The same for measured coils, which have noise of their own.
ADDED = (0.0, 0.01, 0.03)


@dataclass(frozen=True)
class Scan:
    """A slice that is known completely: its image, and how several coils saw it."""

    domain: str
    name: str
    image: np.ndarray  # complex64 (H, W)
    mps: np.ndarray  # (coils, H, W); of one coil: ones
    coil_images: np.ndarray  # (coils, H, W)
    noise: float  # standard deviation of the image's own noise, 0 where it counts as the truth
    measured_coils: bool
    license: str

    def alone(self) -> "Scan":
        """The same image as one coil of uniform sensitivity sees it."""
        one = self.image[None]
        return replace(self, mps=np.ones_like(one), coil_images=one, measured_coils=False)


@dataclass(frozen=True)
class Case:
    """A measurement to simulate; ``key`` names it in the results."""

    scan: Scan
    several: bool
    sampling: str
    noise: float  # standard deviation of a complex sample that is added

    @property
    def key(self) -> str:
        coils = "coils" if self.several else "one coil"
        return f"{self.scan.name}, {coils}, {self.sampling}, noise {self.noise:g}"


@dataclass(frozen=True)
class Problem:
    """Arguments of a reconstruction, and what it should give."""

    y: np.ndarray  # complex64 (coils, H, W) or (coils, spokes, samples)
    mps: np.ndarray  # (coils, H, W)
    coord: np.ndarray | None
    noise: float  # standard deviation of a complex sample
    reference: np.ndarray  # complex64 (H, W)


def scans(data: Path) -> list[Scan]:
    """All scans, domain by domain."""
    found = _validation(data)
    brain = sp.ifft(np.load(need(data / "brain8ch_full.npy")), axes=(-2, -1))
    found.append(_of_coils("brain T1, 8 measured coils", "brain_t1_8coils", brain, ""))
    with h5py.File(need(data / "reach.h5"), "r") as file:
        for name, entry in file.items():
            found += _entry(name, entry[()], dict(entry.attrs))
    return sorted(found, key=lambda scan: scan.domain)


def set_aside(data: Path, most: int = 2) -> list[Scan]:
    """Scans to choose settings on: the slices of each training domain that no prior was trained on, and subject 5."""
    found = _validation(data)
    with h5py.File(need(data / "mr_train.h5"), "r") as file:
        for name, group in file.items():
            for key in spread(set_aside_names(list(group)), most):
                image = (group[key][()] * group.attrs["step"]).astype(np.float32)
                image = image * smooth_phase(image.shape, f"{name}_{key}")
                found.append(simulated(name, f"{name}_{key}", image, group.attrs["licence"]))
    return found


def set_aside_names(names: list[str]) -> list[str]:
    """The last slices of a domain, by name: of other subjects than the rest, they are for validation."""
    return sorted(names)[-max(LEAST_ASIDE, round(SET_ASIDE * len(names))) :]


def spread(items: list, most: int) -> list:
    """At most so many items, evenly spaced."""
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, min(most, len(items)))]


def first_of_each(found: list[Scan], number: int | None) -> list[Scan]:
    """At most so many scans of each domain, the first ones; None: all."""
    domains: dict[str, list[Scan]] = {}
    for scan in found:
        domains.setdefault(scan.domain, []).append(scan)
    return [scan for members in domains.values() for scan in members[:number]]


def cases(found: list[Scan]) -> Iterator[Case]:
    """Every sampling at the middle level of noise with coils and with one, and the other levels at R=6 with coils."""
    for scan in found:
        levels, middle = (ADDED, 0.0) if scan.measured_coils else (NOISES, 0.01)
        for sampling in SAMPLINGS:
            yield Case(scan, True, sampling, middle)
            yield Case(scan, False, sampling, 0.0 if scan.noise else 0.01)
        for level in sorted(set(levels) - {middle}):
            yield Case(scan, True, "Poisson R=6", level)


def simulate(case: Case, seed: int = 0) -> Problem:
    """The measurement of a case; the same every time."""
    scan = case.scan if case.several else case.scan.alone()
    rng = np.random.default_rng([seed, *case.key.encode()])
    mps = scan.mps
    if scan.measured_coils:
        full = sp.fft(scan.coil_images, axes=(-2, -1))
        mps = measured_maps(full + case.noise * complex_normal(rng, full.shape))
    y, coord = sample(scan.coil_images, case.sampling, rng, case.noise)
    return Problem(y, mps, coord, float(np.hypot(scan.noise, case.noise)), scan.image)


def sample(
    coil_images: np.ndarray, sampling: str, rng: np.random.Generator, noise: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """k-space of coil images with noise, zero where not sampled, or spokes with their coordinates."""
    shape = coil_images.shape[-2:]
    if sampling.startswith("radial"):
        coord = radial_trajectory(SPOKES, max(shape))[..., ::-1] * np.array(shape, np.float32)
        coord = np.ascontiguousarray(coord)
        y = sp.nufft(coil_images, coord, oversamp=2, width=6)
        return (y + noise * complex_normal(rng, y.shape)).astype(np.complex64), coord
    mask = _mask(shape, sampling, int(rng.integers(1000)))
    y = sp.fft(coil_images, axes=(-2, -1))
    return ((y + noise * complex_normal(rng, y.shape)) * mask).astype(np.complex64), None


def complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Complex noise of E|n|^2 = 1."""
    pairs = rng.standard_normal((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0] / np.float32(2**0.5)


def measured_maps(ksp: np.ndarray) -> np.ndarray:
    """SigPy's ESPIRiT maps from the central 24 x 24 samples, zero outside the object."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mps = mr.app.EspiritCalib(ksp.astype(np.complex64), calib_width=24, kernel_width=6, show_pbar=False).run()
    return np.nan_to_num(mps, nan=0, posinf=0, neginf=0).astype(np.complex64)


def _validation(data: Path) -> list[Scan]:
    """Slices of subject 5."""
    return [
        simulated("brain T2 (validation)", f"brain_t2_{i}", siat_images(data / "siat_val.h5", slice(i, i + 1))[0], "")
        for i in VALIDATION
    ]


def _entry(name: str, data: np.ndarray, attrs: dict[str, str]) -> list[Scan]:
    """The slices of one entry of reach.h5."""
    domain = f"{attrs['anatomy'].split(',')[0]} {attrs['contrast']}"
    license = attrs["licence"]
    if name == "brain_t1_7coils":
        return [_of_coils(f"{domain}, 7 measured coils", name, data, license)]
    if np.iscomplexobj(data):
        image = sp.ifft(data, axes=(-2, -1))
        if "oversampled" in attrs["kind"]:
            image = sp.resize(image, (image.shape[0], image.shape[1] // 2))
        return [simulated(f"{domain}, measured", name, image, license, measured=True)]
    slices = data.reshape(-1, *data.shape[-2:]).astype(np.float32)
    names = [name] if len(slices) == 1 else [f"{name}_{i}" for i in range(len(slices))]
    return [simulated(domain, n, s * smooth_phase(s.shape, n), license) for n, s in zip(names, slices, strict=True)]


def smooth_phase(shape: tuple[int, int], name: str) -> np.ndarray:
    """A smooth random phase factor; the name seeds it."""
    rng = np.random.default_rng(list(name.encode()))
    field = gaussian_filter(rng.standard_normal(shape), [n / 6 for n in shape], mode="reflect")
    field = (field - field.mean()) / field.std()
    return np.exp(1j * (field + rng.uniform(-np.pi, np.pi))).astype(np.complex64)


def simulated(domain: str, name: str, image: np.ndarray, license: str, measured: bool = False) -> Scan:
    """A scan seen by simulated coils; ``measured``: the image has noise of its own, which one coil adds nothing to."""
    image = (image / np.percentile(abs(image), 99.9)).astype(np.complex64)
    mps = coil_maps(COILS, image.shape)
    noise = periphery_noise(sp.fft(image[None], axes=(-2, -1))) if measured else 0.0
    return Scan(domain, name, image, mps, mps * image, noise, False, license)


def _of_coils(domain: str, name: str, images: np.ndarray, license: str) -> Scan:
    """A scan of measured coil images."""
    ksp = sp.fft(images, axes=(-2, -1))
    mps = measured_maps(ksp)
    image = (mps.conj() * images).sum(axis=0)
    scale = np.percentile(abs(image), 99.9)
    return Scan(domain, name, image / scale, mps, images / scale, periphery_noise(ksp) / scale, True, license)


def periphery_noise(ksp: np.ndarray) -> float:
    """Standard deviation of a complex sample in the corners of k-space."""
    height, width = ksp.shape[-2:]
    corner = ksp[..., : height // 12, : width // 12]
    return float(np.sqrt(np.median(abs(corner) ** 2) / np.log(2)))


@cache
def _poisson(shape: tuple[int, int], accel: int) -> np.ndarray:
    return poisson_disc(shape, accel, CALIB)


def _mask(shape: tuple[int, int], sampling: str, seed: int) -> np.ndarray:
    if sampling.startswith("Poisson"):
        return _poisson(shape, int(sampling.split("=")[1]))
    return np.broadcast_to(random_lines(shape[0], 4, CALIB, seed)[:, None], shape)

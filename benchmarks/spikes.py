"""Spikes in k-space: how many are found, and how many that are none.

Slices that were set aside of the training domains, and a brain measured with eight coils (benchmarks/scans.py): with
several coils and with one, with five levels of noise, each with four samplings. Without spikes everything that is found
is an error. Then five samples of all coils, or of one, have a part of the k-space maximum added.

    python benchmarks/spikes.py --json spikes.json
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sigpy as sp
from common import need, parser, print_table, report
from scans import NOISES, complex_normal, sample, set_aside

from hggdp_plugin.spikes import find_spikes

SAMPLINGS = ("full", "random lines R=4", "Poisson R=6", "Poisson R=10")
HIGH_NOISE = 0.1
#: Spikes in parts of the k-space maximum, and how many there are at a time.
SIZES, NUMBER = (0.1, 0.03, 0.01), 5


def images(data: Path) -> Iterator[np.ndarray]:
    """Images (coils, H, W), of maximum 1."""
    for scan in set_aside(data, most=1):
        yield scan.coil_images / abs(scan.image).max()
        yield scan.image[None] / abs(scan.image).max()
    brain = sp.ifft(np.load(need(data / "brain8ch_full.npy")), axes=(-2, -1))
    for coils in (brain, brain[:1]):
        yield coils / np.linalg.norm(coils, axis=0).max()


def kspace(coil_images: np.ndarray, sampling: str, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Measured samples; the others are zero."""
    if sampling != "full":
        return sample(coil_images, sampling, rng, noise)[0]
    y = sp.fft(coil_images, axes=(-2, -1))
    return (y + noise * complex_normal(rng, y.shape)).astype(np.complex64)


def hits(y: np.ndarray, size: float, in_one: bool, outer: bool, rng: np.random.Generator) -> float:
    """Part of some spikes that is found, anywhere, or in the outer half of k-space."""
    ky, kx = (abs(np.arange(n) - n // 2) * 2 / n for n in y.shape[-2:])
    where = y.any(axis=0) & ((ky[:, None] > 0.5) | (kx > 0.5) if outer else True)
    places = tuple(np.argwhere(where)[rng.choice(int(where.sum()), NUMBER, replace=False)].T)
    coils = [int(rng.integers(len(y)))] if in_one else range(len(y))
    spiked = y.copy()
    for coil in coils:
        spiked[coil][places] += size * abs(y).max() * np.exp(2j * np.pi * rng.random(NUMBER))
    return float(find_spikes(spiked)[places].mean())


def measure(data: Path, sampling: str) -> dict[str, float]:
    """Samples, errors among them, and the part of the spikes that is found."""
    rng = np.random.default_rng(0)
    n_samples = errors = 0
    found: dict[str, list[float]] = {}
    for coil_images in images(data):
        for noise in (0.0, *NOISES, HIGH_NOISE):
            y = kspace(coil_images, sampling, noise, rng)
            n_samples += int(y.any(axis=0).sum())
            errors += int(find_spikes(y).sum())
            if noise not in NOISES[:2]:
                continue
            for size in SIZES:
                for place, outer in (("anywhere", False), ("outer half", True)):
                    found.setdefault(f"{size:g}, {place}", []).append(hits(y, size, False, outer, rng))
            if len(y) > 1:
                found.setdefault(f"{SIZES[0]:g} in one coil, anywhere", []).append(hits(y, SIZES[0], True, False, rng))
    shares = {name: 100 * float(np.mean(parts)) for name, parts in found.items()}
    return {"samples (million)": n_samples / 1e6, "false": errors, **shares}


def main() -> None:
    args = parser(__doc__, prior=False).parse_args()
    rows = {sampling: measure(args.data, sampling) for sampling in SAMPLINGS}
    columns = list(rows[SAMPLINGS[0]])
    print_table(columns, {name: list(row.values()) for name, row in rows.items()}, "spikes found (%)")
    report(args, {"rows": rows})


if __name__ == "__main__":
    main()

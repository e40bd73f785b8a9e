"""Does the higher dimension help? Priors of one view and of three, trained alike, at denoising and at reconstruction.

The mean of K views with noise sigma is a sufficient statistic of the image: it is one view with noise sigma / sqrt(K).
Besides the same sigma, both are therefore compared at equal information. Validation slices (subject 5), one coil.
docs/views.md has the commands that train the priors; name them in the order of their seeds.

    python benchmarks/views.py --one views1-seed0.safetensors views1-seed1.safetensors \\
        --three views3-seed0.safetensors views3-seed1.safetensors --json views.json
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp
from common import parser, print_table, report, siat_images

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.simulation.masks import poisson_disc, random_lines

K = 3
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)


def masks(size: int) -> dict[str, np.ndarray]:
    """Three sampling masks (size, size)."""
    lines = np.repeat(random_lines(size, 4, size // 16)[:, None], size, axis=1)
    return {
        "Poisson disc R=6": poisson_disc((size, size), 6, size // 16),
        "Poisson disc R=10": poisson_disc((size, size), 10, size // 16),
        "random lines R=4": lines,
    }


def psnr(error: np.ndarray) -> float:
    """Mean PSNR, peak 1, of errors (images, H, W)."""
    return float(np.mean(-10 * np.log10(np.mean(abs(error) ** 2, axis=(-2, -1)))))


def denoised(images: np.ndarray, noisy: Callable[[np.ndarray], np.ndarray], prior: ScorePrior, share: float) -> list:
    """PSNR (complex, peak 1) at each noise level; ``noisy`` makes the prior's views of the noise of K views."""
    values = []
    for sigma in SIGMAS:
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((len(images), K, *images.shape[1:], 2), np.float32).view(np.complex64)[..., 0]
        views = images[:, None] + sigma * noisy(noise)
        values.append(psnr(prior.denoise_views(views, sigma * share).mean(axis=1) - images))
    return values


def reconstructed(images: np.ndarray, schedule: NoiseSchedule, factor: float, prior: ScorePrior) -> list[float]:
    """PSNR of the magnitudes under each mask, the schedule's noise levels multiplied by ``factor``."""
    schedule = dataclasses.replace(schedule, sigmas=tuple(factor * sigma for sigma in schedule.sigmas))
    values = []
    for mask in masks(images.shape[-1]).values():
        y = (sp.fft(images, axes=(-2, -1)) * mask)[:, None].astype(np.complex64)
        recon = HGGDPRecon(y, prior=prior, schedule=schedule, show_pbar=False).run()
        values.append(psnr(abs(recon) - abs(images)))
    return values


def zero_filled(images: np.ndarray) -> list[float]:
    """PSNR of the magnitudes of the zero-filled images under each mask."""
    k = sp.fft(images, axes=(-2, -1))
    return [psnr(abs(sp.ifft(k * mask, axes=(-2, -1))) - abs(images)) for mask in masks(images.shape[-1]).values()]


def show(title: str, columns: list[str], rows: dict[str, list[list[float]]]) -> None:
    """Print the mean over the seeds and half the range."""
    print(f"\n{title}\n")
    cells: dict[str, list[Any]] = {}
    for name, values in rows.items():
        spread = np.ptp(values, axis=0) / 2
        cells[name] = [f"{m:.2f} ± {s:.2f}" for m, s in zip(np.mean(values, axis=0), spread, strict=True)]
        cells[name] = cells[name] if len(values) > 1 else values[0]
    print_table(columns, cells)


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--one", type=Path, nargs="+", required=True, help="priors of one view, one a seed")
    p.add_argument("--three", type=Path, nargs="+", required=True, help="priors of three views, of the same seeds")
    p.add_argument("--slices", type=int, default=4, help="validation slices, evenly spaced")
    p.add_argument("--crop", type=int, default=128, help="size of the center crops for the published sampler")
    p.add_argument("--steps", type=int, default=20, help="its steps per level (default 20; published: 80)")
    args = p.parse_args()
    one, three = ([load_prior(path) for path in paths] for paths in (args.one, args.three))
    if len(one) != len(three) or {q.views for q in one} != {1} or {q.views for q in three} != {K}:
        raise SystemExit(f"--one, --three: give as many priors of 1 view as of {K}")
    images = siat_images(args.data / "siat_val.h5")
    images = images[:: -(-len(images) // args.slices)]
    start = time.perf_counter()

    root = K**0.5
    denoising = {
        "1 view at σ": [denoised(images, lambda n: n[:, :1], q, 1) for q in one],
        "1 view at σ/√3": [denoised(images, lambda n: n.mean(1, keepdims=True), q, 1 / root) for q in one],
        "3 views at σ": [denoised(images, lambda n: n, q, 1) for q in three],
    }
    show("Denoising PSNR (dB) at σ", [f"{sigma:g}" for sigma in SIGMAS], denoising)

    # The fast schedule's σ is that of the image: K views get noise sqrt(K) σ each, as much information as one view has.
    names = list(masks(images.shape[-1]))
    fast = NoiseSchedule.fast()
    few = {
        "zero-filled": [zero_filled(images)],
        "1 view at σ": [reconstructed(images, fast, 1, q) for q in one],
        "3 views at √3σ": [reconstructed(images, fast, 1, q) for q in three],
        "3 views at σ": [reconstructed(images, fast, 1 / root, q) for q in three],
    }
    show(f"Reconstruction PSNR (dB), fast schedule, {fast.evaluations} evaluations", names, few)

    inner = slice((images.shape[-1] - args.crop) // 2, (images.shape[-1] + args.crop) // 2)
    crops = images[::2, inner, inner]
    crops = crops / abs(crops).max(axis=(-2, -1), keepdims=True)
    published = NoiseSchedule.hggdp(steps=args.steps)  # its σ is that of every view
    many = {
        "zero-filled": [zero_filled(crops)],
        "1 view at σ": [reconstructed(crops, published, 1, q) for q in one],
        "1 view at σ/√3": [reconstructed(crops, published, 1 / root, q) for q in one],
        "3 views at σ": [reconstructed(crops, published, 1, q) for q in three],
    }
    title = f"Reconstruction PSNR (dB), published sampler, {published.evaluations} evaluations"
    show(f"{title}, {len(crops)} crops of {args.crop}", names, many)

    tables: dict[str, Any] = {"denoising": denoising, "fast": few, "published sampler": many}
    setting = {"slices": len(images), "crops": len(crops), "sigmas": SIGMAS, "masks": names}
    report(args, setting | tables | {"seconds": round(time.perf_counter() - start)})


if __name__ == "__main__":
    main()

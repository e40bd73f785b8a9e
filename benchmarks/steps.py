"""How the one-step-per-level sampler's settings were chosen: PSNR on validation images against evaluations.

Validation slices (subject 5), each under another sampling: one coil under five masks, and eight simulated coils with
noise of a hundredth of the image's maximum and ESPIRiT maps under two Poisson discs and on spokes. The masks of one
coil are those of the test's file, the images are not. Settings differ from the default in what their names say; the
default and the published schedule are followed over all numbers of evaluations, the others over a few.

    python benchmarks/steps.py --json steps.json --figure steps.png
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import need, parser, print_table, report, siat_images

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.coil_maps import espirit_maps
from hggdp_plugin.linops import Sense
from hggdp_plugin.simulation.coils import coil_maps
from hggdp_plugin.simulation.masks import radial_trajectory

MASKS = ("random_015", "radial_020", "cart_020", "radial_010", "random_025")
POISSON = (6, 10)
SPOKES, COILS, CALIB, NOISE = 40, 8, 24, 0.01


@dataclass
class Problem:
    """A validation slice, its k-space (coils, ...), maps and coordinates, and the noise variance of a sample."""

    name: str
    reference: np.ndarray
    y: np.ndarray
    mps: np.ndarray | None = None
    coord: np.ndarray | None = None
    variance: float = 0.0


def problems(data: Path) -> list[Problem]:
    """One slice for each sampling."""
    with h5py.File(need(data / "table1.h5"), "r") as file:
        masks = {name: file[f"mask/{name}"][()].astype(np.float32) for name in MASKS}
    images = siat_images(data / "siat_val.h5")
    slices = iter(images[4 :: len(images) // (len(MASKS) + len(POISSON) + 1)])
    made = []
    for name, mask in masks.items():
        image = next(slices)
        made.append(Problem(name, image, (sp.fft(image) * mask)[None]))
    rng = np.random.default_rng(0)

    def measured(image: np.ndarray, coord: np.ndarray | None = None) -> np.ndarray:
        y = Sense(coil_maps(COILS, image.shape), coord=coord)(image)
        return y + NOISE * rng.standard_normal((*y.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]

    for sampling in (*POISSON, SPOKES):
        image = next(slices)
        y, coord = measured(image), None
        mps = espirit_maps(y, CALIB)
        if sampling == SPOKES:
            coord = radial_trajectory(SPOKES, len(image)) * len(image)
            name, y = f"{SPOKES} spokes", measured(image, coord)
        else:
            name = f"Poisson R={sampling}"
            y *= mr.poisson(image.shape, sampling, calib=(CALIB, CALIB), seed=0, dtype=np.float32)
        reference = np.where(mps.any(axis=0), image, 0)
        made.append(Problem(f"{COILS} coils, {name}", reference, y, mps, coord, 2 * NOISE**2))
    return made


def spaced(levels: int, rho: float) -> NoiseSchedule:
    """The default's range in the spacing of Karras et al.: geometric as rho grows."""
    schedule = NoiseSchedule.fast(levels)
    first, last = (schedule.sigmas[i] ** (1 / rho) for i in (0, -1))
    return replace(schedule, sigmas=tuple(float(s) for s in np.linspace(first, last, levels) ** rho))


def fast(**options: Any) -> Callable[[int], NoiseSchedule]:
    """The default with other options, by the number of levels."""
    return lambda levels: NoiseSchedule.fast(levels, **options)


FOLLOWED: dict[str, Callable[[int], NoiseSchedule]] = {
    "default": fast(),
    "published schedule": lambda evaluations: NoiseSchedule.hggdp(
        levels=min(10, evaluations // 2), steps=evaluations // min(10, evaluations // 2)
    ),
}
OTHERS: dict[str, Callable[[int], NoiseSchedule]] = {
    "eta 0": fast(eta=0.0),
    "eta 0.3": fast(eta=0.3),
    "eta 1": fast(eta=1.0),
    "momentum 0": fast(momentum=0.0),
    "momentum 0.5": fast(momentum=0.5),
    "momentum 0.7": fast(momentum=0.7),
    "momentum 0.8": fast(momentum=0.8),
    "no flips": fast(random_flips=False),
    "start at sigma 0.05": fast(sigma_max=0.05),
    "start at sigma 0.15": fast(sigma_max=0.15),
    "start at sigma 0.3": fast(sigma_max=0.3),
    "from noise, sigma 1": fast(sigma_max=1.0, from_data=False),
    "to sigma 0.003": fast(sigma_min=0.003),
    "to sigma 0.01": fast(sigma_min=0.01),
    "spacing rho 3": lambda n: spaced(n, 3),
    "spacing rho 7": lambda n: spaced(n, 7),
}
#: For several coils: other rules for the weight of the data, and conjugate gradients in place of Chebyshev's iterations
#: or, with spokes, of four of their own.
WEIGHTS: dict[str, Callable[[Problem], dict[str, Any]]] = {
    "true noise variance": lambda p: {"noise_var": p.variance},
    "noise variance 0 (exact)": lambda p: {"noise_var": 0.0},
    **{f"{n} CG iterations": lambda p, n=n: {"max_cg_iter": n} for n in (1, 2, 3, 5, 8)},
}


def psnr(image: np.ndarray, problem: Problem) -> float:
    """PSNR of the magnitude, peak 1; where there are maps, which fix the scale only roughly, at the best scale."""
    a, b = abs(image), abs(problem.reference)
    if problem.mps is not None:
        a = a * np.vdot(a, b) / np.vdot(a, a)
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def measure(todo: list[Problem], prior: Any, schedule: NoiseSchedule, options: Any = None) -> list[float]:
    """PSNR of each problem."""
    values = []
    for p in todo:
        own = options(p) if options else {}
        app = HGGDPRecon(p.y, p.mps, coord=p.coord, prior=prior, schedule=schedule, show_pbar=False, **own)
        values.append(psnr(app.run(), p))
    return values


def draw(figures: dict[str, Any], path: Path) -> None:
    """Mean PSNR against evaluations, a line for each setting that was followed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in FOLLOWED:
        means = {int(n): np.mean(rows[name]) for n, rows in figures.items() if name in rows}
        axes.plot(list(means), list(means.values()), "o-", label=name)
    axes.set(xscale="log", xlabel="evaluations of the network", ylabel="mean PSNR (dB)")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--evaluations", type=int, nargs="+", default=[5, 10, 20, 25, 40, 80, 160])
    p.add_argument("--compared", type=int, nargs="+", default=[10, 25], help="where all settings are measured")
    p.add_argument("--figure", type=Path, help="picture to write (.png)")
    args: argparse.Namespace = p.parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    todo = problems(args.data)
    several = [problem for problem in todo if problem.mps is not None]
    names = [problem.name for problem in todo]
    figures: dict[str, Any] = {}
    for n in args.evaluations:
        start = time.perf_counter()
        settings = FOLLOWED | OTHERS if n in args.compared else FOLLOWED
        figures[str(n)] = rows = {name: measure(todo, prior, make(n)) for name, make in settings.items()}
        print(f"\n{n} evaluations, PSNR (dB); {time.perf_counter() - start:.0f} s\n")
        print_table([*names, "mean"], {name: [*row, float(np.mean(row))] for name, row in rows.items()})
        if n in args.compared:
            weights = {name: measure(several, prior, fast()(n), options) for name, options in WEIGHTS.items()}
            figures[f"{n}, data consistency"] = weights
            print()
            print_table([problem.name for problem in several], {"default": rows["default"][-len(several) :]} | weights)
    report(args, {"samplings": names, "psnr": figures})
    if args.figure:
        draw({n: rows for n, rows in figures.items() if n.isdigit()}, args.figure)


if __name__ == "__main__":
    main()

"""What happens when a scan is not as assumed: wrong maps, motion, spikes, a dead coil, wrong noise, low SNR, lesions.

Slices of four kinds, eight simulated coils, noise 0.01 (see benchmarks/scans.py). Ours with its default settings, and
BART's L1-wavelet with the best of four weights for each problem, found with the reference in hand. PSNR of the
magnitude, peak 1, after the best complex scale.

Lesions are small discs and lines, brighter or darker than the tissue by 5 to 50 % of its signal. The recovered contrast
is that of the reconstruction with lesions minus the one without, same sampling and noise, projected on the lesion's
shape times the tissue. A method that kept all of it would have a slope of 1 of recovered on true contrast. The spread
is the standard deviation of the residual, in per cent of the signal.

    python benchmarks/robustness.py --json robustness.json
    python benchmarks/robustness.py --json robustness.json --tables

What the JSON file has is not measured again.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from baselines import METHODS, best
from common import Rows, in_parallel, machine, parser
from scans import Case, Problem, Scan, complex_normal, scans, simulate
from scipy.ndimage import gaussian_filter

from hggdp_plugin import HGGDPRecon, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.metrics import score
from hggdp_plugin.spikes import find_spikes

SLICES = ("brain_t2_30", "head_t1_gd_1", "heart_bssfp_1", "knee_pd_0")
SAMPLINGS = ("Poisson R=6", "random lines R=4")
NOISE, LOW_SNR = 0.01, 0.1
BART = "BART L1-wavelet"
CONTRASTS = (-0.5, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.5)
#: Lesions in a slice, and slices of other places for them.
LESIONS, ROUNDS = 8, 3
#: The same spikes, which are left out of the reconstruction.
LEFT_OUT = ", left out"
#: Kinds of lesions: radius of a disc, or half the length of a line, and half its width (pixels).
KINDS = {"disc, 3 pixels": (1.5, None), "disc, 6 pixels": (3.0, None), "line, 1.5 x 12 pixels": (6.0, 0.75)}


def wrong_maps(problem: Problem, rng: np.random.Generator, error: float = 0.1) -> Problem:
    """Maps with a smooth complex error, of which the root mean square is that part of the maps'."""
    width = [0, *[n / 8 for n in problem.mps.shape[-2:]]]
    noise = complex_normal(rng, problem.mps.shape)
    noise = gaussian_filter(noise.real, width) + 1j * gaussian_filter(noise.imag, width)
    size = np.sqrt(np.mean(abs(problem.mps) ** 2) / np.mean(abs(noise) ** 2))
    mps = (problem.mps + error * size * noise * (problem.mps != 0)).astype(np.complex64)
    return replace(problem, mps=mps)


def motion(problem: Problem, rng: np.random.Generator, shift: tuple[float, float] = (2.0, 1.0)) -> Problem:
    """The object moves by some pixels after seven tenths of the lines, which are measured in random order."""
    y, coord = problem.y, problem.coord
    if coord is None:
        ky, kx = np.meshgrid(*[np.arange(n) / n - n // 2 / n for n in y.shape[-2:]], indexing="ij")
    else:
        ky, kx = coord[..., 0] / problem.mps.shape[-2], coord[..., 1] / problem.mps.shape[-1]
    moved = rng.random(len(ky)) > 0.7
    phase = np.exp(-2j * np.pi * (ky * shift[0] + kx * shift[1]) * moved[:, None])
    return replace(problem, y=(y * phase).astype(np.complex64))


def spikes(problem: Problem, rng: np.random.Generator, number: int = 5) -> Problem:
    """A few samples of all coils have a tenth of the k-space maximum added."""
    y = problem.y.copy()
    where = np.argwhere((y != 0).any(axis=0))
    for row, column in where[rng.choice(len(where), number, replace=False)]:
        y[:, row, column] += 0.1 * abs(y).max() * np.exp(2j * np.pi * rng.random(len(y)))
    return replace(problem, y=y)


def spikes_left_out(problem: Problem, rng: np.random.Generator) -> Problem:
    """The same without the samples that are found to be spikes, as files are read."""
    spiked = spikes(problem, rng)
    return replace(spiked, y=spiked.y * ~find_spikes(spiked.y))


def dead_coil(problem: Problem, rng: np.random.Generator) -> Problem:
    """One coil has measured noise only; its map is as before."""
    y = problem.y.copy()
    y[2] = problem.noise * complex_normal(rng, y[2].shape) * (y[2] != 0)
    return replace(problem, y=y)


#: What is done to a problem, and the noise variance that ours is told, as a multiple of the true one.
PERTURBATIONS: dict[str, tuple[Callable[..., Problem] | None, float | None]] = {
    "as assumed": (None, None),
    "maps 10 % wrong": (wrong_maps, None),
    "motion by 2 pixels": (motion, None),
    "5 spikes": (spikes, None),
    f"5 spikes{LEFT_OUT}": (spikes_left_out, None),
    "dead coil": (dead_coil, None),
    "low SNR (noise 0.1)": (None, None),
    "noise variance known": (None, 1.0),
    "noise variance / 2": (None, 0.5),
    "noise variance x 2": (None, 2.0),
    "noise variance x 10": (None, 10.0),
}


def perturbed(scan: Scan, sampling: str, name: str) -> tuple[Problem, float | None]:
    """A problem that is not as assumed, and the noise variance to tell."""
    problem = simulate(Case(scan, True, sampling, LOW_SNR if name.startswith("low SNR") else NOISE))
    change, factor = PERTURBATIONS[name]
    if change:
        seed = f"{scan.name}{sampling}{name.removesuffix(LEFT_OUT)}"
        problem = change(problem, np.random.default_rng(list(seed.encode())))
    return problem, None if factor is None else factor * problem.noise**2


def lesions(image: np.ndarray, rng: np.random.Generator) -> list[tuple[str, float, np.ndarray]]:
    """Lesions in tissue and apart from each other: kind, contrast and shape, 0 to 1, on the image's grid."""
    y, x = np.indices(image.shape)
    bright = gaussian_filter(abs(image), 3)
    inside = bright > 0.25 * np.percentile(bright, 99)
    found: list[tuple[str, float, np.ndarray]] = []
    kinds, contrasts = list(KINDS), rng.permutation(CONTRASTS)
    while len(found) < LESIONS:
        center = np.argwhere(inside)[rng.integers(inside.sum())]
        dy, dx = y - center[0], x - center[1]
        inside &= np.hypot(dy, dx) > 14
        kind = kinds[int(rng.integers(len(kinds)))]
        radius, half_width = KINDS[kind]
        angle = rng.uniform(0, np.pi)
        along, across = dy * np.cos(angle) + dx * np.sin(angle), dx * np.cos(angle) - dy * np.sin(angle)
        if half_width is None:
            shape = np.clip(radius + 0.5 - np.hypot(dy, dx), 0, 1)
        else:
            shape = np.clip(radius + 0.5 - abs(along), 0, 1) * np.clip(half_width + 0.5 - abs(across), 0, 1)
        found.append((kind, float(contrasts[len(found)]), shape))
    return found


@cache
def _prior(name: str) -> Any:
    return load_prior(name)


def ours(problem: Problem, prior: str, noise_var: float | None = None) -> np.ndarray:
    """Our reconstruction."""
    options: dict[str, Any] = {"coord": problem.coord, "show_pbar": False}
    return HGGDPRecon(problem.y, problem.mps, noise_var=noise_var, prior=_prior(prior), **options).run()


def measure(scan: Scan, sampling: str, name: str, methods: dict[str, str | None]) -> dict[str, Any]:
    """Figures of each method, given by its label, with its prior if it is ours."""
    if name == "lesions":
        return {label: recovered(scan, sampling, prior) for label, prior in methods.items()}
    problem, noise_var = perturbed(scan, sampling, name)
    figures = {}
    for label, prior in methods.items():
        if prior is None:
            _, scores, _ = best(METHODS[label], problem)
        else:
            scores = score(ours(problem, prior, noise_var), problem.reference)
        figures[label] = [round(float(v), 4) for v in (scores.psnr, scores.ssim, scores.hfen)]
    return figures


def recovered(scan: Scan, sampling: str, prior: str | None) -> list[list[Any]]:
    """Kind, true and recovered contrast of each lesion."""
    problem = simulate(Case(scan, True, sampling, NOISE))
    if prior is None:
        _, _, weight = best(METHODS[BART], problem)

    def image(p: Problem) -> np.ndarray:
        return METHODS[BART](p, weight) if prior is None else ours(p, prior)

    without, found = abs(image(problem)), []
    tissue = abs(scan.image)
    for number in range(ROUNDS):
        inserted = lesions(scan.image, np.random.default_rng([number, *scan.name.encode()]))
        factor = 1 + sum(contrast * shape for _, contrast, shape in inserted)
        change = (scan.image * (factor - 1)).astype(np.complex64)
        altered = replace(scan, coil_images=scan.coil_images + scan.mps * change)
        difference = abs(image(simulate(Case(altered, True, sampling, NOISE)))) - without
        for kind, contrast, shape in inserted:
            template = shape * tissue
            found.append([kind, contrast, round(float(np.vdot(template, difference) / np.vdot(template, template)), 4)])
    return found


def regression(points: list[list[Any]]) -> list[Any]:
    """Slope through the origin of recovered on true contrast, and the residual's standard deviation (per cent)."""
    if not points:
        return ["-", "-"]
    true, found = (np.array([point[i] for point in points]) for i in (1, 2))
    slope = float(true @ found / (true @ true))
    return [f"{slope:.2f}", f"{100 * np.std(found - slope * true):.1f}"]


def print_tables(rows: Rows, found: list[Scan], samplings: list[str], labels: list[str]) -> None:
    """PSNR of each perturbation, mean over slices, and the regression of lesions."""
    for sampling in samplings:
        table = {}
        for name in PERTURBATIONS:
            keys = [f"{scan.name}, {sampling}, {name}" for scan in found]
            table[name] = [
                float(np.mean([rows.rows[key][label][0] for key in keys]))
                if all(rows.has(key, label) for key in keys)
                else "-"
                for label in labels
            ]
        rows.table(f"PSNR (dB), {sampling}, {len(found)} slices", labels, table)
        columns = [f"{label}, {what}" for label in labels for what in ("slope", "spread (%)")]
        points = {
            label: [p for scan in found for p in rows.rows.get(f"{scan.name}, {sampling}, lesions", {}).get(label, [])]
            for label in labels
        }
        selections: dict[str, Callable[[list[Any]], bool]] = {
            "all": lambda p: True,
            **{kind: lambda p, kind=kind: p[0] == kind for kind in KINDS},
            "bright": lambda p: p[1] > 0,
            "dark": lambda p: p[1] < 0,
            "5 and 10 %": lambda p: abs(p[1]) < 0.15,
        }
        lines = {
            name: [cell for label in labels for cell in regression(list(filter(chosen, points[label])))]
            for name, chosen in selections.items()
        }
        number = max(map(len, points.values()))
        rows.table(f"lesions, {sampling}, {number} lesions", columns, lines)


def todo(
    found: list[Scan], samplings: list[str], rows: Rows, methods: dict[str, str | None]
) -> Iterator[tuple[Any, ...]]:
    """What is not measured yet; what ours is told of the noise is nothing to the others."""
    for name in ["lesions", *PERTURBATIONS]:
        for scan in found:
            for sampling in samplings:
                told = name in PERTURBATIONS and PERTURBATIONS[name][1] is not None
                missing = {
                    label: prior
                    for label, prior in methods.items()
                    if not rows.has(f"{scan.name}, {sampling}, {name}", label) and not (told and prior is None)
                }
                if missing:
                    yield scan, sampling, name, missing


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--prior", nargs="+", default=[DEFAULT_PRIOR], help="priors to measure, names or files")
    p.add_argument("--slices", nargs="+", choices=SLICES, default=SLICES, help="slices (default: all)")
    p.add_argument("--samplings", nargs="+", choices=SAMPLINGS, default=SAMPLINGS, help="samplings (default: both)")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    p.add_argument("--minutes", type=float, help="start nothing more after this time")
    p.add_argument("--tables", action="store_true", help="measure nothing, print the tables of what is there")
    args = p.parse_args()
    rows = Rows(args.json, {"machine": machine(), "columns": ["PSNR (dB)", "SSIM", "HFEN"]})
    methods: dict[str, str | None] = {BART: None} if BART in METHODS else {}
    methods |= rows.priors(args.prior)
    found = [scan for scan in scans(args.data) if scan.name in args.slices]
    if not args.tables:
        for (scan, sampling, name, _), figures in in_parallel(
            measure, todo(found, args.samplings, rows, methods), args.workers, args.minutes
        ):
            for label, values in figures.items():
                rows.add(f"{scan.name}, {sampling}, {name}", label, values)
            print(scan.name, sampling, name, flush=True)
    missing = sum(1 for _ in todo(found, args.samplings, rows, methods))
    if missing:
        print(f"{missing} problems are not complete; the same command continues")
    if args.tables or not missing:
        print_tables(rows, found, args.samplings, list(methods))


if __name__ == "__main__":
    main()

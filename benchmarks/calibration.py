"""Are error maps as large as the errors? The conformal factors of a prior, and how far they hold.

Fit: slices of other patients than the prior's training had, of every domain of the training images, eight simulated
coils, noise 0.01; see benchmarks/scans.py for samplings and coils. For each kind of sampling the factor between the
error and the map of the bootstrap is written beside the prior. Test: scans of benchmarks/scans.py, none of which was in
the fit.

- ratio: root mean square of the predicted over that of the true complex error, object's pixels.
- coverage: part of the object's pixels whose error is below what the map says for 50, 80 and 95 %.
- correlation: of the local root mean squares (2 pixels) of predicted and true error.
- sparsification: leave out pixels in the order of the map, and see how the error of the rest falls; 1: as well as in
  the order of the true error, 0: not at all.

Where the reference is itself a noisy measurement, the noise of its samples that were left out is added to the
prediction; that goes for the T2 brains too.
Seeds, and draws from the posterior (``--others``): the standard deviation of several reconstructions, without a factor.

    python benchmarks/calibration.py --fit --json calibration.json        # the factors, beside the prior
    python benchmarks/calibration.py --json calibration.json              # the test
    python benchmarks/calibration.py --json calibration.json --tables     # benchmarks/paste.py puts them into the page

What the JSON file has is not measured again. With ``--minutes`` a run stops after that time; the same command
continues.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy as sp
from calibration_tables import BOOTSTRAP, LESIONS, PROBABILITIES, SAMPLINGS, keep_tables, print_tables
from common import Rows, in_parallel, machine, need, parser, siat_images
from robustness import lesions
from scans import Case, Problem, Scan, periphery_noise, scans, set_aside_names, simulate, simulated, smooth_phase

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR, prior_file
from hggdp_plugin.conformal import (
    Calibration,
    ConformalFactor,
    calibration_path,
    conformal_factor,
    describe_method,
    fingerprint,
    read_calibration,
    write_calibration,
)
from hggdp_plugin.simulation import coil_maps, head_phantom
from hggdp_plugin.simulation.masks import random_lines
from hggdp_plugin.uncertainty import QUICK, UncertaintyMap, object_mask, smooth

NOISE, COPIES = 0.01, 4
#: Factor of bootstraps that is assumed where noise of the reference is to be added to the prediction.
ASSUMED_FACTOR = 1.5
#: Other measures: number of reconstructions, and whether they are draws from the posterior.
OTHERS = {"seeds": (4, False), "posterior": (4, True)}
#: Slices of siat_val.h5 for the fit; the test has others.
FIT_T2 = (20, 40)
#: Scans with lesions.
LESION_SCANS = ("brain_t2_30", "head_t1_gd_1", "heart_bssfp_1", "knee_pd_0")


def fit_scans(data: Path, slices: int) -> list[Scan]:
    """The first slices of what is set aside of every domain."""
    found = [
        simulated("brain T2", f"fit brain_t2_{i}", siat_images(data / "siat_val.h5", slice(i, i + 1))[0], "", True)
        for i in FIT_T2[:slices]
    ]
    with h5py.File(need(data / "mr_train.h5"), "r") as file:
        for name, group in file.items():
            aside = set_aside_names(list(group))
            for number in range(slices):
                image = group[aside[number * len(aside) // 2]][()].astype(np.float32)
                title = f"fit {name}_{number}"
                found.append(simulated(name, title, image * smooth_phase(image.shape, title), ""))
    return found


def fit_cases(data: Path, slices: int, one_coil: bool) -> list[Case]:
    """Problems of the fit."""
    return with_samplings(fit_scans(data, slices), one_coil)


def test_cases(data: Path, slices: int, one_coil: bool) -> list[Case]:
    """Problems of the test: the first slices of every domain."""
    found, domains = [], {}
    for scan in scans(data):
        domains[scan.domain] = domains.get(scan.domain, 0) + 1
        if domains[scan.domain] <= slices:
            if scan.name.startswith("brain_t2"):
                scan = replace(scan, noise=periphery_noise(sp.fft(scan.image[None], axes=(-2, -1))))
            found.append(scan)
    return with_samplings(found, one_coil)


def with_samplings(found: list[Scan], one_coil: bool) -> list[Case]:
    """Every scan with every sampling; the first of them have different scans and all samplings, if a run is stopped."""
    return [
        Case(scan, not one_coil, SAMPLINGS[(number + turn) % len(SAMPLINGS)], 0.0 if scan.measured_coils else NOISE)
        for turn in range(len(SAMPLINGS))
        for number, scan in enumerate(found)
    ]


@cache
def _prior(name: str) -> Any:
    return load_prior(name)


def recon(problem: Problem, prior: str, **options: Any) -> HGGDPRecon:
    """Our reconstruction with its defaults; it is not told the noise."""
    return HGGDPRecon(problem.y, problem.mps, coord=problem.coord, prior=_prior(prior), show_pbar=False, **options)


def bootstrap(problem: Problem, prior: str, maps: Path | None = None) -> tuple[np.ndarray, np.ndarray, str, float]:
    """Image, map without a factor, kind of sampling, and seconds of the map over those of the image."""
    app = recon(problem, prior)
    start = time.perf_counter()
    image = app.run()
    middle = time.perf_counter()
    uncertainty = UncertaintyMap(app, copies=COPIES, show_pbar=False)
    std = uncertainty.run()
    if maps:
        variance = uncertainty.alg.variance * abs(uncertainty.problem.scale) ** 2
        noise_std = np.sqrt(np.mean(uncertainty.noise_var)) * abs(uncertainty.problem.scale).mean()
        np.savez_compressed(maps, variance=variance, image=image, reference=problem.reference, noise_std=noise_std)
    factor = 1.0 if uncertainty.result.factor is None else uncertainty.result.factor.factor
    cost = (time.perf_counter() - middle) / (middle - start)
    return image, std / factor, uncertainty.result.family, cost


def spread(problem: Problem, prior: str, number: int, draws: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of reconstructions with several seeds."""
    options: dict[str, Any] = {}
    if draws:
        options = {"schedule": NoiseSchedule.posterior(), "noise_var": problem.noise**2}
    images = np.stack([recon(problem, prior, seed=seed, **options).run() for seed in range(number)])
    variance = (abs(images - images.mean(0)) ** 2).sum(0) / (number - 1)
    return images[0], np.sqrt(smooth(variance))


def measure(case: Case, prior: str, method: str, maps: Path | None = None) -> Any:
    """Figures of one method on one problem."""
    if method == LESIONS:
        return lesion_figures(case, prior)
    problem = simulate(case)
    if method == BOOTSTRAP:
        image, std, family, cost = bootstrap(problem, prior, maps and maps / f"{case.key}.npz")
        extra = {"family": family, "cost": round(cost, 2)}
    else:
        image, std = spread(problem, prior, *OTHERS[method])
        extra = {}
    # An object that was measured has the noise that its other samples would have had.
    noise = case.scan.noise * (1 - measured_share(problem)) ** 0.5
    return figures(image, std, problem.reference, noise / ASSUMED_FACTOR) | extra


def measured_share(problem: Problem) -> float:
    """Part of the grid of k-space that was sampled; off the grid: points of it with a sample nearest to them."""
    if problem.coord is None:
        return float(np.mean((problem.y != 0).any(0)))
    nearest = np.unique(np.rint(problem.coord.reshape(-1, 2)), axis=0)
    inside = (abs(nearest) <= np.array(problem.reference.shape) / 2).all(axis=1)
    return float(inside.sum() / problem.reference.size)


def figures(image: np.ndarray, std: np.ndarray, reference: np.ndarray, noise: float = 0.0) -> dict[str, Any]:
    """How an error map compares with the true error, in numbers from which any factor's coverage follows."""
    inside = object_mask(abs(image))
    error, std = abs(image - reference), np.sqrt(std**2 + noise**2)
    e, s = error[inside], std[inside]
    local = [np.sqrt(smooth(v**2, 2.0))[inside] for v in (error, std)]
    order = np.argsort(s)
    deciles = [
        [rms(s[part]), rms(e[part]), *np.quantile(e[part] / s[part], PROBABILITIES)]
        for part in np.array_split(order, 10)
    ]
    return {
        "rms": [rounded(rms(s)), rounded(rms(e))],
        "quantiles": rounded(np.quantile(e / s, PROBABILITIES)),
        "deciles": [rounded(row) for row in deciles],
        "correlation": rounded(np.corrcoef(*local)[0, 1]),
        "sparsification": rounded(sparsification(e, s)),
        "mse": rounded(np.array([np.mean(std**2), np.mean(error**2)])),
    }


def sparsification(error: np.ndarray, std: np.ndarray) -> float:
    """How well the order of a map sorts the errors, from 0 to 1."""

    def area(key: np.ndarray) -> float:
        sorted_error = error[np.argsort(key)] ** 2
        return float(np.mean(np.sqrt(np.cumsum(sorted_error) / np.arange(1, len(error) + 1))))

    worst, best = rms(error), area(error)
    return (worst - area(std)) / (worst - best)


def lesion_figures(case: Case, prior: str) -> list[list[Any]]:
    """Kind, true and recovered contrast of each lesion, and the predicted and the true error there."""
    without = abs(recon(simulate(case), prior).run())
    scan, tissue = case.scan, abs(case.scan.image)
    inserted = lesions(scan.image, np.random.default_rng([0, *scan.name.encode()]))
    change = (scan.image * sum(contrast * shape for _, contrast, shape in inserted)).astype(np.complex64)
    altered = replace(scan, image=scan.image + change, coil_images=scan.coil_images + scan.mps * change)
    image, std, _, _ = bootstrap(simulate(replace(case, scan=altered)), prior)
    error, found = abs(image - altered.image), []
    for kind, contrast, shape in inserted:
        template = shape * tissue
        recovered = np.vdot(template, abs(image) - without) / np.vdot(template, template)
        there = shape > 0.5
        numbers = (contrast, float(recovered), rms(std[there]), rms(error[there]))
        found.append([kind, *rounded(np.array(numbers))])
    return found


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def rounded(values: Any) -> Any:
    """Numbers with four digits, for JSON."""
    return float(f"{values:.4g}") if np.ndim(values) == 0 else [float(f"{value:.4g}") for value in values]


def learn(rows: Rows, found: list[Case], label: str) -> dict[str, ConformalFactor]:
    """The factor of each kind of sampling."""
    measured = [(case, rows.rows[case.key][label]) for case in found if rows.has(case.key, label)]
    factors = {}
    for family in sorted({row["family"] for _, row in measured}):
        mine = [(case, row) for case, row in measured if row["family"] == family]
        factors[family] = conformal_factor(
            [evenly(row["quantiles"]) for _, row in mine],
            [row["rms"][1] / row["rms"][0] for _, row in mine],
            [case.scan.domain for case, _ in mine],
        )
    return factors


def evenly(quantiles: Any, number: int = 400) -> np.ndarray:
    """Errors over the map with the stored distribution."""
    return np.interp((np.arange(number) + 0.5) / number, [0, *PROBABILITIES], [0, *quantiles])


def todo(
    found: list[Case], rows: Rows, prior: str, label: str, methods: list[str], maps: Path | None = None
) -> Iterator[tuple[Any, ...]]:
    """What is not measured yet."""
    for method in methods:
        for case in found:
            with_lesions = case.scan.name in LESION_SCANS and not case.sampling.startswith("radial")
            if not rows.has(case.key, f"{label}, {method}") and (method != LESIONS or with_lesions):
                yield case, prior, method, maps


def cost(prior: str) -> dict[str, float]:
    """Seconds of a reconstruction (256 x 256, 8 coils, lines R=3) and of its error map, on an idle machine."""
    mps, mask = coil_maps(8, (256, 256)), random_lines(256, 3, 24)[:, None]
    y = (sp.fft(mps * head_phantom((256, 256))[0], axes=(-2, -1)) * mask).astype(np.complex64)
    seconds: dict[str, float] = {}
    for _ in range(3):
        app = HGGDPRecon(y, mps, prior=_prior(prior), show_pbar=False)
        start = time.perf_counter()
        app.run()
        times = {"reconstruction": time.perf_counter() - start}
        for copies in (4, 8):
            start = time.perf_counter()
            UncertaintyMap(app, copies=copies, show_pbar=False).run()
            times[f"map, {copies} copies"] = time.perf_counter() - start
        seconds = {name: min(seconds.get(name, np.inf), value) for name, value in times.items()}
    return seconds


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--cost", action="store_true", help="measure the seconds only")
    p.add_argument("--fit", action="store_true", help="learn the factors, and write them beside the prior")
    p.add_argument("--one-coil", action="store_true", help="one coil of uniform sensitivity, in place of eight")
    p.add_argument("--slices", type=int, default=1, help="slices of each domain (default 1)")
    p.add_argument("--sampling", nargs="+", choices=SAMPLINGS, default=SAMPLINGS, help="samplings (default: all)")
    p.add_argument("--others", nargs="*", default=[], choices=[*OTHERS, "lesions"], help="measure these too")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    p.add_argument("--maps", type=Path, metavar="FOLDER", help="keep the maps, for a look at them")
    p.add_argument("--minutes", type=float, help="start nothing more after this time")
    p.add_argument("--tables", action="store_true", help="measure nothing, print the tables of what is there")
    args = p.parse_args()
    rows = Rows(args.json, {"machine": machine(), "probabilities": list(PROBABILITIES)})
    prior = args.prior or DEFAULT_PRIOR
    if args.cost:
        rows.description["seconds"] = cost(prior)
        rows.write()
        print(rows.description["seconds"])
        return
    methods = [BOOTSTRAP, *[LESIONS if name == "lesions" else name for name in args.others if not args.fit]]
    for method in (BOOTSTRAP, LESIONS, *OTHERS):
        rows.priors([prior], f", {method}")
    label = Path(prior).stem
    make = fit_cases if args.fit else test_cases
    found = [case for case in make(args.data, args.slices, args.one_coil) if case.sampling in args.sampling]
    if not args.tables:
        tasks = list(todo(found, rows, prior, label, methods, args.maps))
        for (case, _, method, _), figures_ in in_parallel(measure, tasks, args.workers, args.minutes):
            rows.add(case.key, f"{label}, {method}", figures_)
            shown = [figures_[k] for k in ("rms", "correlation", "cost") if k in figures_] if method != LESIONS else ""
            print(case.key, method, *shown, flush=True)
    missing = sum(1 for _ in todo(found, rows, prior, label, methods))
    if missing:
        print(f"{missing} figures are missing; the same command continues")
    path = prior_file(prior)
    if args.fit:
        factors = learn(rows, found, f"{label}, {BOOTSTRAP}")
        stored = read_calibration(path)
        method = describe_method(NoiseSchedule.fast(), QUICK)
        if stored is not None and stored.method == method:
            factors = {**stored.families, **factors}
        write_calibration(path, Calibration(fingerprint(path), method, factors))
        print(f"wrote {calibration_path(path)}")
        for family, factor in factors.items():
            print(f"{family}: {factor}")
    elif (calibration := read_calibration(path)) is not None:
        others = [name for name in methods[1:] if name != LESIONS]
        print_tables(rows, found, label, others, calibration)
        if not args.one_coil:
            keep_tables(rows, found, label, others, calibration)


if __name__ == "__main__":
    main()

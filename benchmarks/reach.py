"""How far a prior carries: scans of many anatomies and contrasts, ours beside BART's, SigPy's and zero-filled.

Problems: see benchmarks/scans.py. BART's L1-wavelet, SigPy's L1-wavelet and total variation get the best of four
weights for each problem, found with the reference in hand; ours has one setting for all, and is not told the noise.
PSNR of the magnitude, peak 1, after the best complex scale.

    pip install bartorch
    python benchmarks/reach.py --prior brain-t2 mine.safetensors --json reach.json
    python benchmarks/reach.py --json reach.json --tables          # of what was measured before

What the JSON file has is not measured again, so that another prior costs only its own reconstructions. With
``--minutes`` a run stops after that time; the same command continues. ``--slices 1`` takes one slice of each domain.
``--pictures FOLDER`` draws a knee, a heart and two T1 heads for your own use: the licenses of most scans do not allow
to pass pictures on.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from baselines import METHODS, best
from common import Rows, in_parallel, machine, parser
from scans import ADDED, NOISES, SAMPLINGS, Case, Problem, cases, first_of_each, scans, simulate

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.figures import comparison
from hggdp_plugin.metrics import Scores, score

COLUMNS = ["PSNR (dB)", "SSIM", "HFEN", "weight"]
BART = "BART L1-wavelet"
PICTURES = ("knee_pd_0", "heart_bssfp_1", "head_t1_gd_1", "head_t1_kspace")


def schedule(text: str) -> NoiseSchedule:
    """A schedule from ``preset`` or ``preset:name=value,...``, such as ``fast:levels=10,sigma_max=0.3``."""
    preset, _, options = text.partition(":")
    if preset not in ("fast", "hggdp"):
        raise argparse.ArgumentTypeError(f"{text}: expected fast or hggdp, then perhaps :name=value,...")
    pairs = [option.split("=") for option in options.split(",") if option]
    values = {name: float(value) if "." in value or "e" in value else int(value) for name, value in pairs}
    return getattr(NoiseSchedule, preset)(**values)


@cache
def _prior(name: str) -> Any:
    return load_prior(name)


def ours(problem: Problem, prior: str, text: str) -> np.ndarray:
    """Our reconstruction, with defaults for all but prior and schedule."""
    options: dict[str, Any] = {"schedule": schedule(text), "coord": problem.coord, "show_pbar": False}
    return HGGDPRecon(problem.y, problem.mps, prior=_prior(prior), **options).run()


def reconstruct(case: Case, methods: list[str], priors: dict[str, str], text: str) -> dict[str, list[float]]:
    """Figures of several methods, ``priors`` among them, on one problem."""
    problem = simulate(case)
    figures = {}
    for method in methods:
        weight = 0.0
        if method in priors:
            scores: Scores = score(ours(problem, priors[method], text), problem.reference)
        else:
            _, scores, weight = best(METHODS[method], problem)
        figures[method] = [round(float(v), 4) for v in (scores.psnr, scores.ssim, scores.hfen, weight)]
    return figures


def todo(found: list[Case], rows: Rows, priors: dict[str, str], text: str) -> Iterator[tuple[Any, ...]]:
    """What is not measured yet, the most telling first.

    SigPy's methods, the slow ones, come last, and only for lines and Poisson R=6 at the middle noise.
    """
    main = [case for case in found if _is_middle(case) and case.sampling in ("random lines R=4", "Poisson R=6")]
    others = [case for case in found if case not in main]
    several, one = ([case for case in main if case.several == value] for value in (True, False))
    quick = [method for method in [*METHODS, *priors] if not method.startswith("SigPy")]
    slow = [method for method in METHODS if method not in quick]
    for chosen, methods in (([*several, *one, *others], quick), ([*several, *one], slow)):
        for case in chosen:
            missing = [method for method in methods if not rows.has(case.key, method)]
            if missing:
                yield case, missing, priors, text


def _is_middle(case: Case) -> bool:
    """Whether a case has the middle level of noise; with one coil all have."""
    return not case.several or case.noise == (0.0 if case.scan.measured_coils else 0.01)


def mean(rows: Rows, found: list[Case], method: str, column: int = 0) -> Any:
    """Mean of a figure over problems; a dash if any of them lacks it."""
    if not found or not all(rows.has(case.key, method) for case in found):
        return "-"
    return float(np.mean([rows.rows[case.key][method][column] for case in found]))


def gain(rows: Rows, found: list[Case], method: str, other: str = BART) -> Any:
    """Difference of two methods' mean PSNR (dB)."""
    ours, theirs = mean(rows, found, method), mean(rows, found, other)
    return "-" if "-" in (ours, theirs) else f"{ours - theirs:+.2f}"


def print_tables(rows: Rows, found: list[Case], priors: list[str]) -> None:
    """Tables by domain."""
    domains = list(dict.fromkeys(case.scan.domain for case in found))

    def of(domain: str, several: bool, sampling: str, level: int | None = None) -> list[Case]:
        def chosen(case: Case) -> bool:
            levels, middle = (ADDED, 0.0) if case.scan.measured_coils else (NOISES, 0.01)
            noise = levels[level] if level is not None else middle
            if not several:
                noise = case.noise
            return (case.scan.domain, case.several, case.sampling, case.noise) == (domain, several, sampling, noise)

        return [case for case in found if chosen(case)]

    for prior in priors:
        for several, name in ((True, "several coils"), (False, "one coil")):
            table = {d: [gain(rows, of(d, several, s), prior) for s in SAMPLINGS] for d in domains}
            rows.table(f"{prior}: dB above BART, {name}", SAMPLINGS, table)
        table = {d: [gain(rows, of(d, True, "Poisson R=6", i), prior) for i in range(3)] for d in domains}
        rows.table(f"{prior}: dB above BART, Poisson R=6", ["low noise", "middle noise", "high noise"], table)
    methods = [*METHODS, *priors]
    for sampling in ("random lines R=4", "Poisson R=6"):
        for column, name in enumerate(COLUMNS[:3]):
            figures = {d: [mean(rows, of(d, True, sampling), m, column) for m in methods] for d in domains}
            if name == "SSIM":
                figures = {d: [v if v == "-" else f"{v:.3f}" for v in values] for d, values in figures.items()}
            rows.table(f"{name}, {sampling}", methods, figures)


def draw(found: list[Case], priors: dict[str, str], text: str, folder: Path) -> None:
    """Pictures of some scans at Poisson R=6 with several coils, with their errors."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in found:
        middle = 0.0 if case.scan.measured_coils else 0.01
        if case.scan.name in PICTURES and (case.several, case.sampling, case.noise) == (True, "Poisson R=6", middle):
            problem = simulate(case)
            images = {name: best(METHODS[name], problem)[0] for name in ("zero-filled", BART) if name in METHODS}
            images |= {name: ours(problem, prior, text) for name, prior in priors.items()}
            figure = comparison(images, problem.reference)
            figure.suptitle(f"{case.scan.name}; license: {case.scan.license}", fontsize=8)
            figure.savefig(folder / f"{case.scan.name}.png", dpi=100)


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--prior", nargs="+", default=[DEFAULT_PRIOR], help="priors to measure, names or files")
    p.add_argument("--schedule", default="fast", help="noise schedule: fast or hggdp, then perhaps :name=value,...")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    p.add_argument("--slices", type=int, help="measure at most so many slices of each domain (default: all)")
    p.add_argument("--minutes", type=float, help="start nothing more after this time")
    p.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="draw a knee, a heart and two heads, measure nothing"
    )
    p.add_argument("--tables", action="store_true", help="measure nothing, print the tables of what is there")
    args = p.parse_args()
    schedule(args.schedule)
    label = "" if args.schedule == "fast" else f", {args.schedule}"
    rows = Rows(args.json, {"machine": machine(), "columns": COLUMNS})
    priors = rows.priors(args.prior, label)
    found = list(cases(first_of_each(scans(args.data), args.slices)))
    if args.pictures:
        return draw(found, priors, args.schedule, args.pictures)
    if not args.tables:
        for (case, *_), figures in in_parallel(
            reconstruct, todo(found, rows, priors, args.schedule), args.workers, args.minutes
        ):
            for method, values in figures.items():
                rows.add(case.key, method, values)
            print(case.key, ", ".join(f"{method} {values[0]:.2f}" for method, values in figures.items()), flush=True)
    missing = len({case.key for case, *_ in todo(found, rows, priors, args.schedule)})
    if missing:
        print(f"{missing} of {len(found)} problems are not complete; the same command continues")
    if args.tables or not missing:
        print_tables(rows, found, list(priors))


if __name__ == "__main__":
    main()

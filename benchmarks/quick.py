"""dB against seconds: ours with few steps, BART's and SigPy's L1-wavelet with few iterations.

dB: slices of each training domain that were set aside, and of subject 5, undersampled by lines R=4 and a Poisson disc
R=6, with eight simulated coils, and by lines with one coil; noise 0.01. The mean PSNR of the magnitude; the wavelet
methods get the best of their weights for each problem, ours one setting. Seconds: a phantom of 256 x 256 with 8 coils
and lines R=4, maps given, on an idle machine.

    python benchmarks/quick.py --json quick.json --minutes 10     # continues where it stopped
    python benchmarks/quick.py --json quick.json --time
    python benchmarks/quick.py --json quick.json --figure quick.png
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from baselines import bart_wavelet, best, sigpy_wavelet
from common import Rows, has_bart, in_parallel, machine, parser, print_table
from scans import Case, Problem, set_aside, simulate

from hggdp_plugin import HGGDPRecon, NoiseSchedule, bundled_priors, load_prior
from hggdp_plugin.allocator import keep_freed_memory
from hggdp_plugin.metrics import score

LEVELS, ITERATIONS = (6, 8, 10, 12, 25), (20, 50, 100)
SAMPLINGS = ((True, "random lines R=4"), (True, "Poisson R=6"), (False, "random lines R=4"))
WAVELETS: dict[str, Callable[..., np.ndarray]] = {"SigPy L1-wavelet": sigpy_wavelet}
if has_bart():
    WAVELETS["BART L1-wavelet"] = bart_wavelet


def schedules() -> dict[str, NoiseSchedule]:
    """The preset with several numbers of levels, beside the default and the default's with fewer levels."""
    found = {f"quick, {n} levels": NoiseSchedule.quick(n) for n in LEVELS if n < 25}
    return {**found, "fast, 10 levels": NoiseSchedule.fast(10), "fast, 25 levels": NoiseSchedule.fast()}


def cases(data: Path, most: int) -> list[Case]:
    return [Case(scan, several, sampling, 0.01) for scan in set_aside(data, most) for several, sampling in SAMPLINGS]


@cache
def _prior(name: str) -> Any:
    return load_prior(name)


def measure(case: Case, label: str, prior: str | None) -> float:
    """PSNR (dB) of one method on one problem; ``prior``: ours with the schedule of this label."""
    problem = simulate(case)
    if prior is None:
        method, iterations = label.rsplit(", ", 1)
        return best(partial(WAVELETS[method], iterations=int(iterations)), problem)[1].psnr
    schedule = schedules()[label.split(": ")[1]]
    image = HGGDPRecon(problem.y, problem.mps, prior=_prior(prior), schedule=schedule, show_pbar=False).run()
    return score(image, problem.reference).psnr


def methods(priors: dict[str, str]) -> dict[str, str | None]:
    """Labels, and the priors of ours."""
    ours = {f"{name}: {schedule}": path for name, path in priors.items() for schedule in schedules()}
    return {**ours, **{f"{wavelet}, {n}": None for wavelet in WAVELETS for n in ITERATIONS}}


def todo(found: list[Case], rows: Rows, labels: dict[str, str | None]) -> Iterator[tuple[Case, str, str | None]]:
    for label, prior in labels.items():
        for case in found:
            if (prior or case.several) and not rows.has(case.key, label):
                yield case, label, prior


def seconds(labels: dict[str, str | None], repeats: int) -> dict[str, float]:
    """Medians for one slice."""
    from scaling import phantom

    keep_freed_memory()
    ksp, mps = phantom(8, 256)
    times = {}
    for label, prior in labels.items():
        if prior is not None:
            options: dict[str, Any] = {"prior": _prior(prior), "schedule": schedules()[label.split(": ")[1]]}
            run = partial(lambda options: HGGDPRecon(ksp, mps, show_pbar=False, **options).run(), options)
        else:
            run = partial(_wavelet, label, ksp, mps)
        measured = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            run()
            measured.append(time.perf_counter() - start)
        times[label] = statistics.median(measured[1:])
    return times


def _wavelet(label: str, ksp: np.ndarray, mps: np.ndarray) -> np.ndarray:
    method, iterations = label.rsplit(", ", 1)
    return WAVELETS[method](Problem(ksp, mps, None, 0.01, mps[0]), 0.01, iterations=int(iterations))


def means(rows: Rows, found: list[Case], label: str) -> list[Any]:
    """Mean PSNR with several coils by sampling, and with one."""
    cells: list[Any] = []
    for several, sampling in SAMPLINGS:
        of = [case.key for case in found if (case.several, case.sampling) == (several, sampling)]
        there = all(rows.has(key, label) for key in of)
        cells.append(float(np.mean([rows.rows[key][label] for key in of])) if there else "-")
    return cells


def draw(table: dict[str, list[Any]], path: Path) -> None:
    """Mean PSNR with several coils against seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for label, (lines_r4, poisson, _, elapsed) in table.items():
        if "-" not in (lines_r4, poisson, elapsed) and "fast, 10" not in label:
            name, _, setting = label.partition(": ") if ": " in label else label.rpartition(", ")
            count = setting.split(", ")[-1].split()[0]
            lines.setdefault(name, []).append((elapsed, (lines_r4 + poisson) / 2, count))
    for name, points in lines.items():
        x, y, counts = zip(*sorted(points), strict=True)
        axes.plot(
            x, y, "o-", label=f"HGGDPRecon, {name}" if ": " in next(iter(table)) and name not in WAVELETS else name
        )
        for one in zip(x, y, counts, strict=True):
            axes.annotate(one[2], one[:2], xytext=(3, 4), textcoords="offset points", fontsize=7)
    axes.set(
        xscale="log", xlabel="seconds a slice (8 coils, 256 x 256; numbers: levels or iterations)", ylabel="PSNR (dB)"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--prior", nargs="+", default=bundled_priors(), help="names or files (default: the bundled ones)")
    p.add_argument("--most", type=int, default=2, help="slices of each domain (default 2)")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    p.add_argument("--minutes", type=float, help="start nothing more after this time")
    p.add_argument("--time", type=int, nargs="?", const=5, metavar="REPEATS", help="measure the seconds only")
    p.add_argument("--figure", type=Path, help="picture to write (.png), measure nothing")
    args: argparse.Namespace = p.parse_args()
    rows = Rows(args.json, {})
    priors = rows.priors(args.prior)
    labels, found = methods(priors), cases(args.data, args.most)
    if args.time:
        rows.description |= {"machine": machine(), "seconds": seconds(labels, args.time)}
    elif not args.figure:
        for (case, label, _), psnr in in_parallel(measure, todo(found, rows, labels), args.workers, args.minutes):
            rows.add(case.key, label, round(psnr, 3))
    rows.write()
    elapsed = rows.description.get("seconds", {})
    table = {label: [*means(rows, found, label), elapsed.get(label, "-")] for label in labels}
    print_table(["8 coils, lines R=4", "8 coils, Poisson R=6", "one coil, lines R=4", "seconds"], table)
    if args.figure:
        draw(table, args.figure)


if __name__ == "__main__":
    main()

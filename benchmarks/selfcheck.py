"""Does the self-check tell a prior that fits from one that does not, and at what cost?

Every scan of benchmarks/scans.py with its four samplings, several coils and one, at the middle level of noise. For
each, the check with the prior to measure, and with what should not pass:

- priors trained on something absurd: stripes, and speckle (``--absurd`` names their files; ``--train`` makes them);
- the prior for images 16 times brighter or darker; 4 times, which does much less harm;
- the noise variance 16 times too large or too small;
- maps with a smooth error of 10 % (several coils);
- motion by 2 pixels after seven tenths of the lines.

The area under the ROC curve is that of the check's one number, ``misfit``; the noise variance is known, as it is of
prewhitened data. Time: one check over one reconstruction of the first scan, both by one thread.

    python benchmarks/selfcheck.py --train absurd                              # some minutes
    python benchmarks/selfcheck.py --absurd absurd/*.safetensors --json selfcheck.json
    python benchmarks/selfcheck.py --absurd absurd/*.safetensors --json selfcheck.json --tables

What the JSON file has is not measured again. The limits of what counts as a fit were chosen on ``--set-aside``.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from common import Rows, in_parallel, machine, parser
from robustness import motion, wrong_maps
from scans import Case, Problem, cases, first_of_each, scans, set_aside, simulate
from scipy.ndimage import gaussian_filter

from hggdp_plugin import HGGDPRecon, ScorePrior, load_prior
from hggdp_plugin._typing import Array, RandomGenerator
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.selfcheck import choose_prior, self_check

FIGURES = ["misfit", "prediction error", "residual"]
MILD = ("4 times brighter", "4 times darker")


class OtherScale(ScorePrior):
    """A prior for images of another maximum than 1."""

    def __init__(self, prior: ScorePrior, maximum: float) -> None:
        super().__init__(prior.model, autocast=prior.autocast)
        self.maximum = maximum

    def denoise(self, x: Array, sigma: float, rng: RandomGenerator | None = None) -> Array:
        return (self.maximum * super().denoise(x / self.maximum, sigma / self.maximum, rng)).astype(np.complex64)


@cache
def _prior(name: str, maximum: float = 1.0) -> ScorePrior:
    prior = load_prior(name)
    return prior if maximum == 1 else OtherScale(prior, maximum)


def variants(problem: Problem) -> Iterator[tuple[str, Problem, float]]:
    """Other data than the prior is for: a name, the problem, and the noise variance over the true one."""
    yield "noise x 16", problem, 16.0
    yield "noise / 16", problem, 1 / 16
    rng = np.random.default_rng(1)
    if len(problem.y) > 1:
        yield "maps 10 % wrong", wrong_maps(problem, rng), 1.0
    yield "motion by 2 pixels", motion(problem, rng), 1.0


def check(case: Case, prior: str, absurd: list[str], timed: bool) -> dict[str, list[float]]:
    """The check's figures of every variant, and perhaps the seconds of a check and of a reconstruction."""
    problem = simulate(case)
    # Simulated coils all see the noise of an image that was measured: it is part of the image.
    noise_var = (case.noise if case.several and not case.scan.measured_coils else problem.noise) ** 2
    priors = {"fits": _prior(prior), **{Path(name).stem: _prior(name) for name in absurd}}
    for factor in (16, 4):
        priors[f"{factor} times brighter"] = _prior(prior, float(factor))
        priors[f"{factor} times darker"] = _prior(prior, 1 / factor)
    _, results = choose_prior(problem.y, problem.mps, noise_var, coord=problem.coord, priors=priors)
    for name, changed, factor in variants(problem):
        data = changed.y, changed.mps, factor * noise_var
        results[name] = self_check(*data, coord=changed.coord, prior=priors["fits"])
    found = {
        name: [round(float(v), 4) for v in (result.misfit, result.prediction_error, result.residual)]
        for name, result in results.items()
    }
    if not timed:
        return found
    options: dict[str, Any] = {"coord": problem.coord, "prior": priors["fits"]}
    start = time.process_time()
    self_check(problem.y, problem.mps, noise_var, **options)
    middle = time.process_time()
    HGGDPRecon(problem.y, problem.mps, noise_var=noise_var, show_pbar=False, **options).run()
    found["seconds"] = [round(middle - start, 3), round(time.process_time() - middle, 3)]
    return found


def train(folder: Path) -> None:
    """Train two small priors on stripes and on speckle."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    stripes, speckle = [], []
    for _ in range(40):
        rows, columns = (np.repeat(rng.random(128), rng.integers(1, 9, 128))[:128] > 0.5 for _ in range(2))
        stripes.append((rows[:, None] ^ columns) * rng.uniform(0.5, 1))
        noise = gaussian_filter(rng.standard_normal((2, 128, 128)), (0, 1, 1))
        speckle.append(noise[0] + 1j * noise[1])
    for name, images in {"stripes": stripes, "speckle": speckle}.items():
        np.save(folder / f"{name}.npy", np.array(images).astype(np.complex64))
        network = "--widths 24 48 64 --blocks 1 --batch-size 8 --reconstructions 0 --steps 1000 --val-every 1000000"
        command = [sys.executable, "-m", "hggdp_plugin.apps", "train", f"{name}.npy", "-o", f"{name}.safetensors"]
        subprocess.run([*command, *network.split()], cwd=folder, check=True)


def area(fitting: list[float], misfitting: list[float]) -> float:
    """Area under the ROC curve: the probability that a misfitting case has the larger number."""
    a, b = np.array(fitting)[:, None], np.array(misfitting)
    return float((b > a).mean() + 0.5 * (b == a).mean())


def print_tables(rows: Rows, found: list[Case], prior: str) -> None:
    """Areas under the ROC curve by variant, and the time."""
    for several in (True, False):
        figures = [
            rows.rows[case.key][prior] for case in found if case.several == several and rows.has(case.key, prior)
        ]
        if not figures:
            continue
        names = [name for name in figures[0] if name not in ("fits", "seconds")]
        fitting = [one["fits"][0] for one in figures]
        table: dict[str, list[Any]] = {}
        for name in ["fits", *names]:
            values = np.array([one[name] for one in figures], float)
            low, middle, high = np.quantile(values[:, 0], [0.05, 0.5, 0.95])
            better = np.mean([one["fits"][1] < one[name][1] for one in figures])
            flagged = f"{100 * np.mean(values[:, 0] > 0):.0f} %"
            cells = (
                ["-", "-"]
                if name == "fits"
                else [f"{area(fitting, values[:, 0].tolist()):.3f}", f"{100 * better:.0f} %"]
            )
            table[name] = [*cells, flagged, f"{low:.2f} / {middle:.2f} / {high:.2f}"]
        wrong = [one[name][0] for one in figures for name in names if name not in MILD]
        table["all but 4 times"] = [
            f"{area(fitting, wrong):.3f}",
            "-",
            f"{100 * np.mean(np.array(wrong) > 0):.0f} %",
            "-",
        ]
        columns = ["AUC", "predicts worse than the fitting one", "misfit > 0", "misfit, 5 / 50 / 95 % quantile"]
        rows.table(f"{prior}, {'several coils' if several else 'one coil'}, {len(figures)} problems", columns, table)
        times = np.array([one["seconds"] for one in figures if "seconds" in one])
        if len(times):
            print(f"\ntime of a check: {100 * times[:, 0].sum() / times[:, 1].sum():.0f} % of a reconstruction")


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--absurd", nargs="+", default=[], help="priors that fit no scan")
    p.add_argument("--train", type=Path, metavar="FOLDER", help="train such priors, measure nothing")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    p.add_argument("--slices", type=int, help="measure at most so many slices of each domain (default: all)")
    p.add_argument("--set-aside", action="store_true", help="measure on the scans to choose settings on instead")
    p.add_argument("--minutes", type=float, help="start nothing more after this time")
    p.add_argument("--tables", action="store_true", help="measure nothing, print the tables of what is there")
    args = p.parse_args()
    if args.train:
        return train(args.train)
    rows = Rows(args.json, {"machine": machine(), "columns": FIGURES})
    ((label, prior),) = rows.priors([args.prior or DEFAULT_PRIOR]).items()
    chosen = first_of_each(set_aside(args.data) if args.set_aside else scans(args.data), args.slices)
    found = [case for case in cases(chosen) if not case.several or _middle(case)]
    found.sort(key=lambda case: (case.sampling != "Poisson R=6", case.sampling))  # all domains soon
    if not args.tables:
        first = found[0].scan
        todo = ((case, prior, args.absurd, case.scan is first) for case in found if not rows.has(case.key, label))
        for (case, *_), figures in in_parallel(check, todo, args.workers, args.minutes):
            rows.add(case.key, label, figures)
            print(case.key, figures["fits"], flush=True)
    missing = sum(not rows.has(case.key, label) for case in found)
    if missing:
        print(f"{missing} of {len(found)} problems are missing; the same command continues")
    if args.tables or not missing:
        print_tables(rows, found, label)


def _middle(case: Case) -> bool:
    return case.noise == (0.0 if case.scan.measured_coils else 0.01)


if __name__ == "__main__":
    main()

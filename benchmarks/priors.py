"""Priors on scans that were set aside: PSNR (dB) of reconstructions by domain, to choose weights or a schedule.

The slices of the training domains that no prior was trained on, and subject 5 (``scans.set_aside``); random lines R=4
and Poisson R=6 with eight simulated coils, and random lines R=4 with one coil; noise of 1 %.

    python benchmarks/priors.py --json priors.json
    python benchmarks/priors.py --prior brain-t2 mine.safetensors --schedule fast:levels=10

The first column is PSNR, the others are differences to it. What the JSON file has is not measured again.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import Rows, in_parallel, machine, parser
from reach import schedule
from scans import Case, set_aside, simulate

from hggdp_plugin import HGGDPRecon, bundled_priors, load_prior
from hggdp_plugin.metrics import score

SAMPLINGS = ((True, "random lines R=4"), (True, "Poisson R=6"), (False, "random lines R=4"))


def reconstruct(case: Case, priors: dict[str, str], text: str) -> dict[str, list[float]]:
    """PSNR of one problem with each prior."""
    problem, figures = simulate(case), {}
    for label, name in priors.items():
        options: dict[str, Any] = {"schedule": schedule(text), "coord": problem.coord, "show_pbar": False}
        image = HGGDPRecon(problem.y, problem.mps, prior=load_prior(name), **options).run()
        figures[label] = [round(float(score(image, problem.reference).psnr), 3)]
    return figures


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--prior", nargs="+", default=bundled_priors(), help="names or files (default: the bundled ones)")
    p.add_argument("--schedule", default="fast", help="noise schedule: fast or hggdp, then perhaps :name=value,...")
    p.add_argument("--slices", type=int, default=2, help="slices of a domain (default 2)")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    args = p.parse_args()
    rows = Rows(args.json, {"machine": machine(), "columns": ["PSNR (dB)"]})
    priors = rows.priors(args.prior, "" if args.schedule == "fast" else f", {args.schedule}")
    found = [Case(s, coils, sampling, 0.01) for s in set_aside(args.data, args.slices) for coils, sampling in SAMPLINGS]

    def todo() -> Iterator[tuple[Any, ...]]:
        for case in found:
            if missing := {label: name for label, name in priors.items() if not rows.has(case.key, label)}:
                yield case, missing, args.schedule

    for (case, *_), figures in in_parallel(reconstruct, todo(), args.workers):
        for label, values in figures.items():
            rows.add(case.key, label, values)

    def row(cases: list[Case]) -> list[Any]:
        first, *others = (float(np.mean([rows.rows[case.key][label][0] for case in cases])) for label in priors)
        return [first, *(f"{psnr - first:+.2f}" for psnr in others)]

    domains = dict.fromkeys(case.scan.domain for case in found)
    rows.table("domain", list(priors), {d: row([case for case in found if case.scan.domain == d]) for d in domains})
    samplings = {f"{'8 coils' if coils else 'one coil'}, {name}": (coils, name) for coils, name in SAMPLINGS}
    of = {name: [c for c in found if (c.several, c.sampling) == key] for name, key in samplings.items()}
    rows.table("sampling", list(priors), {name: row(cases) for name, cases in of.items()})


if __name__ == "__main__":
    main()

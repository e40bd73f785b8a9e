"""What ``hggdp adapt`` gains: a prior adapted to undersampled slices of a domain, measured on slices of other subjects.

Eight simulated coils, noise 0.01 (see benchmarks/scans.py). It learns from 16 slices of the training data of each
domain, of which it gets the undersampled k-space only, and which the bundled prior ``brain-t2`` never saw; with a
prior that saw them the figures mean little. PSNR of the magnitude, peak 1, after the best complex scale, on the slices
of the same domain in reach.h5; the held-out error is that of the command, relative to wavelets.

    python benchmarks/adaptation.py --json adaptation.json
    python benchmarks/adaptation.py --json adaptation.json --tables

What the JSON file has is not measured again. ``--set-aside`` is for choosing steps and learning rate.
"""

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from common import Rows, in_parallel, machine, need, parser
from scans import Case, Scan, scans, set_aside, set_aside_names, simulate, simulated, smooth_phase, spread

from hggdp_plugin import HGGDPRecon, ScorePrior, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.metrics import score
from hggdp_plugin.selfcheck import SliceData, mean_prediction_error
from hggdp_plugin.training.adaptation import adapt, judge, without_judged

#: Domains in mr_train.h5, and their scans in reach.h5.
DOMAINS = {"knee_pd": "knee_pd_", "heart_bssfp": "heart_bssfp_"}
SAMPLINGS = ("random lines R=4", "Poisson R=6")
LEARNED, JUDGED, NOISE = 16, 4, 0.01


def training_scans(data: Path, domain: str) -> list[Scan]:
    """Slices of a training domain, without those that were set aside."""
    found = []
    with h5py.File(need(data / "mr_train.h5"), "r") as file:
        group = file[domain]
        for key in spread(sorted(set(group) - set(set_aside_names(list(group)))), LEARNED):
            image = (group[key][()] * group.attrs["step"]).astype(np.float32)
            image = image * smooth_phase(image.shape, f"{domain}_{key}")
            found.append(simulated(domain, f"{domain}_{key}", image, group.attrs["licence"]))
    return found


def measure(
    learned: list[Scan], tested: list[Scan], sampling: str, name: str, options: dict[str, Any]
) -> dict[str, Any]:
    """PSNR of each tested slice and the held-out error, before and after, and the minutes of the adaptation."""
    start = time.monotonic()
    problems = [simulate(Case(scan, True, sampling, NOISE)) for scan in learned]
    slices = [SliceData(p.y, p.mps, p.noise**2, None, p.coord) for p in problems]
    before = load_prior(name)
    # The command takes half of the noise variance for its reconstructions, as hggdp recon does.
    parts = [without_judged(one, 0)._replace(noise_var=0.5 * one.noise_var) for one in slices]
    priors = {"before": before, "after": ScorePrior(adapt(before.model, parts, **options))}
    minutes = (time.monotonic() - start) / 60
    checks = judge(priors, slices[:: LEARNED // JUDGED], 0)
    figures: dict[str, Any] = {"minutes": round(minutes, 2)}
    for label, prior in priors.items():
        psnr = []
        for scan in tested:
            p = simulate(Case(scan, True, sampling, NOISE))
            image = HGGDPRecon(p.y, p.mps, coord=p.coord, prior=prior, show_pbar=False).run()
            psnr.append(round(score(image, p.reference).psnr, 4))
        figures[label] = [psnr, round(mean_prediction_error(checks[label]), 4)]
    return figures


def print_tables(rows: Rows, label: str) -> None:
    """Gain and held-out error by domain and sampling."""
    table = {}
    for key, methods in rows.rows.items():
        if label in methods:
            figures = methods[label]
            (before, error_before), (after, error_after) = figures["before"], figures["after"]
            gain = np.mean(after) - np.mean(before)
            table[key] = [float(np.mean(before)), float(np.mean(after)), f"{gain:+.2f}", error_before, error_after]
    columns = ["PSNR before (dB)", "after", "gain (dB)", "held-out error before", "error after"]
    rows.table(f"hggdp adapt, {label}", columns, table)


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="domains to adapt to")
    p.add_argument("--samplings", nargs="+", choices=SAMPLINGS, default=SAMPLINGS, help="samplings to adapt to")
    p.add_argument("--set-aside", action="store_true", help="test on the slices to choose settings on instead")
    p.add_argument("--steps", type=int, help="training steps (default: the command's)")
    p.add_argument("--lr", type=float, help="learning rate (default: the command's)")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    p.add_argument("--minutes", type=float, help="start nothing more after this time")
    p.add_argument("--tables", action="store_true", help="measure nothing, print the tables of what is there")
    args = p.parse_args()
    rows = Rows(args.json, {"machine": machine(), "columns": ["PSNR (dB) of each slice", "held-out error"]})
    ((label, prior),) = rows.priors([args.prior or DEFAULT_PRIOR]).items()
    given = {"steps": args.steps, "learning_rate": args.lr}
    options = {name: value for name, value in given.items() if value is not None}
    label += "".join(f", {name} {value:g}" for name, value in options.items())
    if not args.tables:
        tested = set_aside(args.data, 3) if args.set_aside else scans(args.data)
        todo = []
        for domain in args.domains:
            chosen = [scan for scan in tested if scan.name.startswith(DOMAINS[domain])]
            for sampling in args.samplings:
                if not rows.has(f"{domain}, {sampling}", label):
                    todo.append((training_scans(args.data, domain), chosen, sampling, prior, options))
        for (learned, _, sampling, *_), figures in in_parallel(measure, todo, args.workers, args.minutes):
            rows.add(f"{learned[0].domain}, {sampling}", label, figures)
            print(learned[0].domain, sampling, figures, flush=True)
    print_tables(rows, label)


if __name__ == "__main__":
    main()

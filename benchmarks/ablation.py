"""What each kind of training images gives a prior for any scan: short trainings with one of them left out.

Every row continues the same prior, the first one, for the same number of steps with the recipe of ``mri-any``
(docs/training.md) but for what it names; the last two train new networks. PSNR (dB) of reconstructions of slices set
aside (as ``priors.py``) by group of domains: the first row, and differences to it. Results that the JSON file has are
not measured again, and a training that was stopped continues.

    python benchmarks/ablation.py --runs runs --json ablation.json
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from common import Rows, in_parallel, machine, need, parser
from priors import SAMPLINGS, reconstruct
from scans import Case, set_aside, set_aside_names

from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.training.config import Augmentation, TrainConfig
from hggdp_plugin.training.run import train

HEARTS = ("heart_bssfp", "heart_cine")
T1 = ("brain_t1_stripped", "head_t1", "head_t1_gd")
#: Domains by column; none: all of them.
GROUPS: dict[str, tuple[str, ...]] = {
    "brain T2": ("brain T2 (validation)",),
    "knee": ("knee_pd",),
    "hearts": HEARTS,
    "T1": T1,
    "all domains": (),
}
RECIPE: dict[str, Any] = {
    "synthetic": 400,
    "domain_weights": {"images": 3.0, "dead_leaves": 0.5, "regions": 0.5},
    "augmentation": Augmentation.broad(),
    "rollout_levels": (8, 12, 25),
    "learning_rate": 4e-4,
    "warmup": 50,
    "validate_every": 1_000_000,
    "devices": 1,
}
REMAPS = ("monotone_remap", "nonmonotone_remap")
NEW: dict[str, Any] = {"init": None, "rollouts": 0, "learning_rate": 3e-3}


def variants(steps: int, new_steps: int) -> dict[str, dict[str, Any]]:
    """What differs from the recipe in each training."""

    def without(*domains: str) -> dict[str, Any]:
        return {"domain_weights": {**RECIPE["domain_weights"], **dict.fromkeys(domains, 0.0)}}

    found: dict[str, dict[str, Any]] = {
        "all": {},
        "without knees": without("knee_pd"),
        "without hearts": without(*HEARTS),
        "without T1": without(*T1),
        "no contrast remaps": {"augmentation": Augmentation.broad().without(REMAPS)},
        "standard augmentation": {"augmentation": Augmentation()},
        "no textures": {"synthetic": 0, "domain_weights": {"images": 3.0}},
    }
    found = {name: {"steps": steps, **changes} for name, changes in found.items()}
    new = {"steps": new_steps, **NEW}
    return {**found, "new network": new, "new, small, single scale": {**new, "widths": (96,), "blocks": 4}}


def training_data(data: Path, folder: Path) -> list[Path]:
    """The training images without the slices set aside."""
    others = folder / "others.h5"
    if not others.exists():
        with h5py.File(need(data / "mr_train.h5")) as file, h5py.File(others, "w") as rest:
            for name, group in file.items():
                target = rest.create_group(name)
                target.attrs.update(group.attrs)
                for key in sorted(set(group) - set(set_aside_names(list(group)))):
                    file.copy(group[key], target)
    return [need(data / "siat_train.h5"), others]


def measure(name: str, prior: str, found: list[Case], rows: Rows) -> None:
    """PSNR of the problems that a row lacks."""
    jobs = [(case, {name: prior}, "fast") for case in found if not rows.has(case.key, name)]
    for (case, *_), figures in in_parallel(reconstruct, jobs, 2):
        rows.add(case.key, name, figures[name])


def means(name: str, found: list[Case], rows: Rows) -> list[float]:
    """Mean PSNR by group of domains, and of all domains."""
    domains = dict.fromkeys(case.scan.domain for case in found)
    of = {d: float(np.mean([rows.rows[c.key][name][0] for c in found if c.scan.domain == d])) for d in domains}
    return [float(np.mean([of[d] for d in group or domains])) for group in GROUPS.values()]


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--runs", type=Path, required=True, help="folder for the trainings and their priors")
    p.add_argument("--steps", type=int, default=400, help="steps of each (default 400)")
    p.add_argument("--new-steps", type=int, default=1500, help="steps of each new network (default 1500)")
    p.add_argument("--only", nargs="+", default=[], help="trainings (default: all)")
    p.add_argument("--slices", type=int, default=1, help="slices of a domain (default 1)")
    args = p.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    start = args.prior or DEFAULT_PRIOR
    rows = Rows(args.json, {"machine": machine(), "steps": args.steps, "new_steps": args.new_steps})
    found = [Case(s, coils, sampling, 0.01) for s in set_aside(args.data, args.slices) for coils, sampling in SAMPLINGS]
    data = training_data(args.data, args.runs)
    measure(start, start, found, rows)
    for name, changes in variants(args.steps, args.new_steps).items():
        if args.only and name not in args.only:
            continue
        output = args.runs / f"{name.replace(' ', '_').replace(',', '')}.safetensors"
        config = TrainConfig(data=data, output=output, **{**RECIPE, "init": start, **changes})
        if not output.exists():
            subprocess.run([sys.executable, __file__, "--child"], input=config.to_json(), text=True, check=True)
        measure(name, str(output), found, rows)
    names = [name for name in (start, *variants(1, 1)) if all(rows.has(case.key, name) for case in found)]
    first = means(start, found, rows)
    table = {name: [f"{a - b:+.2f}" for a, b in zip(means(name, found, rows), first, strict=True)] for name in names}
    rows.table(f"PSNR (dB), {args.steps} steps", list(GROUPS), {**table, start: first})


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:  # a training: in a process of its own, whose threads are not those of the measuring
        train(TrainConfig.from_json(sys.stdin.read()))
    else:
        main()

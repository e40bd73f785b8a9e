"""What each kind of training images gives a prior for any scan: short trainings with one of them left out.

Networks of a quarter of the default's operations, and in the last row one of a single scale of about as many, are
trained from the start for the same number of steps on the domains and the augmentation of ``mri-any``
(docs/training.md), but for what the row names. PSNR (dB) of denoised slices that were set aside, the mean of three
noise levels, by group of domains: the first row, and differences to it. The second row, which differs in the seed only,
says how much chance there is in the others. Results that the JSON file has are not measured again, and a training that
was stopped continues.

    python benchmarks/ablation.py --runs runs --json ablation.json
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from common import Rows, in_parallel, machine, need, parser
from scans import set_aside, set_aside_names

from hggdp_plugin.checkpoint import load_model
from hggdp_plugin.models.denoiser import Denoiser
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
SIGMAS = (0.03, 0.1, 0.3)
WEIGHTS = {"images": 3.0, "dead_leaves": 0.5, "regions": 0.5}
BROAD = Augmentation.broad()
RECIPE: dict[str, Any] = {
    "synthetic": 400,
    "domain_weights": WEIGHTS,
    "augmentation": BROAD,
    "widths": (32, 64, 96, 112),
    "rollouts": 0,
    "warmup": 100,
    "validate_every": 1_000_000,
    "devices": 1,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "all, another seed": {"seed": 1},
    "without knees": {"domain_weights": {**WEIGHTS, "knee_pd": 0.0}},
    "without hearts": {"domain_weights": {**WEIGHTS, **dict.fromkeys(HEARTS, 0.0)}},
    "without T1": {"domain_weights": {**WEIGHTS, **dict.fromkeys(T1, 0.0)}},
    "T2 brains alone": {"domain_weights": {"images": 1.0}, "synthetic": 0, "only": "siat_train.h5"},
    "no contrast remaps": {"augmentation": BROAD.without(("monotone_remap", "nonmonotone_remap"))},
    "no random resolution": {"augmentation": BROAD.without(("resolution",))},
    "standard augmentation": {"augmentation": Augmentation()},
    "no dead leaves and regions": {"synthetic": 0, "domain_weights": {"images": 3.0}},
    "single scale": {"widths": (56,), "blocks": 4},
}


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


def measure(name: str, images: list[Path], runs: Path, steps: int, data: Path, slices: int) -> dict[str, float]:
    """Train a network, and return the PSNR of what it denoises by domain."""
    changes = dict(VARIANTS[name])
    only = changes.pop("only", None)
    output = runs / f"{name.replace(' ', '_').replace(',', '')}.safetensors"
    chosen = [path for path in images if only in (None, path.name)]
    train(TrainConfig(data=chosen, output=output, steps=steps, **{**RECIPE, **changes}))
    return denoised_psnr(Denoiser(load_model(output)[0]), data, slices)


@torch.no_grad()
def denoised_psnr(denoiser: Denoiser, data: Path, slices: int) -> dict[str, float]:
    """PSNR (dB, peak 1) of denoised slices set aside, the mean of the noise levels, by domain."""
    noise, found = torch.Generator().manual_seed(0), dict[str, list[float]]()
    for scan in set_aside(data, slices):
        height, width = (16 * (n // 16) for n in scan.image.shape)
        image = scan.image[:height, :width]
        clean = torch.from_numpy(np.stack([image.real, image.imag]))[None]
        for sigma in SIGMAS:
            noisy = clean + sigma * torch.randn(clean.shape, generator=noise)
            error = float((denoiser(noisy, sigma) - clean).square().sum(1).mean())
            found.setdefault(scan.domain, []).append(-10 * np.log10(error))
    return {domain: round(float(np.mean(values)), 3) for domain, values in found.items()}


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--runs", type=Path, required=True, help="folder for the trainings and their networks")
    p.add_argument("--steps", type=int, default=1200, help="steps of each (default 1200)")
    p.add_argument("--slices", type=int, default=3, help="slices of a domain (default 3)")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    args = p.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    rows = Rows(args.json, {"machine": machine(), "steps": args.steps})
    images = training_data(args.data, args.runs)
    todo = [(name, images, args.runs, args.steps, args.data, args.slices) for name in VARIANTS if name not in rows.rows]
    for (name, *_), psnr in in_parallel(measure, todo, args.workers):
        rows.rows[name] = psnr
        rows.write()
        print(name, psnr, flush=True)

    def means(name: str) -> list[float]:
        psnr = rows.rows[name]
        return [float(np.mean([psnr[domain] for domain in group or psnr])) for group in GROUPS.values()]

    first = means("all")
    table = {name: [f"{a - b:+.2f}" for a, b in zip(means(name), first, strict=True)] for name in VARIANTS}
    rows.table(f"PSNR (dB) of denoised slices, {args.steps} steps", list(GROUPS), {**table, "all": first})


if __name__ == "__main__":
    main()

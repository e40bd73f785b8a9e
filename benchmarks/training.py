"""What each augmentation and each choice of network and recipe gives, in short trainings of equal cost.

A quarter of the default network, trained by the package's own code for a few hundred steps on the training subjects;
denoising PSNR per noise level on validation slices (subject 5) and on a brain of another scanner, contrast and matrix,
and one reconstruction of each. A run takes some minutes on one core. Runs that have their result in --runs are not
repeated, and one that was stopped continues.

    python benchmarks/training.py --runs runs --json training.json
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import sigpy as sp
import torch
from common import machine, need, parser, print_table
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.apps.train import build_parser
from hggdp_plugin.coil_maps import espirit_maps
from hggdp_plugin.metrics import score
from hggdp_plugin.models import unet
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.simulation.coils import combine
from hggdp_plugin.simulation.masks import poisson_disc
from hggdp_plugin.training import run
from hggdp_plugin.training.batches import OFF, Augmentation, BatchSource
from hggdp_plugin.training.images import load_images
from hggdp_plugin.training.module import VALIDATION_SIGMAS, ScoreTraining


class NormalisedBlock(unet.ResidualBlock):
    """The residual block with group normalisation before each SiLU."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__(width, embedding)
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(functional.silu(self.norm1(x))))
        return x + self.conv2(functional.silu(h * (1 + scale) + shift))


class AttendedLevel(nn.Module):
    """A level followed by self-attention of all its pixels, four heads."""

    def __init__(self, level: nn.Module, width: int) -> None:
        super().__init__()
        self.level, self.norm = level, nn.GroupNorm(8, width)
        self.qkv, self.project = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.level(x, embedding)
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, 4, -1)).unbind(1)
        weight = (q.transpose(-1, -2) @ k / math.sqrt(q.shape[2])).softmax(-1)
        return x + self.project((v @ weight.transpose(-1, -2)).reshape(x.shape))


def loguniform_sigma(model: Any, n: int, generator: torch.Generator) -> Tensor:
    """Noise levels that are all equally likely, one from each n-th of the range."""
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return model.sigma_min * (model.sigma_max / model.sigma_min) ** u


@dataclass(frozen=True)
class Setting:
    """One training; the defaults are those that the others are compared with, ``steps`` relative to theirs."""

    widths: tuple[int, ...] = (32, 64, 96, 112)
    blocks: int = 2
    phase_resolution: int = 16
    crop: int = 64
    batch_size: int = 8
    rollouts: int = 1
    crops_first: float = run.CROPS_FIRST
    steps: float = 1.0
    optimizer: str = "muon"
    learning_rate: float = 2e-3
    seed: int = 0
    without: tuple[str, ...] = ()
    block: type[nn.Module] = unet.ResidualBlock
    attention: bool = False
    torch_start: bool = False
    draw_sigma: Callable[..., Tensor] | None = None


AUGMENTATIONS = {
    "all": Setting(),
    "all, another seed": Setting(seed=1),
    "none": Setting(without=tuple(OFF)),
    **{
        f"without {name}": Setting(without=(key,))
        for key, name in {
            "flip": "flips and turns",
            "phase": "global phase",
            "smooth_phase": "smooth phase",
            "intensity": "intensity",
            "shading": "shading",
            "zoom": "zoom and shift",
        }.items()
    },
}
RECIPES = {
    "default": Setting(),
    "AdamW, learning rate 3e-3": Setting(optimizer="adamw"),
    "AdamW, learning rate 1e-3": Setting(optimizer="adamw", learning_rate=1e-3),
    "learning rate 4e-3": Setting(learning_rate=4e-3),
    "learning rate 1e-3": Setting(learning_rate=1e-3),
    # A reconstruction's image has the pixels of 16 crops.
    "without reconstructions": Setting(rollouts=0, batch_size=16, steps=3 / 4),
    "reconstructions from the start": Setting(crops_first=0.0, steps=1 / 2),
    "reconstructions in the last half": Setting(crops_first=0.5, steps=3 / 4),
    "reconstructions in the last tenth": Setting(crops_first=0.9, steps=5 / 4),
    "noise levels log-uniform": Setting(draw_sigma=loguniform_sigma),
    "crop 128, batch 2": Setting(crop=128, batch_size=2),
    "phase left in": Setting(phase_resolution=0),
    "phase taken out in 8 pixels": Setting(phase_resolution=8),
    "three levels": Setting(widths=(34, 68, 102)),
    "wider, 1 block a level": Setting(widths=(44, 88, 132, 154), blocks=1),
    "narrower, 3 blocks a level": Setting(widths=(26, 52, 78, 92), blocks=3),
    "group normalisation": Setting(block=NormalisedBlock),
    "self-attention at the lowest level": Setting(attention=True),
    "weights started as torch does": Setting(torch_start=True),
}
SETTINGS = {**AUGMENTATIONS, **{name: setting for name, setting in RECIPES.items() if setting != Setting()}}


def network(setting: Setting) -> unet.UNet:
    """An untrained network of a setting."""
    torch.manual_seed(setting.seed)
    with ExitStack() as patches:
        patches.enter_context(patch.object(unet, "ResidualBlock", setting.block))
        if setting.torch_start:
            patches.enter_context(patch.object(unet, "keep_variance"))
        net = unet.UNet(widths=setting.widths, blocks=setting.blocks, phase_resolution=setting.phase_resolution)
    if setting.attention:
        net.encoder[-1] = AttendedLevel(net.encoder[-1], setting.widths[-1])
    return net.to(memory_format=torch.channels_last)


@torch.no_grad()
def gflop(net: nn.Module) -> float:
    """Cost of one evaluation at 256 x 256; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 2, 256, 256), torch.ones(1))
    return counter.get_total_flops() / 1e9


def as_channels(image: np.ndarray) -> Tensor:
    """A complex image as the training takes it."""
    image = image / abs(image).max()
    return torch.from_numpy(np.stack([image.real, image.imag]).astype(np.float32))


def train(setting: Setting, data: Path, folder: Path, steps: int) -> tuple[ScoreTraining, dict[str, Any]]:
    """Train, and measure denoising on the validation slices."""
    arguments = [str(data / "siat_train.h5"), "--output", "unused", "--steps", str(steps), "--val-every", "1000000"]
    module = ScoreTraining(
        network(setting),
        BatchSource(load_images([data / "siat_train.h5"]), setting.crop, Augmentation().without(setting.without)),
        load_images([data / "siat_val.h5"])[::4],
        batch_size=setting.batch_size,
        steps=steps,
        learning_rate=setting.learning_rate,
        optimizer=setting.optimizer,
        warmup=50,
        seed=setting.seed,
        rollouts=setting.rollouts,
        crops_first=setting.crops_first,
    )
    cost = {"parameters": sum(p.numel() for p in module.model.parameters()), "gflop": gflop(module.model)}
    cpu, wall = time.process_time(), time.perf_counter()
    trainer = run.fit(module, build_parser().parse_args(arguments), folder)
    cost["seconds"] = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    figures = {**cost, "validation": list(module.validation_psnr.values())}
    ksp = np.load(need(data / "brain8ch_full.npy"))
    brain = combine(ksp)[0]
    module.validation = [as_channels(brain)]
    trainer.validate(module, verbose=False)
    figures["brain"] = list(module.validation_psnr.values())
    return module, figures | reconstructions(module.model, data, ksp, brain)


def reconstructions(net: nn.Module, data: Path, ksp: np.ndarray, brain: np.ndarray) -> dict[str, float]:
    """PSNR of four validation slices, one coil, random samples R=6.7, and of the brain, Poisson disc R=6."""
    prior = ScorePrior(net)
    images = np.stack([(x[0] + 1j * x[1]).numpy() for x in load_images([data / "siat_val.h5"])[::15]])
    with h5py.File(need(data / "table1.h5"), "r") as file:
        mask = file["mask/random_015"][()].astype(np.float32)  # the test's mask, not its images
    recon = HGGDPRecon(sp.fft(images, axes=(-2, -1))[:, None] * mask, prior=prior, show_pbar=False).run()
    y = ksp * poisson_disc(ksp.shape[1:], 6, 24)
    other = HGGDPRecon(y, espirit_maps(y, 24), prior=prior, show_pbar=False).run()
    return {
        "validation_recon": statistics.fmean(score(x, ref).psnr for x, ref in zip(recon, images, strict=True)),
        "brain_recon": score(other, brain).psnr,
    }


def measure(name: str, data: Path, runs: Path, steps: int) -> dict[str, Any]:
    """The figures of one setting, from its file if it is there."""
    setting, stem = SETTINGS[name], name.replace(", ", "-").replace(" ", "-")
    result = runs / f"{stem}.json"
    if not result.exists():
        with ExitStack() as patches:
            if setting.draw_sigma:
                patches.enter_context(patch("hggdp_plugin.training.module.draw_sigma", setting.draw_sigma))
            steps = round(steps * setting.steps)
            figures = train(setting, data, runs / stem, steps)[1]
        described = {k: v for k, v in vars(replace(setting, block=None, draw_sigma=None)).items() if v is not None}
        result.write_text(json.dumps({"setting": described, "steps": steps, "machine": machine(), **figures}))
    return json.loads(result.read_text())


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--runs", type=Path, required=True, help="folder for the runs' states and results")
    p.add_argument("--steps", type=int, default=540, help="steps of each training (default 540)")
    p.add_argument("--only", nargs="+", choices=SETTINGS, metavar="NAME", help=f"of: {'; '.join(SETTINGS)}")
    args = p.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    figures = {name: measure(name, args.data, args.runs, args.steps) for name in args.only or SETTINGS}
    if args.only:
        return
    figures["default"] = figures["all"]
    sigmas = [f"{sigma:g}" for sigma in VALIDATION_SIGMAS]
    for title, names in (("augmentation", AUGMENTATIONS), ("network and recipe", RECIPES)):
        print(f"\n{title}: GFLOP, CPU seconds; denoising and reconstruction PSNR (dB), validation slices, then brain\n")
        rows = {
            name: [
                *(f["gflop"], round(f["seconds"]["cpu"])),
                *(*f["validation"], f["validation_recon"]),
                *(*f["brain"], f["brain_recon"]),
            ]
            for name in names
            for f in [figures[name]]
        }
        print_table(["GFLOP", "CPU s", *sigmas, "recon", *sigmas, "recon"], rows)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What each augmentation and each choice of network and recipe gives, in short trainings of equal cost.

A quarter of the default network, trained by the package's own code for a few hundred steps on the training subjects;
denoising PSNR per noise level on validation slices (subject 5) and on a brain of another scanner, contrast and matrix,
and one reconstruction of each. A run takes some minutes on one core. Runs that have their result in --runs are not
repeated, and one that was stopped continues. ``--only`` with the names of SIZES and several ``--steps`` shows which
network is best for a given time.

    python benchmarks/training.py --runs runs --json training.json
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import lightning
import numpy as np
import sigpy as sp
import torch
from common import machine, need, parser, print_table
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.coil_maps import espirit_maps
from hggdp_plugin.metrics import score
from hggdp_plugin.models import unet
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.simulation.coils import combine
from hggdp_plugin.simulation.masks import poisson_disc
from hggdp_plugin.training.batches import BatchSource
from hggdp_plugin.training.config import OFF, Augmentation, TrainConfig
from hggdp_plugin.training.images import load_domains, load_images
from hggdp_plugin.training.module import VALIDATION_SIGMAS, ScoreTraining
from hggdp_plugin.training.run import build_module, build_network, fit, validate


class NormalizedBlock(unet.ResidualBlock):
    """The residual block with group normalization before each SiLU."""

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


def normalize(network: unet.UNet) -> None:
    """Replace all blocks by those with group normalization."""
    for level in [*network.encoder, *network.decoder]:
        for number, block in enumerate(level):
            level[number] = NormalizedBlock(block.conv1.in_channels, block.modulation.in_features)
    unet.keep_variance(network)


def attend(network: unet.UNet) -> None:
    """Add self-attention to the lowest level."""
    network.encoder[-1] = AttendedLevel(network.encoder[-1], network.config["widths"][-1])


def initialize_as_torch(network: unet.UNet) -> None:
    """Draw the weights as PyTorch does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.any():
            module.reset_parameters()


def log_uniform_sigma(module: ScoreTraining) -> None:
    """Draw noise levels that are all equally likely, one from each n-th of the range."""
    low, high = module.model.sigma_min, module.model.sigma_max

    def draw(n: int, generator: torch.Generator) -> Tensor:
        u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        return low * (high / low) ** u

    module.draw_sigma = draw


@dataclass(frozen=True)
class Setting:
    """One training.

    Attributes:
        changes: What differs from :data:`BASE`.
        steps: Number of steps, relative to the others, for about equal cost.
        change_network: Changes the new network in place.
        change_training: Changes the training's module.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    steps: float = 1.0
    change_network: Callable[[unet.UNet], None] | None = None
    change_training: Callable[[ScoreTraining], None] | None = None


BASE: dict[str, Any] = {"widths": (32, 64, 96, 112), "batch_size": 8, "warmup": 50, "validate_every": 10**6}
AUGMENTATIONS = {
    "all": Setting(),
    "all, another seed": Setting({"seed": 1}),
    "none": Setting({"augmentation": Augmentation(**OFF)}),
    **{
        f"without {name}": Setting({"augmentation": Augmentation().without([key])})
        for key, name in {
            "flip": "flips and turns",
            "phase": "global phase",
            "smooth_phase": "smooth phase",
            "intensity": "intensity",
            "shading": "shading",
            "zoom": "zoom and shift",
        }.items()
    },
    **{
        f"with {name}": Setting({"augmentation": Augmentation(**changes)})
        for name, changes in {
            "random contrast": {"monotone_remap": 0.25, "nonmonotone_remap": 0.25},
            "bias field": {"bias_field": 0.7},
            "random resolution": {"resolution": 0.5},
            "tissue phase": {"tissue_phase": 0.5},
        }.items()
    },
    "broad": Setting({"augmentation": Augmentation.broad()}),
}
RECIPES = {
    "default": Setting(),
    "AdamW, learning rate 3e-3": Setting({"optimizer": "adamw", "learning_rate": 3e-3}),
    "AdamW, learning rate 1e-3": Setting({"optimizer": "adamw", "learning_rate": 1e-3}),
    "learning rate 4e-3": Setting({"learning_rate": 4e-3}),
    "learning rate 1e-3": Setting({"learning_rate": 1e-3}),
    # The image of a rollout has the pixels of 16 crops.
    "without rollouts": Setting({"rollouts": 0, "batch_size": 16}, 3 / 4),
    "rollouts from the start": Setting({"crops_first": 0.0}, 1 / 2),
    "rollouts in the last half": Setting({"crops_first": 0.5}, 3 / 4),
    "rollouts in the last tenth": Setting({"crops_first": 0.9}, 5 / 4),
    "noise levels log-uniform": Setting(change_training=log_uniform_sigma),
    "crop 128, batch 2": Setting({"crop": 128, "batch_size": 2}),
    "phase left in": Setting({"phase_resolution": 0}),
    "phase removed at 8 pixels": Setting({"phase_resolution": 8}),
    "three levels": Setting({"widths": (34, 68, 102)}),
    "wider, 1 block a level": Setting({"widths": (44, 88, 132, 154), "blocks": 1}),
    "narrower, 3 blocks a level": Setting({"widths": (26, 52, 78, 92), "blocks": 3}),
    "group normalization": Setting(change_network=normalize),
    "self-attention at the lowest level": Setting(change_network=attend),
    "weights initialized as torch does": Setting(change_network=initialize_as_torch),
}
SIZES = {
    f"{width} channels": Setting({"widths": tuple(round(width * ratio) for ratio in (1, 2, 3, 3.5))}, (32 / width) ** 2)
    for width in (16, 24, 32, 48, 64)
}
SETTINGS = AUGMENTATIONS | {name: setting for name, setting in RECIPES.items() if name != "default"} | SIZES


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


def train(setting: Setting, data: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Train, and measure denoising and reconstruction."""
    changes = {**BASE, "steps": round(steps * setting.steps), **setting.changes}
    config = TrainConfig(data=[data / "siat_train.h5"], output=folder.with_suffix(".safetensors"), **changes)
    lightning.seed_everything(config.seed, verbose=False)
    network = build_network(config)
    if setting.change_network:
        setting.change_network(network)
    source = BatchSource(load_domains(config.data), config.crop, config.augmentation)
    module = build_module(config, network, source, load_images([data / "siat_val.h5"])[::4])
    if setting.change_training:
        setting.change_training(module)
    figures: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters()), "gflop": gflop(network)}
    cpu, wall = time.process_time(), time.perf_counter()
    trainer, stop = fit(module, config)
    if stop.signal is not None:
        raise SystemExit(
            f"{folder.name}: stopped after {trainer.global_step} of {config.steps} steps; continues when started again"
        )
    figures["seconds"] = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    validate(trainer, module)
    figures["validation"] = list(module.validation_psnr.values())
    ksp = np.load(need(data / "brain8ch_full.npy"))
    brain = combine(ksp)[0]
    module.validation = [as_channels(brain)]
    validate(trainer, module)
    figures["brain"] = list(module.validation_psnr.values())
    described = {"steps": config.steps, **json.loads(config.to_json()), "data": ["siat_train.h5"]}
    return {"setting": described, **figures, **reconstructions(network, data, ksp, brain)}


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
    stem = f"{name.replace(', ', '-').replace(' ', '-')}-{steps}"
    result = runs / f"{stem}.json"
    if not result.exists():
        figures = train(SETTINGS[name], data, runs / stem, steps)
        result.write_text(json.dumps({"machine": machine(), **figures}))
    return json.loads(result.read_text())


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--runs", type=Path, required=True, help="folder for the runs' states and results")
    p.add_argument("--steps", type=int, nargs="+", default=[540], help="steps of each training (default 540)")
    p.add_argument("--only", nargs="+", choices=SETTINGS, metavar="NAME", help=f"of: {'; '.join(SETTINGS)}")
    args = p.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    figures = {
        (name, steps): measure(name, args.data, args.runs, steps)
        for steps in args.steps
        for name in args.only or SETTINGS
    }
    figures |= {("default", steps): figures["all", steps] for steps in args.steps if ("all", steps) in figures}
    sigmas = [f"{sigma:g}" for sigma in VALIDATION_SIGMAS]
    for title, names in (("augmentation", AUGMENTATIONS), ("network and recipe", RECIPES), ("size", SIZES)):
        if not any(name in names for name, _ in figures):
            continue
        print(f"\n{title}: GFLOP, CPU seconds; denoising and reconstruction PSNR (dB), validation slices, then brain\n")
        rows = {
            name if len(args.steps) == 1 else f"{name}, {steps} steps": [
                *(f["gflop"], round(f["seconds"]["cpu"])),
                *(*f["validation"], f["validation_recon"]),
                *(*f["brain"], f["brain_recon"]),
            ]
            for (name, steps), f in figures.items()
            if name in names
        }
        print_table(["GFLOP", "CPU s", *sigmas, "recon", *sigmas, "recon"], rows)
    if args.json:
        named = {f"{name}, {steps} steps": f for (name, steps), f in figures.items()}
        args.json.write_text(json.dumps(named, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Training on a GPU for a given time: crops and rollouts of many domains in large batches.

The recipe of the bundled prior ``mri-any``: domains are drawn with equal weights, crops with the broad augmentation,
and batches of rollouts (simulated reconstructions that the network takes part in) with schedules of 8, 12 and 25
levels. Everything stays on the device. The learning rate follows the share of the time that has passed, so that the
pace of the machine decides the number of steps.
"""

import argparse
import json
import lzma
import math
import multiprocessing
import os
import pickle
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation.coils import coil_maps
from hggdp_plugin.training.batches import Augmentation, BatchSource, Domain
from hggdp_plugin.training.loss import denoising_loss, draw_sigma
from hggdp_plugin.training.muon import muon
from hggdp_plugin.training.rollouts import log_uniform, random_mask
from hggdp_plugin.training.synthetic import synthetic_domains

#: Whether to capture CUDA graphs.
CAPTURE = not os.environ.get("HGGDP_EAGER")
LEVELS = (8, 12, 25)
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Smallest side of a training image; smaller ones get a border of zeros.
LEAST_SIDE = 192


def unpack(path: Path, part: str) -> dict[str, list[Tensor]]:
    """Read packed images (see benchmarks/pack_images.py) as real (2, H, W) of maximum magnitude 1, by domain."""
    groups = pickle.loads(path.read_bytes())[part]
    domains = {}
    with ThreadPoolExecutor() as executor:
        planes = {
            name: [executor.submit(lzma.decompress, group[key]) for key in ("lo", "hi")]
            for name, group in groups.items()
        }
    for name, group in groups.items():
        low, high = (np.frombuffer(future.result(), np.uint8) for future in planes[name])
        values = low.astype(np.int32) + 256 * high.astype(np.int32) - 128
        images, start = [], 0
        for shape, step in zip(group["shapes"], group["steps"], strict=True):
            image = torch.from_numpy(values[start : start + math.prod(shape)].reshape(shape) * np.float32(step)).float()
            start += math.prod(shape)
            image = image if image.ndim == 3 else torch.stack([image, torch.zeros_like(image)])
            images.append(image / image.norm(dim=0).max())
        domains[name] = images
    return domains


def at_least(image: Tensor, side: int) -> Tensor:
    """Put an image (2, H, W) into the middle of zeros, at least ``side`` high and wide."""
    pad = [max(side - s, 0) for s in image.shape[1:]]
    return functional.pad(image, (pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2))


def square(image: Tensor, side: int) -> Tensor:
    """Cut the middle (2, side, side) out of an image, with zeros where there is none."""
    image = at_least(image, side)
    y, x = ((s - side) // 2 for s in image.shape[1:])
    return image[:, y : y + side, x : x + side]


# ---------------------------------------------------------------------------------------------------------------------
# Rollouts in batches


def to_complex(x: Tensor) -> Tensor:
    return torch.complex(x[:, 0], x[:, 1])


def oriented(x: Tensor, turn: int) -> Tensor:
    """One of the eight flips and rotations of (B, H, W)."""
    x = x.mT if turn & 4 else x
    axes = [axis for axis, bit in ((-2, 1), (-1, 2)) if turn & bit]
    return x.flip(axes) if axes else x


def oriented_back(x: Tensor, turn: int) -> Tensor:
    axes = [axis for axis, bit in ((-2, 1), (-1, 2)) if turn & bit]
    x = x.flip(axes) if axes else x
    return x.mT if turn & 4 else x


class WithPhase(nn.Module):
    """The network on images with a phase, complex (B, H, W), as ScorePrior runs it."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network, self.denoiser = network, Denoiser(network)

    def forward(self, pairs: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(pairs.permute(0, 3, 1, 2), sigma)


def denoise(network: nn.Module, x: Tensor, sigma: float) -> Tensor:
    """Denoise complex images (B, H, W)."""
    return to_complex(network(torch.view_as_real(x).contiguous(), torch.full((len(x),), sigma, device=x.device)))


def captured(module: nn.Module, *shapes: tuple[int, ...], device: torch.device) -> nn.Module:
    """The module with its kernels, forward and backward, captured as CUDA graphs, which are launched at once.

    A step of small kernels is otherwise limited by the time to launch them. Inputs have one shape each from then on.
    """
    if device.type != "cuda" or not CAPTURE:
        return module
    sample = tuple(torch.rand(shape, device=device) + 0.1 for shape in shapes)
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        return torch.cuda.make_graphed_callables(module, sample)


class Measured:
    """Simulated measurements of a batch of images, scaled as HGGDPRecon scales them, and their data consistency.

    Args:
        images (Tensor): Complex (B, H, W), maximum magnitude about 1.
        coils (int): Number of simulated coils.
        noise (Tensor): Noise standard deviation per real channel (B,).
        masks (Tensor): Sampling masks (B, H, W), k-space center in the middle.
        generator (Generator): Of the noise, on the images' device.
    """

    def __init__(self, images: Tensor, coils: int, noise: Tensor, masks: Tensor, generator: torch.Generator) -> None:
        self.coils = coils
        self.mask = torch.fft.ifftshift(masks, dim=(-2, -1))[:, None]
        shape = images.shape[1:]
        self.mps = maps(coils, tuple(shape), images.device)
        y = torch.fft.fft2(images[:, None] * self.mps, norm="ortho")
        if coils > 1:
            pairs = torch.randn((*y.shape, 2), generator=generator, device=y.device)
            y = y + noise[:, None, None, None] * torch.view_as_complex(pairs)
        y = y * self.mask
        self.AHy = self.adjoint(y)
        x = self.least_squares() if coils > 1 else self.AHy
        magnitude = x.abs()
        size = torch.quantile(magnitude.flatten(1), 0.998, dim=1)[:, None, None] * 1.5
        size = torch.where(size > 0, size, 1.0)
        total = ((x / size) * (magnitude / size)).sum((1, 2), keepdim=True)
        self.scale = size * torch.where(total.abs() > 0, total / total.abs().clamp_min(1e-30), 1)
        self.AHy = self.AHy / self.scale
        self.start = x / self.scale
        self.reference = images / self.scale
        self.variance = self._variance(y / self.scale[:, None]) if coils > 1 else None

    def adjoint(self, y: Tensor) -> Tensor:
        return (self.mps.conj() * torch.fft.ifft2(y, norm="ortho")).sum(1)

    def normal(self, x: Tensor) -> Tensor:
        return self.adjoint(self.mask * torch.fft.fft2(self.mps * x[:, None], norm="ortho"))

    def least_squares(self, iterations: int = 15) -> Tensor:
        x, r = torch.zeros_like(self.AHy), self.AHy
        p, rr = r, (r.abs() ** 2).sum((1, 2), keepdim=True)
        for _ in range(iterations):
            Ap = self.normal(p)
            pAp = (p.conj() * Ap).real.sum((1, 2), keepdim=True)
            alpha = torch.where(pAp > 0, rr / pAp.clamp_min(1e-30), 0)
            x, r = x + alpha * p, r - alpha * Ap
            new = (r.abs() ** 2).sum((1, 2), keepdim=True)
            p, rr = r + new / rr.clamp_min(1e-30) * p, new
        return x

    def _variance(self, y: Tensor) -> Tensor:
        """The noise variance that counts, per real channel: a share of what is measured at the periphery."""
        H, W = y.shape[-2:]
        ky, kx = (torch.fft.fftfreq(n, device=y.device) * 2 for n in (H, W))
        radius = torch.hypot(ky[:, None], kx)
        out = []
        for item, mask in zip(y, self.mask[:, 0] > 0, strict=True):
            far = mask & (radius >= torch.quantile(radius[mask], 0.9))
            out.append((item[:, far].abs() ** 2).median() / math.log(2))
        return 0.5 * 0.3 * torch.stack(out)[:, None, None]

    def consistent(self, x: Tensor, alpha: float) -> Tensor:
        """The proximal step of the data consistency, with a gradient."""
        if self.variance is None:
            k = torch.fft.fft2(x, norm="ortho")
            return torch.fft.ifft2(
                torch.where(self.mask[:, 0] > 0, torch.fft.fft2(self.AHy, norm="ortho"), k), norm="ortho"
            )
        weight = self.variance / alpha
        low, high = 0.1 + weight, 1.0 + weight
        radius, ratio = (high - low) / 2, (high + low) / (high - low)
        residual = self.AHy - self.normal(x)
        rho = 1 / ratio
        move = residual * (rho / radius)
        new = 1 / (2 * ratio - rho)
        second = (new * rho) * move + (2 * new / radius) * (residual - self.normal(move) - weight * move)
        return x + move + second


_MAPS: dict[Any, Tensor] = {}


def maps(coils: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    key = (coils, shape, device)
    if key not in _MAPS:
        mps = coil_maps(coils, shape) if coils > 1 else np.ones((1, *shape), np.complex64)
        mps = mps / np.sqrt((np.abs(mps) ** 2).sum(0).max())
        _MAPS[key] = torch.from_numpy(np.ascontiguousarray(mps, np.complex64)).to(device)
    return _MAPS[key]


class Rollout:
    """A batch of reconstructions under way."""

    def __init__(
        self, network: nn.Module, measured: Measured, schedule: NoiseSchedule, rng: np.random.Generator
    ) -> None:
        self.network, self.measured, self.schedule, self.rng = network, measured, schedule, rng
        self.x, self.last, self.level = measured.start, None, 0
        if not schedule.from_data:
            self.x = 2 * torch.rand_like(self.x.real) - 1 + 1j * (2 * torch.rand_like(self.x.real) - 1)

    def done(self) -> bool:
        return self.level >= len(self.schedule.sigmas)

    def step(self) -> Tensor:
        """Take a step and return its loss: the part of each image's error that the step leaves."""
        eta, momentum = parameters(self.schedule)
        sigma, m = self.schedule.sigmas[self.level], self.measured
        x = self.x + eta * sigma * torch.view_as_complex(torch.randn((*self.x.shape, 2), device=self.x.device))
        turn = int(self.rng.integers(8))
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            out = oriented_back(denoise(self.network, oriented(x, turn), sigma), turn)
        error = (m.consistent(out, sigma**2) - m.reference).abs().square().mean((1, 2))
        before = (x - m.reference).abs().square().mean((1, 2))
        now = out.detach()
        target = now if self.last is None else now + momentum * (now - self.last)
        with torch.no_grad():
            self.x = m.consistent(target, sigma**2)
        self.last, self.level = now, self.level + 1
        return (error / before.clamp_min(1e-12)).clamp_max(10).mean()


def parameters(schedule: NoiseSchedule) -> tuple[float, float]:
    rule = getattr(schedule, "rule", schedule)
    return rule.eta, rule.momentum


def random_schedule(rng: np.random.Generator) -> NoiseSchedule:
    levels = int(rng.choice(LEVELS))
    if rng.integers(2):
        return NoiseSchedule.fast(levels)
    start = log_uniform(rng, (0.05, 1.0))
    return replace(NoiseSchedule.fast(levels, sigma_max=start), from_data=start < 0.3 or bool(rng.integers(2)))


def mask_bank(n: int, side: int) -> np.ndarray:
    """Make random sampling masks (n, side, side), on all processors; before a GPU is used, for the sake of fork."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as executor:
        return np.stack(list(executor.map(_mask, range(n), [side] * n, chunksize=8)))


def _mask(seed: int, side: int) -> np.ndarray:
    return np.array(random_mask((side, side), np.random.default_rng(seed)))


class Pool:
    """Rollouts at all stages, one of which takes a step at each call."""

    def __init__(
        self, network: nn.Module, source: BatchSource, bank: np.ndarray, batch: int, slots: int, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.network, self.source, self.bank, self.batch, self.device = network, source, bank, batch, device
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator(device).manual_seed(seed)
        self.slots: list[Rollout | None] = [None] * slots
        self.call = 0

    @torch.no_grad()
    def begin(self) -> Rollout:
        images = to_complex(self.source.draw(self.batch, self.generator).to(self.device))
        peak = images.abs().amax((1, 2), keepdim=True)
        images = torch.where(peak > 0.05, images / peak.clamp_min(0.05), images + 0.01)
        coils = int(self.rng.choice((1, 1, 4, 8)))
        noise = [log_uniform(self.rng, (1e-3, 2e-2)) for _ in range(self.batch)]
        masks = self.bank[self.rng.integers(len(self.bank), size=self.batch)]
        measured = Measured(
            images, coils, torch.tensor(noise, device=self.device, dtype=torch.float32),
            torch.from_numpy(masks.astype(np.float32)).to(self.device), self.noise,
        )  # fmt: skip
        return Rollout(self.network, measured, random_schedule(self.rng), self.rng)

    def loss(self) -> Tensor:
        slot = self.call % len(self.slots)
        rollout = self.slots[slot]
        if rollout is None or rollout.done():
            fresh = rollout is None
            rollout = self.slots[slot] = self.begin()
            if fresh:
                with torch.no_grad():
                    for _ in range(slot * len(rollout.schedule.sigmas) // len(self.slots)):
                        rollout.step()
                torch.clear_autocast_cache()
        self.call += 1
        loss = rollout.step()
        if self.call % 50 == 0 and not bool(rollout.x.abs().max() < 100):
            self.slots[slot] = None  # diverged
        return torch.nan_to_num(loss, nan=0.0, posinf=0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Training


@dataclass(frozen=True)
class Recipe:
    """What to train and how."""

    name: str
    seconds: float = 0.0
    steps: int = 0
    left_out: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    synthetic: float = 0.5
    network: dict[str, Any] = field(default_factory=dict)
    init: str | None = None
    crops: int = 256
    crop: int = 64
    learning_rate: float = 3e-3
    rollouts: int = 12
    rollout_size: int = 192
    rollouts_from: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)
    seed: int = 0


@cache
def synthetic(device: torch.device) -> list[Domain]:
    """Dead leaves and label-like regions, made once."""
    return synthetic_domains(400 if device.type == "cuda" else 8, 256, torch.Generator(device).manual_seed(7))


def sources(recipe: Recipe, images: dict[str, list[Tensor]], device: torch.device) -> tuple[BatchSource, BatchSource]:
    """Crops, and whole images for rollouts."""
    broad = Augmentation.broad().without(recipe.without)
    kept = {n: v for n, v in images.items() if n not in recipe.left_out and (not recipe.only or n in recipe.only)}
    domains = [
        Domain(n, tuple(at_least(i, LEAST_SIDE) for i in v), recipe.weights.get(n, 1.0)) for n, v in kept.items()
    ]
    if recipe.synthetic:
        domains += [replace(domain, weight=recipe.synthetic) for domain in synthetic(device)]
    narrow = replace(broad, resolution=max(broad.resolution, 0.8))
    return (
        BatchSource(domains, recipe.crop, broad).to(device),
        BatchSource(domains, recipe.rollout_size, narrow).to(device),
    )


def fit(
    recipe: Recipe,
    images: dict[str, list[Tensor]],
    device: torch.device,
    bank: np.ndarray,
    checkpoint: Path | None = None,
) -> tuple[UNet, dict[str, Any]]:
    """Train for a time or a number of steps; return the network with averaged weights, and what was done."""
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    network = load_model(recipe.init)[0].float() if recipe.init else UNet(phase_resolution=16, **recipe.network)
    network = network.to(device, memory_format=torch.channels_last).train()
    crops, whole = sources(recipe, images, device)
    size, side = recipe.crop, recipe.rollout_size
    optimizer = muon(network, recipe.learning_rate)
    denoiser = Denoiser(network)
    on_crops = CapturedDenoiser(
        network, captured(Plain(network), (recipe.crops, 2, size, size), (recipe.crops,), device=device)
    )
    pool = None
    if recipe.rollouts_from < 1:
        on_images = captured(WithPhase(network), (recipe.rollouts, side, side, 2), (recipe.rollouts,), device=device)
        pool = Pool(on_images, whole, bank, recipe.rollouts, 24, recipe.seed, device)
    optimizer.zero_grad(set_to_none=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    weights = list(network.parameters())
    average = [p.detach().clone() for p in weights]
    draw = torch.Generator().manual_seed(recipe.seed)
    noise = torch.Generator(device).manual_seed(recipe.seed)
    synchronize(device)
    start = saved = time.monotonic()
    step, rolled, losses, log, ready = 0, 0, [], [], []
    while True:
        elapsed = time.monotonic() - start
        progress = step / recipe.steps if recipe.steps else elapsed / recipe.seconds
        if progress >= 1:
            break
        rise = min(1.0, (step + 1) / 200) if not recipe.steps else min(1.0, (step + 1) / (recipe.steps // 8 + 1))
        factor = rise * 0.5 * (1 + math.cos(math.pi * progress))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        if not ready:  # several at a time: to draw takes as long for many as for few
            ready = list(crops.draw(4 * recipe.crops, draw).split(recipe.crops))
        x = ready.pop()
        x = denoiser.remove_phase(x)
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            loss = denoising_loss(on_crops, x, draw_sigma(network, len(x), noise), noise)
        loss.backward()
        kept = [loss.detach()]
        if pool and progress >= recipe.rollouts_from:
            inside = pool.loss()
            inside.backward()
            rolled += recipe.rollouts
            kept.append(inside.detach())
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - min(0.999, (1 + step) / (10 + step)))
        losses.append(kept)
        if step % 200 == 0:
            columns = [[k[i] for k in losses if len(k) > i] for i in range(2)]
            means = [round(float(torch.stack(column).mean()), 4) for column in columns if column]
            log.append([step, round(elapsed, 1), *means])
            losses = []
            print(recipe.name, log[-1], f"{step * recipe.crops / elapsed:.0f} crops/s", flush=True)
            if not math.isfinite(means[0]):
                raise FloatingPointError(f"{recipe.name}: diverged at step {step}")
        if checkpoint and time.monotonic() - saved > 60:
            saved = time.monotonic()
            write_weights(checkpoint, network, average, {"step": step, "crops": step * recipe.crops})
    synchronize(device)
    seconds = time.monotonic() - start
    with torch.no_grad():
        for parameter, value in zip(weights, average, strict=True):
            parameter.copy_(value)
    facts = {
        "recipe": dict(vars(recipe)),
        "steps": step,
        "crops": step * recipe.crops,
        "rollout steps": rolled,
        "seconds": round(seconds, 1),
        "crops a second": round(step * recipe.crops / seconds),
        "log": log,
    }
    return network.eval(), facts


class Plain(nn.Module):
    """The network on crops without their phase."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network, self.denoiser = network, Denoiser(network)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(x, sigma, 1)


class CapturedDenoiser(Denoiser):
    """The denoiser on crops without their phase, by a captured module."""

    def __init__(self, network: UNet, module: nn.Module) -> None:
        super().__init__(network)
        self.module = module

    def __call__(self, x: Tensor, sigma: Tensor | float, phase: Any = 1) -> Tensor:
        return self.module(x, sigma)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def write_weights(path: Path, network: UNet, average: Sequence[Tensor], facts: dict[str, Any]) -> None:
    """Save the averaged weights in half precision."""
    copy = UNet(**network.config).half()
    with torch.no_grad():
        for parameter, value in zip(copy.parameters(), average, strict=True):
            parameter.copy_(value)
    save_model(path, copy, {"training": facts, "scale": "maximum magnitude of an image is 1"})


# ---------------------------------------------------------------------------------------------------------------------
# Validation


@torch.no_grad()
def validate(unet: UNet, images: dict[str, list[Tensor]], device: torch.device, side: int = 256) -> dict[str, Any]:
    """PSNR by domain: of denoising, and of simulated reconstructions with 10 and 25 levels."""
    network = WithPhase(unet)
    names = [n for n, v in images.items() for _ in v]
    flat = torch.stack([square(i, side) for v in images.values() for i in v]).to(device)
    clean = to_complex(flat)
    grid = torch.linspace(-1, 1, side, device=device)
    clean = clean * torch.polar(torch.ones_like(clean.real[0]), 1.5 * grid[:, None] * grid + 0.8 * grid)
    rows: dict[str, dict[str, float]] = {n: {} for n in images}

    def note(what: str, error: Tensor) -> None:
        psnr = -10 * torch.log10(error)
        for name in images:
            rows[name][what] = round(
                float(torch.stack([p for p, n in zip(psnr, names, strict=True) if n == name]).mean()), 3
            )

    noise = torch.Generator(device).manual_seed(1)
    for sigma in SIGMAS:
        z = torch.view_as_complex(torch.randn((*clean.shape, 2), generator=noise, device=device))
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            out = torch.cat([denoise(network, part, sigma) for part in (clean + sigma * z).split(16)])
        note(f"denoise {sigma:g}", (out - clean).abs().square().mean((1, 2)))
    for what, coils, kind, accel in PROTOCOLS:
        rng = np.random.default_rng(5)
        masks = np.stack([fixed_mask(kind, accel, side, rng) for _ in names]).astype(np.float32)
        torch.manual_seed(0)
        measured = Measured(
            clean, coils, torch.full((len(names),), 0.007, device=device), torch.from_numpy(masks).to(device),
            torch.Generator(device).manual_seed(2),
        )  # fmt: skip
        for schedule in (NoiseSchedule.fast(25), NoiseSchedule.fast(10)):
            rollout = Rollout(network, measured, schedule, np.random.default_rng(0))
            while not rollout.done():
                rollout.step()
            error = ((rollout.x * measured.scale).abs() - clean.abs()).square().mean((1, 2))
            note(f"{what}, {len(schedule.sigmas)}", error)
    return rows


PROTOCOLS = (
    ("8 coils, lines R=4", 8, "lines", 4),
    ("8 coils, points R=8", 8, "points", 8),
    ("1 coil, points R=5", 1, "points", 5),
)


def fixed_mask(kind: str, accel: float, side: int, rng: np.random.Generator) -> np.ndarray:
    from hggdp_plugin.simulation.masks import random_points

    axes = (side, side) if kind == "points" else (side,)
    mask = random_points(axes, accel, side // 13, 2.0, int(rng.integers(2**31)))
    return mask if kind == "points" else np.broadcast_to(mask[:, None], (side, side))


KNEE, HEART = ("knee_pd",), ("heart_bssfp", "heart_cine")
T1 = ("brain_t1_stripped", "head_t1", "head_t1_gd")
REMAPS = ("monotone_remap", "nonmonotone_remap")
#: Recipes that can become a prior.
RECIPES: dict[str, dict[str, Any]] = {
    "any": {
        "init": "brain-t2", "learning_rate": 3e-3, "rollouts_from": 0.0, "weights": {"brain_t2": 4.0},
    },
    "any-wide": {
        "network": {"widths": (80, 112, 160), "blocks": 3}, "learning_rate": 5e-3, "rollouts_from": 0.25,
        "weights": {"brain_t2": 4.0},
    },
}  # fmt: skip
#: Short trainings of a small network with a fixed number of steps: what each domain and augmentation brings.
SMALL = {"network": {"widths": (96,), "blocks": 4}, "steps": 500, "learning_rate": 6e-3}
ABLATION: dict[str, dict[str, Any]] = {
    "all domains": {},
    "all domains, another seed": {"seed": 1},
    "T2 brain alone": {"only": ("brain_t2",), "synthetic": 0.0, "without": REMAPS},
    "without knees": {"left_out": KNEE},
    "without hearts": {"left_out": HEART},
    "without T1": {"left_out": T1},
    "no contrast remaps": {"without": REMAPS},
    "no textures": {"synthetic": 0.0},
    "textures alone": {"only": ("none",), "synthetic": 1.0},
    "four levels": {"network": {}},
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("recipe", choices=[*RECIPES, "ablation"])
    p.add_argument("--images", type=Path, required=True, help="packed images")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--gpu", type=int, default=0)
    p.add_argument("--minutes", type=float, default=8.0)
    args = p.parse_args()
    on_gpu = args.gpu >= 0
    small = {} if on_gpu else {"crops": 4, "rollouts": 2, "rollout_size": 64}
    size = 192 if on_gpu else 64
    bank = mask_bank(2000 if on_gpu else 8, size) if args.recipe != "ablation" else np.ones((1, 2, 2), np.float32)
    device = torch.device(f"cuda:{args.gpu}" if on_gpu else "cpu")
    images, held_out = unpack(args.images, "train"), unpack(args.images, "val")
    side = 256 if on_gpu else 48
    file = args.out / f"{args.recipe}.json"
    if args.recipe != "ablation":
        recipe = Recipe(args.recipe, 60 * args.minutes, **{**small, **RECIPES[args.recipe]})
        weights = args.out / f"{args.recipe}.safetensors"
        network, facts = fit(recipe, images, device, bank, weights)
        write_weights(weights, network, list(network.parameters()), facts)
        rows = {"facts": facts, "validation": validate(network, held_out, device, side)}
        file.write_text(json.dumps(rows, indent=1, default=str))
        return
    bundled = load_model("brain-t2")[0].to(device, memory_format=torch.channels_last).eval()
    rows = {"brain-t2": validate(bundled, held_out, device, side)}
    for name, changes in ABLATION.items():
        network, facts = fit(Recipe(name, **{**SMALL, **small, **changes}), images, device, bank)
        rows[name] = {"facts": facts, **validate(network, held_out, device, side)}
        file.write_text(json.dumps(rows, indent=1, default=str))


if __name__ == "__main__":
    main()

"""Reconstructions that a network is trained in: their images are not clean images with white noise."""

from dataclasses import replace
from typing import Any

import numpy as np
import sigpy as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from hggdp_plugin import HGGDPRecon, interop
from hggdp_plugin.linops import flips
from hggdp_plugin.prior import ScorePrior, denoised
from hggdp_plugin.prox import L2DataConsistency
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation.coils import coil_maps
from hggdp_plugin.simulation.masks import Mask, grid_spokes, random_points
from hggdp_plugin.training.batches import BatchSource

#: Range of the accelerations of the simulated measurements, log-uniform.
ACCELERATIONS = (2.5, 12.0)
#: Range of the fully sampled centre, relative to the matrix, and of the power of the density of random samples.
CALIBRATIONS, POWERS = (0.02, 0.06), (0.0, 5.0)
#: Numbers of coils, all equally likely.
COILS = (1, 1, 4, 8)
#: Range of the noise of several coils, per real channel, of images whose maximum is about 1; log-uniform.
NOISES = (1e-3, 2e-2)
#: Range of the first noise level of every other reconstruction, log-uniform, and from where on it may begin at noise.
STARTS, NOISE_FROM = (0.05, 1.0), 0.3


class Reconstructions:
    r"""Simulated reconstructions at all stages, one of which goes a step further at each call, with the network.

    The denoiser of a sampler meets what the data leave open and what itself did in the steps before: not the white
    noise of its training. Here it is trained on that, by

    .. math:: \| C(D(x, \sigma)) - r \|^2 \, / \, \| x - r \|^2

    with the image x of a step, its noise level :math:`\sigma`, the data consistency C and the reference r: the part of
    the error, large or small, that the step leaves. The reconstructions are those of :class:`hggdp_plugin.HGGDPRecon`,
    with its scale and data consistency; half of them have its schedule, half one that starts at another level.

    There are as many as a schedule has levels, N. Call n is for number i = n mod N, which is at level
    (i + n // N) mod N then, so that all levels, images and measurements take turns. All randomness follows from n.

    Args:
        network (Module): A network of one view, as described in :mod:`hggdp_plugin.models`.
        source (BatchSource): Images; they are taken whole.
        seed (tuple of ints): Seed of all randomness.
        levels (int): Levels of all schedules.
    """

    def __init__(
        self, network: Any, source: BatchSource, seed: tuple[int, ...], levels: int = len(NoiseSchedule.fast())
    ) -> None:
        self.network, self.source, self.seed, self.levels = network, source, seed, levels
        self.running: dict[int, Reconstruction] = {}
        self.stored: dict[int, tuple[Tensor | None, ...]] = {}

    def loss(self, call: int) -> Tensor:
        """Let a reconstruction go a step further, and return the loss of the step's denoised image, a scalar."""
        total = self.levels
        slot = call % total
        life, level = divmod(slot + call // total, total)
        if level == 0 or slot not in self.running:
            self.running[slot] = self._begun(life * total + slot, level, self.stored.pop(slot, None))
        loss = self.running[slot].learn()
        if not loss.isfinite():  # it has diverged; the next call begins it anew
            del self.running[slot]
            return torch.zeros_like(loss)
        return loss

    def _begun(self, number: int, level: int, stored: tuple[Tensor | None, ...] | None) -> "Reconstruction":
        """A reconstruction before its step number ``level``."""
        seed = (*self.seed, number)
        generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**62)))
        image = self.source.whole(generator)[0]
        while not image.any():  # a zoom can leave all that there was outside
            image = self.source.whole(generator)[0]
        schedule = random_schedule(self.levels, np.random.default_rng(seed).spawn(1)[0])
        begun = Reconstruction(self.network, image, seed, schedule)
        if level and stored:
            begun.go_on(level, stored)
        else:  # at the start of a training: after that, all begin at level 0
            for _ in range(level):
                begun.step()
            torch.clear_autocast_cache()  # weights that were cast without gradients would have none
        return begun

    def state(self) -> dict[int, tuple[Tensor | None, ...]]:
        """What to store so that others can go on."""
        return {**self.stored, **{slot: running.images() for slot, running in self.running.items()}}


class Reconstruction:
    """The reconstruction of a random measurement of an image.

    Args:
        network (Module): A network of one view.
        image (Tensor): Real (2, H, W), on the network's device.
        seed (tuple of ints): Decides the measurement, and the sampler's noise.
        schedule (None or NoiseSchedule): :meth:`NoiseSchedule.fast`, with any arguments; None: its defaults.
    """

    def __init__(
        self, network: Any, image: Tensor, seed: tuple[int, ...], schedule: NoiseSchedule | None = None
    ) -> None:
        self.network, self.seed, self.place = network, seed, image.device
        clean = image.permute(1, 2, 0).cpu().contiguous().numpy().view(np.complex64)[..., 0]
        y, mps = measured(clean, np.random.default_rng(seed))
        # SigPy works where the network is if it can.
        device = sp.Device(self.place.index if self.place.type == "cuda" and sp.config.cupy_enabled else -1)
        training = network.training
        # All coils at a time: a number that depended on the free memory would round differently at every start.
        options: dict[str, Any] = {"device": device, "coil_batch_size": len(y), "schedule": schedule}
        app = HGGDPRecon(y, mps, prior=ScorePrior(network), show_pbar=False, **options)
        network.train(training)  # which a prior is not in
        self.alg: Any = app.alg
        self.device = app.device
        self.alg.denoise = self._denoise
        self.orientations = flips(clean.shape)
        with self.device:
            self.reference = sp.to_device(clean, self.device) / app.problem.scale
        self.loss: Tensor | None = None

    def learn(self) -> Tensor:
        """Go a step further, and return the loss of its denoised image, a scalar."""
        with torch.enable_grad():
            self._step()
        loss, self.loss = self.loss, None  # which holds on to all that gradients need
        assert loss is not None
        return loss

    @torch.no_grad()
    def step(self) -> None:
        """Go a step further."""
        self._step()

    def _step(self) -> None:
        # Noise that follows from the step, so that nobody needs to store a generator.
        self.rng = np.random.default_rng((*self.seed, self.alg.iter + 1))
        with self.device:
            self.alg.rng = self.device.xp.random.default_rng(int(self.rng.integers(2**62)))
        training = self.network.training
        self.network.eval()  # as in use: the phase is taken out of the image by the network
        with interop.current_stream(self.device):
            self.alg.update()
        self.network.train(training)

    def psnr(self) -> float:
        """Go on to the end, and compare the magnitude with the reference (dB)."""
        while not self.alg.done():
            self.step()
        with self.device:
            error = ((abs(self.alg.x) - abs(self.reference)) ** 2).mean()
            return float(-10 * np.log10(error / (abs(self.reference) ** 2).max()))

    def images(self) -> tuple[Tensor | None, ...]:
        """Copies of the current image and, if there is one, the latest denoised one, on the CPU."""
        images = (self.alg.x, self.alg.denoised)
        return tuple(None if image is None else interop.to_torch(image).to("cpu", copy=True) for image in images)

    def go_on(self, level: int, images: tuple[Tensor | None, ...]) -> None:
        """Take the place of another that had these :meth:`images` before its step number ``level``."""
        self.alg.iter = level
        self.alg.x, self.alg.denoised = (
            None if image is None else sp.to_device(image.numpy(), self.device) for image in images
        )

    def _denoise(self, x: Any, sigma: float) -> Any:
        turn = self.orientations[self.rng.integers(len(self.orientations))]
        # A copy: the sampler goes on in the memory of its image, which the gradient may need.
        noisy = interop.to_torch(turn(x)).to(self.place, copy=True)[None, None]
        result = denoised(self.network.forward, self.network.stride, noisy, sigma)[0, 0]
        if torch.is_grad_enabled():
            alpha = self.alg.schedule.rule.eps * sigma**2
            consistent = Consistent.apply(result, turn, self.alg.prox, alpha)
            error, before = (
                (image - interop.to_torch(self.reference)).abs().square().mean()
                for image in (consistent, interop.to_torch(x))
            )
            self.loss = (error / before).to(self.place)
        return turn.H(as_array(result, self.device))


class Consistent(torch.autograd.Function):
    """Turn an image back and make it consistent with the data, as the sampler does, but with a gradient."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, turn: sp.linop.Linop, prox: L2DataConsistency, alpha: float) -> Tensor:
        """The consistent image, where SigPy works."""
        ctx.turn, ctx.prox, ctx.alpha, ctx.place = turn, prox, alpha, image.device
        return interop.to_torch(prox(alpha, turn.H(as_array(image, prox.device))))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The adjoint, which is the operator itself without data: a polynomial in A^H A or its inverse."""
        back = ctx.prox.linear(ctx.alpha, as_array(gradients[0], ctx.prox.device))
        return interop.to_torch(ctx.turn(back)).to(ctx.place), None, None, None


def as_array(tensor: Tensor, device: sp.Device) -> Any:
    """An array where SigPy works of a tensor where the network works: the same device, or the CPU."""
    return interop.to_array(tensor if device.id >= 0 else tensor.detach().cpu())


def random_schedule(levels: int, rng: np.random.Generator) -> NoiseSchedule:
    """The default schedule or, every other time, one that starts at another level, from the data or from noise.

    A network that has seen one start only is lost at another (docs/training.md).
    """
    if rng.integers(2):
        return NoiseSchedule.fast(levels)
    start = log_uniform(rng, STARTS)
    from_data = start < NOISE_FROM or bool(rng.integers(2))
    return replace(NoiseSchedule.fast(levels, sigma_max=start), from_data=from_data)


def measured(image: NDArray[np.complex64], rng: np.random.Generator) -> tuple[NDArray, NDArray | None]:
    """A random measurement of an image of maximum 1: k-space (coils, H, W) and sensitivity maps, None for one coil."""
    coils = int(rng.choice(COILS))
    mps = coil_maps(coils, image.shape) if coils > 1 else None
    y = sp.fft(image * (np.ones((1, 1, 1), np.complex64) if mps is None else mps), axes=(-2, -1))
    if mps is not None:
        std = np.float32(log_uniform(rng, NOISES))
        y += std * (rng.standard_normal((*y.shape, 2), np.float32)).view(np.complex64)[..., 0]
    return y * random_mask(image.shape, rng), mps


def random_mask(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """A random mask of lines, of points, or of spokes on the grid, all equally likely."""
    accel = log_uniform(rng, ACCELERATIONS)
    kind, seed = rng.integers(3), int(rng.integers(2**32))
    if kind == 0:
        return grid_spokes(shape, max(round(min(shape) / accel), 1), golden=bool(rng.integers(2)))
    axes = shape if kind == 1 else shape[:1]
    calib, power = max(round(rng.uniform(*CALIBRATIONS) * min(axes)), 1), rng.uniform(*POWERS)
    mask = random_points(axes, accel, calib, power, seed)
    return mask if kind == 1 else np.broadcast_to(mask[:, None], shape)


def log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """A number between two, uniform in its logarithm."""
    low, high = ends
    return low * (high / low) ** rng.uniform()

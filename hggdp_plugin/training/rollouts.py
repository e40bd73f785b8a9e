"""Training on rollouts: simulated reconstructions whose images are not clean images with white noise."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sigpy as sp
import torch
from torch import Tensor

from hggdp_plugin import interop
from hggdp_plugin._typing import Array
from hggdp_plugin.alg import AnnealedLangevin
from hggdp_plugin.linops import flips
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.prior import denoise_padded
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.prox import DataConsistency
from hggdp_plugin.random import complex_normal, device_generator
from hggdp_plugin.sampling import start_image
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation.coils import coil_maps
from hggdp_plugin.simulation.masks import Mask, grid_spokes, random_points
from hggdp_plugin.training.batches import BatchSource

#: Range of the accelerations of the simulated measurements, log-uniform.
ACCELERATIONS = (2.5, 12.0)
#: Range of the width of the fully sampled center, relative to the matrix.
CALIBRATION_WIDTHS = (0.02, 0.06)
#: Range of the power by which the density of random samples falls off.
DENSITY_POWERS = (0.0, 5.0)
#: Numbers of coils, all equally likely.
COILS = (1, 1, 4, 8)
#: Range of the noise of several coils, per real channel, of images whose maximum is about 1; log-uniform.
NOISE_STDS = (1e-3, 2e-2)
#: Range of the first noise level of every other rollout, log-uniform.
START_SIGMAS = (0.05, 1.0)
#: First noise level from which a rollout may start at noise.
MIN_SIGMA_FROM_NOISE = 0.3
#: Levels of the default schedule.
DEFAULT_LEVELS = len(NoiseSchedule.fast())

#: Images (B, H, W) on the CPU: the current ones, and the latest denoised ones if there are any.
State = tuple[Tensor, Tensor | None]
ScheduleDraw = Callable[[tuple[int, ...], np.random.Generator], NoiseSchedule]


def random_schedule(levels: tuple[int, ...], rng: np.random.Generator) -> NoiseSchedule:
    """Draw a schedule: the default or, every other time, one that starts at another level, from the data or from noise.

    A network that has seen only one start fails at others (docs/training.md).

    Args:
        levels (tuple of int): Numbers of levels, all equally likely.
        rng (Generator): NumPy random generator.

    Returns:
        NoiseSchedule: The schedule.
    """
    n = levels[0] if len(levels) == 1 else int(rng.choice(levels))
    if rng.integers(2):
        return NoiseSchedule.fast(n)
    sigma = log_uniform(rng, START_SIGMAS)
    from_data = sigma < MIN_SIGMA_FROM_NOISE or bool(rng.integers(2))
    return NoiseSchedule.fast(n, sigma_max=sigma, from_data=from_data)


@dataclass
class _Slot:
    """Rollouts one after the other: the present one, its number, and the visit of the slot at which it started."""

    schedule: NoiseSchedule
    generation: int = 0
    first_visit: int = 0
    rollout: "Rollout | None" = None


class RolloutPool:
    r"""Rollouts at all stages, one of which makes a step with the network at each call, and trains it.

    During sampling the input error is not white Gaussian noise: it contains aliasing and the denoiser's own earlier
    errors. Here the denoiser is trained on such images, by

    .. math:: \| C(D(x, \sigma)) - r \|^2 \, / \, \| x - r \|^2

    with the image x of a step, its noise level :math:`\sigma`, the data consistency C and the reference r: the part of
    the error, large or small, that remains after the step. A rollout is a batch of reconstructions as
    :class:`hggdp_plugin.HGGDPRecon` makes them, with its scale and data consistency.

    There are N slots, as many as the longest schedule has levels. Call n is for slot i = n mod N, which is visited for
    the (n // N)-th time. Slot i starts i levels ahead of the others, so that all levels, images and measurements take
    turns; the rollouts of a slot follow each other, whatever the lengths of their schedules. All randomness follows
    from n and the seed.

    Args:
        denoiser (Denoiser): Denoiser of a network of one view. Make it ``eager`` if ``batch`` is 1 and the network is
            compiled: images are of many sizes then.
        source (BatchSource): Images: whole ones for a batch of 1, otherwise random crops.
        seed (tuple of int): Seed of all randomness.
        levels (tuple of int): Numbers of levels that ``draw_schedule`` may choose from.
        batch (int): Images of a rollout. They share schedule and coil maps; each has its own mask and noise.
        crop (None or int): Height and width of the crops of a batch; None: those of ``source``.
        draw_schedule (function): ``(levels, rng) -> NoiseSchedule``, whose rule is a FewStep, for a new rollout.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        source: BatchSource,
        seed: tuple[int, ...],
        *,
        levels: tuple[int, ...] = (DEFAULT_LEVELS,),
        batch: int = 1,
        crop: int | None = None,
        draw_schedule: ScheduleDraw = random_schedule,
    ) -> None:
        self.denoiser, self.seed, self.levels, self.batch = denoiser, seed, levels, batch
        self.source = source if crop is None or batch == 1 else source.with_crop(crop)
        self.draw_schedule = draw_schedule
        self.n_slots = max(levels)
        self.slots = [_Slot(self._draw_schedule(index, 0)) for index in range(self.n_slots)]
        #: States to restore when their slots are visited next.
        self.stored: dict[int, State] = {}

    def training_step(self, call: int) -> Tensor:
        """Let a rollout make a step.

        Args:
            call (int): Number of this call. A pool that replaces another continues its numbers, see :meth:`state`.

        Returns:
            Tensor: The loss of the denoised images, a scalar; 0, without gradient, if the rollout has diverged. Then it
            starts again at the next visit.
        """
        visit, index = divmod(call, self.n_slots)
        slot, level = self._find_level(index, index + visit)
        if level == 0 or slot.rollout is None:
            slot.rollout = self._begin(index, slot, level)
        loss = slot.rollout.training_step()
        if not loss.isfinite():
            slot.rollout = None
            return torch.zeros_like(loss)
        return loss

    def state(self) -> dict[int, State]:
        """Return what another pool needs as ``stored`` to continue with the same rollouts."""
        running = {i: slot.rollout.state() for i, slot in enumerate(self.slots) if slot.rollout is not None}
        return {**self.stored, **running}

    def _find_level(self, index: int, visit: int) -> tuple[_Slot, int]:
        """Return a slot, advanced to the rollout of a visit, and the level of this rollout."""
        slot = self.slots[index]
        if visit < slot.first_visit:
            slot = self.slots[index] = _Slot(self._draw_schedule(index, 0))
        while visit >= slot.first_visit + len(slot.schedule):
            slot.first_visit += len(slot.schedule)
            slot.generation += 1
            slot.schedule, slot.rollout = self._draw_schedule(index, slot.generation), None
        return slot, visit - slot.first_visit

    def _rollout_seed(self, index: int, generation: int) -> tuple[int, ...]:
        return (*self.seed, generation * self.n_slots + index)

    def _draw_schedule(self, index: int, generation: int) -> NoiseSchedule:
        rng = np.random.default_rng(self._rollout_seed(index, generation)).spawn(1)[0]
        return self.draw_schedule(self.levels, rng)

    def _begin(self, index: int, slot: _Slot, level: int) -> "Rollout":
        """Return the rollout of a slot before its step number ``level``."""
        seed = self._rollout_seed(index, slot.generation)
        rollout = Rollout(self.denoiser, self._draw_images(seed), seed, slot.schedule)
        stored = self.stored.pop(index, None)
        if level and stored:
            rollout.restore(level, stored)
        else:  # at the start of a training; later, all start at level 0
            for _ in range(level):
                rollout.step()
            torch.clear_autocast_cache()  # weights that were cast without gradients would have none
        return rollout

    def _draw_images(self, seed: tuple[int, ...]) -> Tensor:
        """Draw clean images (B, 2, H, W), none of which is empty: zooms and crops may miss all of an image."""
        generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**62)))

        def draw() -> Tensor:
            return self.source.whole(generator) if self.batch == 1 else self.source.draw(self.batch, generator)

        images = draw()
        while not (nonempty := images.flatten(1).any(1)).all():
            images = torch.where(nonempty[:, None, None, None], images, draw()) if self.batch > 1 else draw()
        return images


class Rollout:
    """Reconstructions of random measurements of a batch of images, step by step, all with the same schedule.

    Args:
        denoiser (Denoiser): Denoiser of a network of one view.
        images (Tensor): Clean images, real (B, 2, H, W), on the network's device.
        seed (tuple of int): Determines the measurements and the noise of the sampler.
        schedule (None or NoiseSchedule): :meth:`NoiseSchedule.fast`, with any arguments; None: its defaults.
    """

    def __init__(
        self, denoiser: Denoiser, images: Tensor, seed: tuple[int, ...], schedule: NoiseSchedule | None = None
    ) -> None:
        self._loss: Tensor | None = None
        self._place(denoiser, seed, images.device)
        with self.device, interop.current_stream(self.device):
            clean = to_array(torch.complex(images[:, 0], images[:, 1]), self.device)
            rng = np.random.default_rng(seed)
            y, mps, mask = simulate_measurements(clean, rng)
            # All coils at a time: a number that depends on the free memory would change the rounding at every start.
            problem = SenseProblem.build(y, mps, weights=mask, device=self.device, coil_batch_size=y.shape[-3])
            self.reference = clean / problem.scale
            self._begin(problem, schedule or NoiseSchedule.fast(), rng)

    def training_step(self) -> Tensor:
        """Make a step, and return the loss of its denoised images, a scalar."""
        with torch.enable_grad():
            self._step()
        loss, self._loss = self._loss, None  # which keeps all that gradients need
        assert loss is not None
        return loss

    @torch.no_grad()
    def step(self) -> None:
        """Make a step."""
        self._step()

    def psnr(self) -> float:
        """Run to the end, and return the mean PSNR (dB) of the magnitude images."""
        while not self.alg.done():
            self.step()
        with self.device:
            error = ((abs(self.alg.x) - abs(self.reference)) ** 2).mean(axis=(-2, -1))
            psnr = -10 * np.log10(sp.to_device(error / (abs(self.reference) ** 2).max(axis=(-2, -1))))
        return float(psnr.mean())

    def state(self) -> State:
        """Return copies of the current images and, if there are any, the latest denoised ones, on the CPU."""
        denoised = self.alg.denoised
        return _to_cpu(self.alg.x), None if denoised is None else _to_cpu(denoised)

    def restore(self, level: int, state: State) -> None:
        """Restore the state saved by :meth:`state` before step number ``level``."""
        x, denoised = state
        self.alg.iter = level
        self.alg.x = sp.to_device(x.numpy(), self.device)
        self.alg.denoised = None if denoised is None else sp.to_device(denoised.numpy(), self.device)

    def _place(self, denoiser: Denoiser, seed: tuple[int, ...], torch_device: torch.device) -> None:
        self.denoiser, self.seed, self.torch_device = denoiser, seed, torch_device
        # SigPy computes where the network does, if it can.
        on_gpu = torch_device.type == "cuda" and sp.config.cupy_enabled
        self.device = sp.Device(torch_device.index or 0 if on_gpu else -1)

    def _begin(self, problem: SenseProblem, schedule: NoiseSchedule, rng: np.random.Generator) -> None:
        """Prepare the sampler, on the present device."""
        self.consistency = problem.consistency()
        generator = device_generator(int(rng.integers(2**62)), self.device)
        start = start_image(problem.start, schedule, generator)
        self.orientations = flips(start.shape)
        self.alg = AnnealedLangevin(self._denoise, self.consistency, start, schedule, generator)
        self._orientation = self.orientations[0]
        self._loss = None

    def _error(self, images: Tensor) -> Tensor:
        """Return the mean squared error (B,) of images (B, H, W)."""
        return _mean_square(images - interop.to_torch(self.reference))

    def _step(self) -> None:
        # Noise that follows from the number of the step, so that no state of a generator needs to be stored.
        rng = np.random.default_rng((*self.seed, self.alg.iter + 1))
        self.alg.rng = device_generator(int(rng.integers(2**62)), self.device)
        self._orientation = self.orientations[rng.integers(len(self.orientations))]
        with interop.current_stream(self.device):
            self.alg.update()

    def _denoise(self, x: Array, sigma: float) -> Array:
        T = self._orientation
        # A copy: the sampler continues in the memory of its image, which the gradient may need.
        noisy = interop.to_torch(T(x)).to(self.torch_device, copy=True)[:, None]
        denoised = denoise_padded(self.denoiser, noisy, sigma)[:, 0]
        if torch.is_grad_enabled():
            alpha = self.alg.schedule.rule.eps * sigma**2
            consistent = DataConsistencyFunction.apply(denoised, T, self.consistency, alpha)
            after, before = (self._error(image) for image in (consistent, interop.to_torch(x)))
            self._loss = (after / before).mean().to(self.torch_device)
        return T.H(to_array(denoised, self.device))


class DataConsistencyFunction(torch.autograd.Function):
    """Undo a flip and apply data consistency, as the sampler does, but with a gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, T: sp.linop.Linop, consistency: DataConsistency, alpha: float) -> Tensor:
        """Return the consistent images (B, H, W), where SigPy computes."""
        ctx.T, ctx.consistency, ctx.alpha, ctx.torch_device = T, consistency, alpha, images.device
        return interop.to_torch(consistency(alpha, T.H(to_array(images, consistency.device))))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Apply the adjoint: the linear part of the data consistency is self-adjoint."""
        consistency: DataConsistency = ctx.consistency
        with interop.current_stream(consistency.device):
            back = consistency.linear(ctx.alpha, to_array(gradients[0], consistency.device))
            return interop.to_torch(ctx.T(back)).to(ctx.torch_device), None, None, None


def to_array(tensor: Tensor, device: sp.Device) -> Array:
    """Return a tensor as an array where SigPy computes: the same device, or the CPU."""
    return interop.to_array(tensor if device.id >= 0 else tensor.detach().cpu())


def simulate_measurements(images: Array, rng: np.random.Generator) -> tuple[Array, Array | None, Array]:
    """Simulate random measurements of images of maximum 1, on their device.

    Args:
        images (array): Complex (B, H, W).
        rng (Generator): NumPy random generator, on which everything depends.

    Returns:
        tuple: k-space (B, coils, H, W), zero where not sampled; coil sensitivity maps (coils, H, W), which all images
        share, or None for one coil; and the masks, float32 (B, 1, H, W).
    """
    device, (batch, *shape) = sp.get_device(images), images.shape
    coils = int(rng.choice(COILS))
    with device:
        xp = device.xp
        mps = _coil_maps(coils, (shape[0], shape[1]), device.id) if coils > 1 else None
        y = sp.fft(images[:, None] * (np.complex64(1) if mps is None else mps), axes=(-2, -1))
        if mps is not None:
            std = xp.asarray([log_uniform(rng, NOISE_STDS) for _ in range(batch)], xp.float32)
            y += std[:, None, None, None] * complex_normal(device_generator(int(rng.integers(2**62)), device), y.shape)
        masks = np.stack([random_mask((shape[0], shape[1]), rng) for _ in range(batch)])[:, None]
        mask = sp.to_device(masks.astype(np.float32), device)
        return y * mask, mps, mask


def random_mask(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """Draw a mask of lines, of points, or of spokes on the grid, all equally likely.

    Args:
        shape (tuple of int): Matrix size (H, W).
        rng (Generator): NumPy random generator.

    Returns:
        array: bool (H, W).
    """
    accel = log_uniform(rng, ACCELERATIONS)
    kind, seed = rng.integers(3), int(rng.integers(2**32))
    if kind == 0:
        return grid_spokes(shape, max(round(min(shape) / accel), 1), golden=bool(rng.integers(2)))
    axes = shape if kind == 1 else shape[:1]
    calib, power = max(round(rng.uniform(*CALIBRATION_WIDTHS) * min(axes)), 1), rng.uniform(*DENSITY_POWERS)
    mask = random_points(axes, accel, calib, power, seed)
    return mask if kind == 1 else np.broadcast_to(mask[:, None], shape)


def log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Draw a number between two, uniform in its logarithm."""
    low, high = ends
    return low * (high / low) ** rng.uniform()


@lru_cache(maxsize=8)
def _coil_maps(coils: int, shape: tuple[int, int], device_id: int) -> Array:
    """Return simulated maps on a device; they take longer than a step, and are the same every time."""
    return sp.to_device(coil_maps(coils, shape), sp.Device(device_id))


def _to_cpu(images: Array) -> Tensor:
    """Return a copy on the CPU."""
    return interop.to_torch(images).to("cpu", copy=True)


def _mean_square(images: Tensor) -> Tensor:
    """Return the mean square (B,) of each image (B, H, W)."""
    return images.abs().square().flatten(1).mean(1)

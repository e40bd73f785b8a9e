"""A prior adapted to one's own undersampled scans, from samples that were held out of their reconstructions."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import sigpy as sp
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hggdp_plugin import interop
from hggdp_plugin.hold_out import hold_out
from hggdp_plugin.linops import Sense
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.network import ScoreNetwork
from hggdp_plugin.prior import ScorePrior, has_bfloat16
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.selfcheck import SelfCheck, SliceData, choose_prior
from hggdp_plugin.training.rollouts import Rollout, to_array

#: Part of the samples outside the calibration region that a rollout is judged on instead of made of.
LOSS_FRACTION = 0.4
#: Numbers of levels of the schedules of rollouts, all equally likely.
LEVELS = (8, 12, 25)
#: Rollouts at different stages, which take turns at random.
N_ROLLOUTS = 8
#: Levels of the reconstructions that a prior is judged on.
JUDGED_LEVELS = 12
#: Share of the past in the average of the weights.
AVERAGING = 0.98


def without_judged(data: SliceData, seed: int) -> SliceData:
    """Return a slice without the samples that :func:`judge` holds out.

    Args:
        data (SliceData): The slice.
        seed (int): Seed of the choice, as given to :func:`judge`.
    """
    return data._replace(weights=hold_out(data.y, data.weights, data.coord, seed).kept)


def judge(
    priors: dict[str, ScorePrior], slices: Sequence[SliceData], seed: int = 0, *, device: sp.Device = sp.cpu_device
) -> dict[str, SelfCheck]:
    """Reconstruct without a few per cent of the samples, and predict these.

    Args:
        priors (dict): Priors by name.
        slices (sequence of SliceData): Complete slices.
        seed (int): Seed of the choice of the samples.
        device (Device): Where to compute.

    Returns:
        dict: The check of each prior, whose arrays have one number per slice, see
        :class:`hggdp_plugin.selfcheck.SelfCheck`.
    """
    checks = [choose_prior(*s, priors=priors, levels=JUDGED_LEVELS, seed=seed, device=device)[1] for s in slices]
    return {name: SelfCheck.stack([check[name] for check in checks]) for name in priors}


def adapt(
    network: ScoreNetwork,
    slices: Sequence[SliceData],
    *,
    steps: int = 200,
    learning_rate: float = 1e-4,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> ScoreNetwork:
    r"""Adapt a network to undersampled slices, of which nothing else is known.

    A slice is reconstructed from a random part :math:`\Lambda` of its samples, as :class:`hggdp_plugin.HGGDPRecon`
    does. At each step the network is trained to predict the others, :math:`\Theta`, as far as it can after data
    consistency C:

    .. math:: \| A_\Theta C(D(x, \sigma)) - y_\Theta \|^2 \, / \, \| A_\Theta x - y_\Theta \|^2

    The noise of the others is independent of the image, so that on average a prediction is best if it is the right
    image.

    Args:
        network (ScoreNetwork): The network to start from, of one view. It is not changed.
        slices (sequence of SliceData): Slices to learn from.
        steps (int): Training steps.
        learning_rate (float): Peak learning rate of AdamW.
        seed (int): Seed of all randomness.
        device (device): Where to train.
        on_step (None or function): Called with the number of the step, from 1, and its loss.

    Returns:
        ScoreNetwork: The adapted network, on the CPU, with averaged weights.

    Raises:
        ValueError: There are no slices, or the network has several views.

    References:
        Yaman, B., et al. (2020). Self-supervised learning of physics-guided reconstruction neural networks without
        fully sampled reference data. Magnetic Resonance in Medicine, 84(6), 3172-3191.
    """
    if not slices:
        raise ValueError("slices: expected at least one")
    if network.views != 1:
        raise ValueError(f"network: expected one of a single view, got {network.views} views")
    device = torch.device(device)
    trained = copy.deepcopy(network).to(device).train()
    average: Any = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    optimizer = torch.optim.AdamW(trained.parameters(), lr=learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _course(step, steps))
    rollouts = _rollouts(Denoiser(trained, eager=True), slices, seed, device)
    for step in range(1, steps + 1):
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            loss = next(rollouts).training_step()
        if loss.isfinite():
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(trained)
        scheduler.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
    return average.module.cpu().eval()


class MeasuredRollout(Rollout):
    """A reconstruction of a measured slice, step by step, from a part of its samples; the others are its reference.

    Args:
        denoiser (Denoiser): Denoiser of a network of one view.
        data (SliceData): The slice.
        seed (tuple of int): Determines the split and the noise of the sampler.
        schedule (NoiseSchedule): A fast schedule.
        device (device): Where the network is.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        data: SliceData,
        seed: tuple[int, ...],
        schedule: NoiseSchedule,
        device: torch.device,
    ) -> None:
        self._place(denoiser, seed, device)
        rng = np.random.default_rng(seed)
        with self.device, interop.current_stream(self.device):
            y = sp.to_device(data.y, self.device)
            mps = self.device.xp.ones((1, *y.shape[-2:]), np.complex64) if data.mps is None else data.mps
            mps = sp.to_device(mps, self.device)
            split = hold_out(y, data.weights, data.coord, int(rng.integers(2**62)), LOSS_FRACTION)
            problem = SenseProblem.build(
                y[None], mps, data.noise_var, split.kept, data.coord, device=self.device, coil_batch_size=len(mps)
            )
            self.A = Sense(mps, (1,), split.coord)
            self.y = split.y[None] / problem.scale.reshape(1, *[1] * split.y.ndim)
            self.valid = sp.to_device(split.valid, self.device)
            self._begin(problem, schedule, rng)

    def _error(self, images: Tensor) -> Tensor:
        return HeldOutError.apply(images, self)


class HeldOutError(torch.autograd.Function):
    """Mean squared error (B,) of the prediction of held-out samples by images (B, H, W), with a gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, rollout: MeasuredRollout) -> Tensor:
        """Return the error, where SigPy computes."""
        with rollout.device:
            residual = (rollout.A(to_array(images, rollout.device)) - rollout.y) * rollout.valid
            n = max(residual.shape[1] * int(rollout.valid.sum()), 1)
            error = (abs(residual) ** 2).sum(axis=tuple(range(1, residual.ndim))) / n
        ctx.rollout, ctx.residual, ctx.n, ctx.torch_device = rollout, residual, n, images.device
        return interop.to_torch(error).to(images.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Apply the adjoint."""
        rollout = ctx.rollout
        with rollout.device, interop.current_stream(rollout.device):
            back = interop.to_torch(rollout.A.H(ctx.residual)).to(ctx.torch_device)
        return 2 / ctx.n * gradients[0][:, None, None] * back, None


def _rollouts(
    denoiser: Denoiser, slices: Sequence[SliceData], seed: int, device: torch.device
) -> Iterator[MeasuredRollout]:
    """Yield the rollout that makes the next step."""
    rng = np.random.default_rng(seed)
    running: list[MeasuredRollout | None] = [None] * N_ROLLOUTS
    order: list[int] = []
    while True:
        index = int(rng.integers(N_ROLLOUTS))
        rollout = running[index]
        if rollout is None or rollout.alg.done() or not np.isfinite(rollout.alg.x).all():
            order = order or rng.permutation(len(slices)).tolist()
            draw = seed, int(rng.integers(2**31))
            schedule = NoiseSchedule.fast(int(rng.choice(LEVELS)))
            rollout = running[index] = MeasuredRollout(denoiser, slices[order.pop()], draw, schedule, device)
        yield rollout


def _course(step: int, steps: int) -> float:
    """Return the learning rate relative to its peak: a tenth of the steps rising, then a cosine to zero."""
    return min(1.0, (step + 1) / max(0.1 * steps, 1)) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

"""The noise schedule: which noise levels the sampler visits, and how it moves at each."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NoiseSchedule:
    r"""Noise levels and step rule of :class:`hggdp_plugin.alg.AnnealedLangevin` and ``HGGDPSampler``.

    Noise levels are standard deviations per real channel, of images whose maximum magnitude is about 1.

    Attributes:
        sigmas: Noise levels :math:`\sigma_k`, in the order of sampling: large to small.
        steps: Updates per level.
        eps: Step size :math:`\epsilon`, relative to :math:`\sigma_k^2`. 1 moves all the way to the denoised image.
        eta: Noise added before the denoiser, relative to :math:`\sigma_k`.
        langevin: Whether to add the noise :math:`\sqrt{2 \epsilon} \sigma_k` of Langevin dynamics after the step.
        momentum: Weight of the change of the denoised image since the update before.
        turn: Show the image to the denoiser flipped and turned, at random, anew at every update: what it prefers along
            one axis does not add up.
        from_data: Start at the least-squares image rather than at uniform noise.
        published: Sample by :class:`hggdp_plugin.alg.HGGDPSampler`, with the noise of a step where its score is
            taken and nowhere else.
        published_noise: ``published`` to the letter, its quirks included, for published results.
        noises: Noises of which ``published`` averages the scores in an update.

    References:
        Song, Y., & Ermon, S. (2019). Generative modeling by estimating gradients of the data distribution. NeurIPS 32.
    """

    sigmas: tuple[float, ...]
    steps: int = 1
    eps: float = 1.0
    eta: float = 0.0
    langevin: bool = False
    momentum: float = 0.0
    turn: bool = False
    from_data: bool = True
    published: bool = False
    published_noise: bool = False
    noises: int = 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: No levels, a level or step size that is not positive, no steps, negative noise, or options that
                do not go together.
        """
        if not self.sigmas or not all(0 < sigma < float("inf") for sigma in self.sigmas):
            raise ValueError(f"sigmas: need at least one noise level, all positive; got {self.sigmas}")
        if self.steps < 1:
            raise ValueError(f"steps: need at least one step per level; got {self.steps}")
        if not 0 < self.eps < float("inf"):
            raise ValueError(f"eps: expected a positive step size; got {self.eps}")
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"eta: expected a noise of 0 or more; got {self.eta}")
        if self.noises < 1 or (self.noises > 1 and not self.published):
            raise ValueError(f"noises: expected 1, or more with published; got {self.noises}")
        if self.published_noise and not self.published:
            raise ValueError("published_noise: goes with published")
        if self.published and (self.langevin or self.eta or self.momentum or self.turn):
            raise ValueError("published: does not go with langevin, eta, momentum or turn")

    def __len__(self) -> int:
        """Number of updates."""
        return len(self.sigmas) * self.steps

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the network."""
        return len(self) * self.noises

    def sigma(self, iteration: int) -> float:
        """Noise level of an update, counted from 0."""
        return self.sigmas[iteration // self.steps]

    @classmethod
    def hggdp(
        cls, levels: int = 10, steps: int = 80, published_noise: bool = False, noises: int = 1
    ) -> "NoiseSchedule":
        """The published sampler: 10 geometric levels from 1 to 0.01, 80 steps each, from uniform noise.

        Args:
            levels (int): Noise levels.
            steps (int): Steps per level.
            published_noise (bool): To the letter, to reproduce published results: with uniform instead of normal noise,
                which the score sees without this step's data consistency, and for Cartesian data only.
            noises (int): Noises whose scores are averaged in a step; 3 is the published variant.

        References:
            Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
            IEEE TMI, 40(12), 3265-3278.
        """
        return cls(
            geometric(1.0, 0.01, levels),
            steps,
            eps=0.015,
            from_data=False,
            published=True,
            published_noise=published_noise,
            noises=noises,
        )

    @classmethod
    def fast(
        cls,
        levels: int = 25,
        sigma_max: float = 0.1,
        sigma_min: float = 0.005,
        eta: float = 0.1,
        momentum: float = 0.6,
        turn: bool = True,
    ) -> "NoiseSchedule":
        """One step per level, from the least-squares image; benchmarks/steps.py tells why these values."""
        return cls(geometric(sigma_max, sigma_min, levels), eta=eta, momentum=momentum, turn=turn)


def geometric(first: float, last: float, levels: int) -> tuple[float, ...]:
    """Noise levels in geometric progression, ends included."""
    return tuple(float(s) for s in np.geomspace(first, last, levels))

"""The noise schedule: the noise levels that a sampler visits, and the rule for a step at each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hggdp_plugin._deprecation import renamed_arguments, warn_deprecated


class StepRule:
    r"""What a sampler does at a noise level. Each subclass says which of these attributes its sampler uses.

    Attributes:
        eps (float): Step size :math:`\epsilon`, relative to :math:`\sigma_k^2`; 1 goes all the way to the denoised
            image.
        eta (float): Standard deviation of the noise added before the denoiser, relative to :math:`\sigma_k`.
        momentum (float): Weight of the change of the denoised image since the previous step.
        random_flips (bool): Denoise a randomly flipped or transposed image, so that directional bias averages out.
        langevin_noise (bool): Add the noise :math:`\sqrt{2 \epsilon} \sigma_k` of Langevin dynamics after the step.
        n_noise_samples (int): Evaluations of the network per step.
    """

    eps: float = 1.0
    eta: float = 0.0
    momentum: float = 0.0
    random_flips: bool = False
    langevin_noise: bool = False
    n_noise_samples: int = 1


@dataclass(frozen=True)
class FewStep(StepRule):
    """Go all the way to the denoised image, with a little noise before it and momentum after it.

    Attributes:
        eta: As in :class:`StepRule`.
        momentum: As in :class:`StepRule`.
        random_flips: As in :class:`StepRule`.
    """

    eta: float = 0.0
    momentum: float = 0.0
    random_flips: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: ``eta`` is negative or not finite.
        """
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"eta: expected a noise of 0 or more, got {self.eta}")


@dataclass(frozen=True)
class Langevin(StepRule):
    r"""A step of Langevin dynamics, which samples the posterior as ``eps`` goes to 0.

    Attributes:
        eps: Step size relative to :math:`\sigma_k^2`.
    """

    eps: float = 0.1
    langevin_noise = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: ``eps`` is not positive.
        """
        _check_eps(self.eps)


@dataclass(frozen=True)
class HGGDP(StepRule):
    """The step of Quan et al., made by :class:`hggdp_plugin.alg.HGGDPSampler`: noise only where the score is evaluated.

    Attributes:
        eps: Step size relative to the noise variance of the level.
        n_noise_samples: Noisy copies of the image whose scores are averaged in a step; 3 is a variant in the paper.
        reference_noise: Reproduce the authors' code exactly: uniform instead of normal noise, which is added to the
            image before data consistency. For Cartesian data only.

    References:
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    eps: float = 0.015
    n_noise_samples: int = 1
    reference_noise: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: ``eps`` is not positive, or ``n_noise_samples`` is less than 1.
        """
        _check_eps(self.eps)
        if self.n_noise_samples < 1:
            raise ValueError(f"n_noise_samples: expected at least 1, got {self.n_noise_samples}")


@dataclass(frozen=True)
class Gibbs(StepRule):
    """An update of :class:`hggdp_plugin.posterior.SplitGibbs`, which draws from the posterior.

    Attributes:
        ratio: Part of the noise that a step of the reverse diffusion leaves, from 0.58 to 1. The next level must be
            above this part of the present one.
    """

    ratio: float = 0.65
    n_noise_samples = 2

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: ``ratio`` is out of range.
        """
        if not 1 / 3 <= self.ratio**2 < 1:
            raise ValueError(f"ratio: expected a number from 0.58 to 1, 1 excluded, got {self.ratio}")


@dataclass(frozen=True, init=False)
class NoiseSchedule:
    r"""Noise levels of a reconstruction, from large to small, and what happens at each.

    Noise levels are standard deviations per real channel, of images whose maximum magnitude is about 1.

    Args:
        sigmas (sequence of float): Noise levels :math:`\sigma_k` in the order of sampling: large to small.
        steps (int): Steps per level.
        rule (StepRule): :class:`FewStep`, :class:`Langevin`, :class:`HGGDP` or :class:`Gibbs`; default: a plain
            :class:`FewStep`.
        from_data (bool): Start at the least-squares image instead of uniform noise.
        **deprecated: The options of earlier versions, ``eps``, ``eta``, ``langevin``, ``momentum``, ``turn``,
            ``published``, ``published_noise`` and ``noises``, which the rules have replaced.

    Raises:
        ValueError: No levels, a level that is not positive and finite, or no steps.

    Example:
        >>> schedule = NoiseSchedule.fast(levels=3)
        >>> [round(sigma, 4) for sigma in schedule.sigmas]
        [0.1, 0.0224, 0.005]
        >>> NoiseSchedule.hggdp().evaluations
        800

    References:
        Song, Y., & Ermon, S. (2019). Generative modeling by estimating gradients of the data distribution. NeurIPS 32.
    """

    sigmas: tuple[float, ...]
    steps: int
    rule: StepRule
    from_data: bool

    def __init__(
        self,
        sigmas: Sequence[float],
        steps: int = 1,
        rule: StepRule | None = None,
        from_data: bool = True,
        **deprecated: float,
    ) -> None:
        if deprecated:
            warn_deprecated(f"NoiseSchedule: {', '.join(deprecated)}: give a rule, FewStep, Langevin or HGGDP, instead")
            rule = _rule_from_options(**deprecated)
        if not sigmas or not all(0 < sigma < float("inf") for sigma in sigmas):
            raise ValueError(f"sigmas: expected at least one noise level, all positive, got {sigmas}")
        if steps < 1:
            raise ValueError(f"steps: expected at least one step per level, got {steps}")
        rule = FewStep() if rule is None else rule
        if not isinstance(rule, StepRule):
            raise ValueError(f"rule: expected FewStep, Langevin, HGGDP or Gibbs, got {rule!r}")
        for name, value in {"sigmas": tuple(sigmas), "steps": steps, "rule": rule, "from_data": from_data}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.sigmas) * self.steps

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the network."""
        return len(self) * self.rule.n_noise_samples

    def sigma(self, iteration: int) -> float:
        """Return the noise level of a step, counted from 0."""
        return self.sigmas[iteration // self.steps]

    @classmethod
    @renamed_arguments(published_noise="reference_noise", noises="n_noise_samples")
    def hggdp(
        cls, levels: int = 10, steps: int = 80, reference_noise: bool = False, n_noise_samples: int = 1
    ) -> "NoiseSchedule":
        """Return the schedule of Quan et al.: 10 geometric levels from 1 to 0.01, 80 steps each, from uniform noise.

        Args:
            levels (int): Noise levels.
            steps (int): Steps per level.
            reference_noise (bool): As in :class:`HGGDP`.
            n_noise_samples (int): As in :class:`HGGDP`.
        """
        rule = HGGDP(n_noise_samples=n_noise_samples, reference_noise=reference_noise)
        return cls(geometric(1.0, 0.01, levels), steps, rule, from_data=False)

    @classmethod
    @renamed_arguments(turn="random_flips")
    def fast(
        cls,
        levels: int = 25,
        sigma_max: float = 0.1,
        sigma_min: float = 0.005,
        eta: float = 0.1,
        momentum: float = 0.6,
        random_flips: bool = True,
        from_data: bool = True,
    ) -> "NoiseSchedule":
        """Return one step per level, from the least-squares image: the default.

        ``docs/sampling.md`` and ``benchmarks/steps.py`` show how the values were chosen.

        Args:
            levels (int): Noise levels.
            sigma_max (float): First noise level.
            sigma_min (float): Last noise level.
            eta (float): As in :class:`FewStep`.
            momentum (float): As in :class:`FewStep`.
            random_flips (bool): As in :class:`FewStep`.
            from_data (bool): Start at the least-squares image instead of uniform noise.
        """
        return cls(geometric(sigma_max, sigma_min, levels), 1, FewStep(eta, momentum, random_flips), from_data)

    @classmethod
    def quick(cls, levels: int = 10, sigma_max: float = 0.15, sigma_min: float = 0.005) -> "NoiseSchedule":
        """Return :meth:`fast` with as few levels as several coils need.

        Fewer steps need a higher first level and no noise. ``docs/performance.md`` shows what it costs and gains
        (``benchmarks/quick.py``).

        Args:
            levels (int): Noise levels.
            sigma_max (float): First noise level.
            sigma_min (float): Last noise level.
        """
        return cls.fast(levels, sigma_max, sigma_min, eta=0.0)

    @classmethod
    def posterior(
        cls, levels: int = 50, steps: int = 1, sigma_max: float = 0.3, sigma_min: float = 0.005
    ) -> "NoiseSchedule":
        """Return the schedule that draws from the posterior, see :class:`hggdp_plugin.posterior.SplitGibbs`.

        The bias of the draws is inversely proportional to the number of steps.

        Args:
            levels (int): Noise levels.
            steps (int): Steps per level.
            sigma_max (float): First noise level, at least the distance between images that the data may not tell apart.
            sigma_min (float): Last noise level; the draws have this noise per real channel where the data leave it.
        """
        return cls(geometric(sigma_max, sigma_min, levels), steps, Gibbs())


def geometric(first: float, last: float, levels: int) -> tuple[float, ...]:
    """Return noise levels in geometric progression, ends included."""
    return tuple(float(s) for s in np.geomspace(first, last, levels))


def _check_eps(eps: float) -> None:
    if not 0 < eps < float("inf"):
        raise ValueError(f"eps: expected a positive step size, got {eps}")


def _rule_from_options(
    *,
    eps: float = 1.0,
    eta: float = 0.0,
    langevin: float = False,
    momentum: float = 0.0,
    turn: float = False,
    published: float = False,
    published_noise: float = False,
    noises: float = 1,
) -> StepRule:
    """Translate the options of earlier versions to a rule."""
    few_step = bool(eta or momentum or turn)
    if published:
        if few_step or langevin:
            raise ValueError("published: not possible with langevin, eta, momentum or turn")
        return HGGDP(eps, int(noises), bool(published_noise))
    if published_noise or noises != 1:
        raise ValueError("published_noise, noises: only possible with published")
    if langevin:
        if few_step:
            raise ValueError("langevin: not possible with eta, momentum or turn")
        return Langevin(eps)
    if eps != 1:
        raise ValueError(f"eps: {eps} is only possible with langevin or published")
    return FewStep(eta, momentum, bool(turn))

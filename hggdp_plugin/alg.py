"""Annealed Langevin samplers."""

from collections.abc import Callable

import sigpy as sp

from hggdp_plugin._deprecation import renamed_arguments
from hggdp_plugin._typing import Array, RandomGenerator
from hggdp_plugin.random import complex_normal, complex_uniform
from hggdp_plugin.schedule import HGGDP, NoiseSchedule


class AnnealedLangevin(sp.alg.Alg):
    r"""Annealed Langevin dynamics on a prior, with data consistency after every step.

    With the denoiser :math:`D(x, \sigma) = x + \sigma^2 \nabla \log p_\sigma(x)`, a step at noise level :math:`\sigma`
    is, in the terms of :class:`hggdp_plugin.schedule.StepRule`,

    .. math::
        x &\leftarrow x + \eta \sigma z \\
        x &\leftarrow x + \epsilon (D(x, \sigma) - x) + \sqrt{2 \epsilon} \sigma z' \\
        x &\leftarrow \text{prox}_{\epsilon \sigma^2 f}(x)

    with z and z' standard normal per real channel (z' only for :class:`~hggdp_plugin.schedule.Langevin`) and f the
    negative log-likelihood. The parameter of the proximal step is the step size of the gradient step, so that the fixed
    point is that of the posterior for every step size. With momentum m, D is replaced by :math:`D + m (D - D_{old})`.

    Args:
        denoise (function): ``(x, sigma) -> D(x, sigma)``.
        prox (function): ``(alpha, x) -> prox_{alpha f}(x)``, the data consistency.
        x (array): Initial image, complex, updated in place.
        schedule (NoiseSchedule): Noise levels and step rule.
        rng (Generator): NumPy or CuPy random generator, matching ``x``.
        n_batch_axes (int): Leading axes of ``x`` along which the noise is the same, so that an item of a batch does
            not depend on the others.

    Attributes:
        x (array): Current image.
        denoised (array): Latest output of the denoiser.
        sigma (float): Latest noise level.

    References:
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    @renamed_arguments(shared="n_batch_axes")
    def __init__(
        self,
        denoise: Callable[[Array, float], Array],
        prox: Callable[[float, Array], Array],
        x: Array,
        schedule: NoiseSchedule,
        rng: RandomGenerator,
        n_batch_axes: int = 0,
    ) -> None:
        self.denoise, self.prox, self.x, self.schedule, self.rng = denoise, prox, x, schedule, rng
        self.n_batch_axes = n_batch_axes
        self.device = sp.get_device(x)
        self.denoised: Array | None = None
        self.sigma = schedule.sigma(0)
        super().__init__(len(schedule))

    def _update(self) -> None:
        rule = self.schedule.rule
        sigma = self.sigma = self.schedule.sigma(self.iter)
        with self.device:
            if rule.eta:
                self.x += rule.eta * sigma * self._noise()
            denoised = self.denoise(self.x, sigma)
            target = denoised
            if rule.momentum and self.denoised is not None:
                target = denoised + rule.momentum * (denoised - self.denoised)
            self.denoised = denoised
            self.x += rule.eps * (target - self.x)
            if rule.langevin_noise:
                self.x += (2 * rule.eps) ** 0.5 * sigma * self._noise()
            sp.copyto(self.x, self.prox(rule.eps * sigma**2, self.x))

    def _noise(self) -> Array:
        return complex_normal(self.rng, self.x.shape[self.n_batch_axes :])


class HGGDPSampler(sp.alg.Alg):
    r"""The sampler of HGGDP: annealed Langevin dynamics on K views, with noise only where the score is evaluated.

    A step at noise level :math:`\sigma` with step size :math:`a = \epsilon \sigma^2` is

    .. math::
        x &\leftarrow x + a \, \tfrac{1}{N} \sum_n s(\tilde x_n, \sigma) \\
        x &\leftarrow R \, C(\bar x) \\
        \tilde x_n &\leftarrow x + \sqrt{2 a} \, z_n, \quad n = 1, \dots, N

    with the score :math:`s(x, \sigma) = (D(x, \sigma) - x) / \sigma^2`, the mean :math:`\bar x` of the views, the data
    consistency C, the operator R that copies an image into K views, and z standard normal per real channel. Unlike in
    Langevin dynamics (:class:`AnnealedLangevin`), x does not keep the noise. So a few steps lead to an image close to
    the posterior's mode, not to a sample of the posterior.

    With ``reference_noise`` it reproduces the two quirks of the authors' code: z is uniform on [0, 1), with mean 1/2
    and variance 1/12, and is added to x before C, so that the score does not use this step's data consistency.

    Args:
        denoise (function): ``(views, sigma) -> D(views, sigma)`` on views with any leading axes.
        consistency (function): ``(alpha, x) -> C(x)`` on images (..., H, W), where ``alpha`` is a / K, the step size of
            the mean of the views.
        x (array): Initial views, complex (..., K, H, W), updated in place.
        schedule (NoiseSchedule): Noise levels and steps, with the rule :class:`hggdp_plugin.schedule.HGGDP`.
        rng (Generator): NumPy or CuPy random generator, matching ``x``.
        n_batch_axes (int): Leading axes of ``x`` along which the noise is the same, so that an item of a batch does
            not depend on the others.

    Attributes:
        x (array): Current views, all the same image, consistent with the data.
        noisy (array): Where the next scores are evaluated, (N, ..., K, H, W).
        sigma (float): Latest noise level.

    Raises:
        ValueError: The schedule has another rule.

    References:
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    def __init__(
        self,
        denoise: Callable[[Array, float], Array],
        consistency: Callable[[float, Array], Array],
        x: Array,
        schedule: NoiseSchedule,
        rng: RandomGenerator,
        n_batch_axes: int = 0,
    ) -> None:
        if not isinstance(schedule.rule, HGGDP):
            raise ValueError(f"schedule: HGGDPSampler needs the rule HGGDP, got {schedule.rule}")
        self.denoise, self.consistency, self.x, self.schedule, self.rng = denoise, consistency, x, schedule, rng
        self.rule, self.n_batch_axes = schedule.rule, n_batch_axes
        self.device = sp.get_device(x)
        with self.device:
            self.noisy = self.device.xp.repeat(x[None], self.rule.n_noise_samples, axis=0)
        self.sigma = schedule.sigma(0)
        super().__init__(len(schedule))

    def _update(self) -> None:
        sigma = self.sigma = self.schedule.sigma(self.iter)
        step = self.rule.eps * sigma**2
        with self.device:
            score = (self.denoise(self.noisy, sigma) - self.noisy) / sigma**2
            moved = self.x + step * score.mean(axis=0)
            self.x[...] = self.consistency(step / moved.shape[-3], moved.mean(axis=-3))[..., None, :, :]
            self.noisy = (moved if self.rule.reference_noise else self.x) + (2 * step) ** 0.5 * self._noise()

    def _noise(self) -> Array:
        N, shape = self.rule.n_noise_samples, self.x.shape[self.n_batch_axes :]
        draw = complex_uniform if self.rule.reference_noise else complex_normal
        return draw(self.rng, (N, *shape)).reshape(N, *[1] * self.n_batch_axes, *shape)

"""Annealed Langevin samplers."""

from collections.abc import Callable
from typing import Any

import sigpy as sp

from hggdp_plugin.random import complex_normal, complex_uniform
from hggdp_plugin.schedule import NoiseSchedule

Array = Any  # numpy.ndarray or cupy.ndarray


class AnnealedLangevin(sp.alg.Alg):
    r"""Annealed Langevin dynamics on a prior, with data consistency after every step.

    With the denoiser :math:`D(x, \sigma) = x + \sigma^2 \nabla \log p_\sigma(x)` one update at noise level
    :math:`\sigma` is, in the terms of :class:`hggdp_plugin.schedule.NoiseSchedule`,

    .. math::
        x &\leftarrow x + \eta \sigma z \\
        x &\leftarrow x + \epsilon (D(x, \sigma) - x) + \sqrt{2 \epsilon} \sigma z' \\
        x &\leftarrow \text{prox}_{\epsilon \sigma^2 f}(x)

    with standard normal :math:`z, z'` per real channel (:math:`z'` only for Langevin schedules) and :math:`f` the
    negative logarithm of the likelihood. The proximal step's parameter is the step size of the gradient step, so that
    the fixed point is the posterior's for every step size. With momentum :math:`m`, D is replaced by
    :math:`D + m (D - D_{old})`.

    Args:
        denoise (function): ``(x, sigma) -> D(x, sigma)``.
        prox (function): ``(alpha, x) -> prox_{alpha f}(x)``, the data consistency.
        x (array): Initial image, complex, updated in place.
        schedule (NoiseSchedule): Noise levels and step rule.
        rng (Generator): NumPy or CuPy random generator, of the kind of ``x``.
        shared (int): Leading axes of ``x`` that get the same noise, so that an item of a batch becomes what it becomes
            alone.

    Attributes:
        x (array): Current image.
        denoised (array): Latest output of the denoiser.
        sigma (float): Latest noise level.

    References:
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    def __init__(
        self,
        denoise: Callable[[Array, float], Array],
        prox: Callable[[float, Array], Array],
        x: Array,
        schedule: NoiseSchedule,
        rng: Any,
        shared: int = 0,
    ) -> None:
        self.denoise, self.prox, self.x, self.schedule, self.rng = denoise, prox, x, schedule, rng
        self.shared = shared
        self.device = sp.get_device(x)
        self.denoised: Array | None = None
        self.sigma = schedule.sigma(0)
        super().__init__(len(schedule))

    def _update(self) -> None:
        s = self.schedule
        sigma = self.sigma = s.sigma(self.iter)
        with self.device:
            if s.eta:
                self.x += s.eta * sigma * self._noise()
            denoised = self.denoise(self.x, sigma)
            target = denoised
            if s.momentum and self.denoised is not None:
                target = denoised + s.momentum * (denoised - self.denoised)
            self.denoised = denoised
            self.x += s.eps * (target - self.x)
            if s.langevin:
                self.x += (2 * s.eps) ** 0.5 * sigma * self._noise()
            sp.copyto(self.x, self.prox(s.eps * sigma**2, self.x))

    def _noise(self) -> Array:
        return complex_normal(self.rng, self.x.shape[self.shared :])


class HGGDPSampler(sp.alg.Alg):
    r"""The sampler of HGGDP: annealed Langevin dynamics on K views, with noise only where the score is taken.

    An update at noise level :math:`\sigma` with step size :math:`a = \epsilon \sigma^2` is

    .. math::
        x &\leftarrow x + a \, \tfrac{1}{N} \sum_n s(\tilde x_n, \sigma) \\
        x &\leftarrow R \, C(\bar x) \\
        \tilde x_n &\leftarrow x + \sqrt{2 a} \, z_n, \quad n = 1, \dots, N

    with the score :math:`s(x, \sigma) = (D(x, \sigma) - x) / \sigma^2`, the mean :math:`\bar x` of the views, the data
    consistency C, the operator R that copies an image into K views, and standard normal z per real channel. Other than
    in Langevin dynamics proper (:class:`AnnealedLangevin`), x does not keep the noise: it makes for an image close to
    the posterior's mode in few steps, not a sample of the posterior.

    With ``published_noise`` it has the two quirks of the published code: z is uniform on [0, 1), with mean 1/2 and
    variance 1/12, and is added to the x before C, so that the score does not see this update's data.

    Args:
        denoise (function): ``(views, sigma) -> D(views, sigma)`` on views with any leading axes.
        consistency (function): ``(alpha, x) -> C(x)`` on images (..., H, W), where ``alpha`` is a / K, the step size of
            the mean of the views.
        x (array): Initial views, complex (..., K, H, W), updated in place.
        schedule (NoiseSchedule): Noise levels, steps, ``eps``, the number N of ``noises`` and ``published_noise``.
        rng (Generator): NumPy or CuPy random generator, of the kind of ``x``.
        shared (int): Leading axes of ``x`` that get the same noise, so that an item of a batch becomes what it becomes
            alone.

    Attributes:
        x (array): Current views, all the same image, consistent with the data.
        noisy (array): Where the next scores are taken, (N, ..., K, H, W).
        sigma (float): Latest noise level.

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
        rng: Any,
        shared: int = 0,
    ) -> None:
        self.denoise, self.consistency, self.x, self.schedule, self.rng = denoise, consistency, x, schedule, rng
        self.shared = shared
        self.device = sp.get_device(x)
        with self.device:
            self.noisy = self.device.xp.repeat(x[None], schedule.noises, axis=0)
        self.sigma = schedule.sigma(0)
        super().__init__(len(schedule))

    def _update(self) -> None:
        sigma = self.sigma = self.schedule.sigma(self.iter)
        step = self.schedule.eps * sigma**2
        with self.device:
            score = (self.denoise(self.noisy, sigma) - self.noisy) / sigma**2
            moved = self.x + step * score.mean(axis=0)
            self.x[...] = self.consistency(step / moved.shape[-3], moved.mean(axis=-3))[..., None, :, :]
            self.noisy = (moved if self.schedule.published_noise else self.x) + (2 * step) ** 0.5 * self._noise()

    def _noise(self) -> Array:
        N, shape = self.schedule.noises, self.x.shape[self.shared :]
        draw = complex_uniform if self.schedule.published_noise else complex_normal
        return draw(self.rng, (N, *shape)).reshape(N, *[1] * self.shared, *shape)

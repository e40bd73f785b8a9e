"""Iterative algorithms: annealed Langevin samplers, and linear solvers for a batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import sigpy as sp
import torch

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


class PublishedLangevin(sp.alg.Alg):
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


class BatchConjugateGradient(sp.alg.Alg):
    """Conjugate gradients for many independent systems at once.

    As :class:`sigpy.alg.ConjugateGradient`, but every item along the leading axes has step sizes of its own, so that a
    batch gives what its items give one by one, and nothing waits for the device within an iteration.

    Args:
        A (function): Hermitian, positive definite linear mapping, block-diagonal over the leading axes.
        b (array): Right-hand sides.
        x (array): Initial solutions, updated in place.
        ndim (int): Number of trailing axes that make one system.
        max_iter (int): Number of iterations.
        P (None or function): Preconditioner, Hermitian, positive definite and block-diagonal as ``A``.

    Attributes:
        x (array): Current solutions.
    """

    def __init__(
        self,
        A: Callable[[Array], Array],
        b: Array,
        x: Array,
        ndim: int = 2,
        max_iter: int = 10,
        P: Callable[[Array], Array] | None = None,
    ) -> None:
        self.A, self.x, self.P = A, x, P or (lambda r: r)
        self.axes = tuple(range(-ndim, 0))
        self.device = sp.get_device(x)
        with self.device:
            self.r = b - A(x)
            z = self.P(self.r)
            self.p = z.copy()
            self.rz = self._dot(self.r, z)
            # A residual this small is rounding. Part of it is where A is blind, and steps along it would be huge.
            self.floor = (10 * np.finfo(x.dtype).eps) ** 2 * self._dot(b, self.P(b))
        super().__init__(max_iter)

    def _dot(self, a: Array, b: Array) -> Array:
        # The real part alone, in one pass over contiguous memory.
        pairs = a.view(a.real.dtype) * b.view(b.real.dtype)
        return pairs.sum(axis=self.axes, keepdims=True)

    def _update(self) -> None:
        xp = self.device.xp
        with self.device:
            Ap = self.A(self.p)
            pAp = self._dot(self.p, Ap)
            moves = (self.rz > self.floor) & (pAp > 0)
            alpha = xp.where(moves, self.rz / xp.where(moves, pAp, 1), 0)
            self.x += alpha * self.p
            if self.iter + 1 == self.max_iter:
                return  # the rest is for the next iteration
            self.r -= alpha * Ap
            z = self.P(self.r)
            rz = self._dot(self.r, z)
            self.p *= rz / xp.where(self.rz > 0, self.rz, 1)
            self.p += z
            self.rz = rz


class ChebyshevIteration(sp.alg.Alg):
    """Chebyshev's semi-iteration, from zero, for many independent systems at once.

    Where bounds of the eigenvalues are known it takes fixed steps, without inner products. Parts of the solution with
    eigenvalues below ``low`` converge too, but slowly.

    Args:
        A (function): Hermitian, positive semi-definite linear mapping, block-diagonal over the leading axes; applied
            ``max_iter`` - 1 times.
        b (array): Right-hand sides.
        low (float or array): Lower end of the interval of eigenvalues where it is to be fast, above 0.
        high (float or array): Upper bound of all eigenvalues. Arrays broadcast to ``b``.
        max_iter (int): Number of iterations.

    Attributes:
        x (array): Current solutions.

    References:
        Golub, G. H., & Varga, R. S. (1961). Chebyshev semi-iterative methods, successive overrelaxation iterative
        methods, and second order Richardson iterative methods. Numerische Mathematik, 3, 147-156.
    """

    def __init__(self, A: Callable[[Array], Array], b: Array, low: Any, high: Any, max_iter: int) -> None:
        self.A, self.r = A, b
        self.radius = (high - low) / 2
        self.ratio = (high + low) / (high - low)
        self.rho = 1 / self.ratio
        self.device = sp.get_device(b)
        with self.device:
            self.x = self.device.xp.zeros_like(b)
            self.move = b * (self.rho / self.radius)
        super().__init__(max_iter)

    def _update(self) -> None:
        with self.device:
            if self.iter:
                self.r = self.r - self.A(self.move)
                rho = 1 / (2 * self.ratio - self.rho)
                self.move *= rho * self.rho
                self.move += (2 * rho / self.radius) * self.r
                self.rho = rho
            self.x += self.move


def solution(alg: sp.alg.Alg) -> Any:
    """Run an algorithm to its end and return its solution."""
    while not alg.done():
        alg.update()
    return alg.x


def complex_normal(rng: Any, shape: tuple[int, ...]) -> Array:
    """Complex noise of unit variance per real channel, complex64."""
    if isinstance(rng, np.random.Generator):
        # Drawn by torch, from a seed of NumPy's: in less than half the time.
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        pairs = torch.randn((*shape, 2), generator=generator, dtype=torch.float32, device="cpu").numpy()
    else:
        pairs = rng.standard_normal((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]


def complex_uniform(rng: Any, shape: tuple[int, ...]) -> Array:
    """Complex noise, uniform on [0, 1) per real channel, complex64."""
    pairs = rng.random((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]

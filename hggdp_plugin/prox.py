"""Data consistency: a proximal operator, and the gradient step of the published method."""

from typing import Any

import sigpy as sp

from hggdp_plugin.alg import BatchConjugateGradient


class L2DataConsistency(sp.prox.Prox):
    r"""Proximal operator of the negative log-likelihood of noisy linear measurements.

    .. math::
        \text{prox}_{\alpha f}(x) = \text{argmin}_u \frac{1}{2} \| u - x \|_2^2 + \alpha f(u), \quad
        f(u) = \frac{1}{2 \lambda} \| A u - y \|_2^2

    that is :math:`(A^H A + \frac{\lambda}{\alpha} I) u = A^H y + \frac{\lambda}{\alpha} x`. For :math:`\lambda` = 0 it
    is the image closest to x among those that agree with the measurements: replacement in k-space.

    Where ``A`` is a unitary transform followed by a diagonal (one coil of unit sensitivity, Cartesian), ``transform``
    and ``diagonal`` give the closed form; otherwise conjugate gradients start at x.

    Args:
        A (Linop): Measurement operator, images (..., H, W) to k-space.
        y (array): Measurements.
        lamda (float or array): Noise variance per real channel; an array broadcasts to the images.
        transform (None or Linop): Unitary operator F with A^H A = F^H diag(d) F.
        diagonal (None or array): d.
        max_cg_iter (int): Conjugate gradient iterations.
        support (None or array): Where the image can be other than 0, of a shape that broadcasts to the images; goes
            with conjugate gradients. Where no coil sees anything the data do not hold x, and it would drift with the
            prior.
    """

    def __init__(
        self,
        A: sp.linop.Linop,
        y: Any,
        lamda: Any = 0.0,
        transform: sp.linop.Linop | None = None,
        diagonal: Any = None,
        max_cg_iter: int = 5,
        support: Any = None,
    ) -> None:
        self.A, self.lamda, self.transform, self.max_cg_iter = A, lamda, transform, max_cg_iter
        self.support = support
        self.device = sp.get_device(y)
        with self.device:
            self.AHy = A.H(y)
            if transform is not None:
                self.diagonal, self.kspace = diagonal, transform(self.AHy)
        super().__init__(A.ishape)

    def _prox(self, alpha: float, input: Any) -> Any:
        if alpha == 0:
            return input
        xp = self.device.xp
        with self.device:
            weight = self.lamda / alpha
            if self.transform is None:
                x = input.copy()
                b = self.AHy + weight * input
                alg = BatchConjugateGradient(lambda u: self.A.N(u) + weight * u, b, x, max_iter=self.max_cg_iter)
                while not alg.done():
                    alg.update()
                return x if self.support is None else x * self.support
            k = self.transform(input)
            total = self.diagonal + weight
            measured = total > 0
            safe = xp.where(measured, total, 1)
            return self.transform.H(xp.where(measured, (self.kspace + weight * k) / safe, k)).astype(input.dtype)


class GradientConsistency(sp.prox.Prox):
    r"""One gradient step of unit size on :math:`\frac{1}{2} \| A x - y \|_2^2`, the published data consistency.

    .. math:: C(x) = x + A^H (y - A x)

    For one coil of unit sensitivity and a mask, this is replacement in k-space. Otherwise the sensitivities must have a
    sum of squares of at most 1, else repeated steps may diverge. It stands where a proximal operator does, but neither
    noise nor the step size ``alpha`` decides how far it goes.

    Args:
        A (Linop): Measurement operator, images (..., H, W) to k-space.
        y (array): Measurements.
        support (None or array): Where the image can be other than 0, as in :class:`L2DataConsistency`.

    References:
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    def __init__(self, A: sp.linop.Linop, y: Any, support: Any = None) -> None:
        self.A, self.support = A, support
        self.device = sp.get_device(y)
        with self.device:
            self.AHy = A.H(y)
        super().__init__(A.ishape)

    def _prox(self, alpha: float, input: Any) -> Any:
        with self.device:
            x = input + (self.AHy - self.A.N(input))
            return x if self.support is None else x * self.support

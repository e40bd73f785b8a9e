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

    With a unitary ``transform`` F and ``diagonal`` d such that A^H A = F^H diag(d) F, that is a closed form. Where they
    are only close, they precondition conjugate gradients, which start at x.

    Args:
        A (Linop): Measurement operator, images (..., H, W) to k-space.
        y (array): Measurements.
        lamda (float or array): Noise variance per real channel; an array broadcasts to the images.
        transform (None or Linop): F; None: no preconditioner.
        diagonal (None or array): d, at least 0, of a shape that broadcasts to the images.
        max_cg_iter (int): Conjugate gradient iterations; 0: the closed form.
        support (None or array): Where the image can be other than 0, of a shape that broadcasts to the images. Where no
            coil sees anything the data do not hold x, and it would drift with the prior.
    """

    def __init__(
        self,
        A: sp.linop.Linop,
        y: Any,
        lamda: Any = 0.0,
        transform: sp.linop.Linop | None = None,
        diagonal: Any = None,
        max_cg_iter: int = 3,
        support: Any = None,
    ) -> None:
        self.A, self.lamda, self.max_cg_iter, self.support = A, lamda, max_cg_iter, support
        self.transform: Any = transform
        self.diagonal = diagonal
        self.device = sp.get_device(y)
        with self.device:
            self.AHy = A.H(y)
        super().__init__(A.ishape)

    def _prox(self, alpha: float, input: Any) -> Any:
        if alpha == 0:
            return input
        with self.device:
            weight = self.lamda / alpha
            x = self._solved(weight, input) if self.max_cg_iter else self._closed_form(weight, input)
            return x if self.support is None else x * self.support

    def _closed_form(self, weight: Any, input: Any) -> Any:
        xp, F = self.device.xp, self.transform
        total = self.diagonal + weight
        gain = xp.where(total > 0, 1 / xp.where(total > 0, total, 1), 0)
        k = F(input)
        return F.H(k + gain * (F(self.AHy) - self.diagonal * k))

    def _solved(self, weight: Any, input: Any) -> Any:
        P = None
        if self.transform is not None:
            total = self.diagonal + weight
            # Where A is blind all but for the rounding, a large gain would be one for the rounding.
            top = total.max()
            total = self.device.xp.where(total > 1e-3 * top, total, top)

            def P(r: Any) -> Any:
                return self.transform.H(self.transform(r) / total)

        b = self.AHy + weight * input
        alg = BatchConjugateGradient(
            lambda u: self.A.N(u) + weight * u, b, input.copy(), max_iter=self.max_cg_iter, P=P
        )
        while not alg.done():
            alg.update()
        return alg.x


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

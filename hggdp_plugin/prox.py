"""Data consistency: a proximal operator, and the gradient step of the published method."""

from typing import Any

import sigpy as sp

from hggdp_plugin.solvers import BatchConjugateGradient, ChebyshevIteration, run

#: Chebyshev's iterations are fast down to this fraction of the largest eigenvalue of A^H A: with the few of a step,
#: what the data say less about is left to the prior.
SMALLEST = 0.1


class L2DataConsistency(sp.prox.Prox):
    r"""Proximal operator of the negative log-likelihood of noisy linear measurements.

    .. math::
        \text{prox}_{\alpha f}(x) = \text{argmin}_u \frac{1}{2} \| u - x \|_2^2 + \alpha f(u), \quad
        f(u) = \frac{1}{2 \lambda} \| A u - y \|_2^2

    that is :math:`(A^H A + \frac{\lambda}{\alpha} I) u = A^H y + \frac{\lambda}{\alpha} x`. For :math:`\lambda` = 0 it
    is the image closest to x among those that agree with the measurements: replacement in k-space.

    With a unitary ``transform`` F and ``diagonal`` d such that A^H A = F^H diag(d) F, that is a closed form. Where they
    are only close, they precondition conjugate gradients, which start at x. Where the ``largest`` eigenvalue of A^H A
    is known, Chebyshev's iterations, which start there too, do with one application of A^H A less.

    Args:
        A (Linop): Measurement operator, images (..., H, W) to k-space.
        y (array): Measurements.
        lamda (float or array): Noise variance per real channel; an array broadcasts to the images.
        transform (None or Linop): F; None: no preconditioner.
        diagonal (None or array): d, at least 0, of a shape that broadcasts to the images.
        max_iter (int): Iterations; 0: the closed form.
        largest (None or array): Upper bound of the eigenvalues of A^H A, of a shape that broadcasts to the images.
            None: conjugate gradients.
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
        max_iter: int = 3,
        largest: Any = None,
        support: Any = None,
    ) -> None:
        self.A, self.lamda, self.max_iter, self.largest, self.support = A, lamda, max_iter, largest, support
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
            x = self._solved(weight, input) if self.max_iter else self._closed_form(weight, input)
            return x if self.support is None else x * self.support

    def _closed_form(self, weight: Any, input: Any) -> Any:
        xp, F = self.device.xp, self.transform
        total = self.diagonal + weight
        gain = xp.where(total > 0, 1 / xp.where(total > 0, total, 1), 0)
        k = F(input)
        return F.H(k + gain * (F(self.AHy) - self.diagonal * k))

    def _solved(self, weight: Any, input: Any) -> Any:
        def normal(u: Any) -> Any:
            return self.A.N(u) + weight * u

        if self.largest is not None:
            low, high = SMALLEST * self.largest + weight, self.largest + weight
            # The move away from the input, where the residual of the whole is that of the data.
            residual = self.AHy - self.A.N(input)
            return input + run(ChebyshevIteration(normal, residual, low, high, self.max_iter))
        P = self._preconditioner(weight)
        b = self.AHy + weight * input
        return run(BatchConjugateGradient(normal, b, input.copy(), max_iter=self.max_iter, P=P))

    def _preconditioner(self, weight: Any) -> Any:
        if self.transform is None:
            return None
        total = self.diagonal + weight
        # Where A is blind all but for the rounding, a large gain would be one for the rounding.
        top = total.max()
        total = self.device.xp.where(total > 1e-3 * top, total, top)
        return lambda r: self.transform.H(self.transform(r) / total)


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

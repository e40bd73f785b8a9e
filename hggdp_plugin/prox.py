"""Data consistency: proximal operators of the likelihood, and the gradient step of the HGGDP paper."""

import sigpy as sp

from hggdp_plugin._deprecation import warn_deprecated
from hggdp_plugin._typing import Array
from hggdp_plugin.solvers import Chebyshev, ConjugateGradient, Diagonal, Solver


class DataConsistency(sp.prox.Prox):
    """Base class: operators on images that depend on the data through :math:`A^H y` only, and are affine in both.

    Args:
        A (Linop): Measurement operator, images (..., H, W) to k-space.
        y (array): Measured k-space.
        support (None or array): Where the image may differ from 0, of a shape that broadcasts to the images. Outside it
            the data do not constrain x, and x would drift under the prior.
    """

    def __init__(self, A: sp.linop.Linop, y: Array, *, support: Array | None = None) -> None:
        self.A, self.support = A, support
        self.device = sp.get_device(y)
        with self.device:
            self.AHy = A.H(y)
        super().__init__(A.ishape)

    def linear(self, alpha: float, x: Array) -> Array:
        """Apply the linear part, what remains for y = 0. It is self-adjoint, so it also maps gradients back.

        With :class:`hggdp_plugin.solvers.ConjugateGradient` it is linear only as far as the iterations converge.

        Args:
            alpha (float): Step size.
            x (array): Images (..., H, W).

        Returns:
            array: Images (..., H, W).
        """
        with self.device:
            return self._apply(alpha, self.device.xp.zeros_like(self.AHy), x)

    def _prox(self, alpha: float, input: Array) -> Array:
        with self.device:
            return self._apply(alpha, self.AHy, input)

    def _apply(self, alpha: float, AHy: Array, x: Array) -> Array:
        raise NotImplementedError


class L2DataConsistency(DataConsistency):
    r"""Proximal operator of the negative log-likelihood of measurements with complex Gaussian noise.

    .. math::
        \text{prox}_{\alpha f}(x) = \text{argmin}_u \frac{1}{2} \| u - x \|_2^2 + \alpha f(u), \quad
        f(u) = \frac{1}{\nu} \| A u - y \|_2^2

    that is :math:`(A^H A + \frac{\nu}{2 \alpha} I) u = A^H y + \frac{\nu}{2 \alpha} x` with the noise variance
    :math:`\nu = E|n|^2` of a complex sample. For :math:`\nu = 0` it gives the image closest to x among those that agree
    with the measurements.

    Args:
        A (Linop): Measurement operator, images (..., H, W) to k-space.
        y (array): Measured k-space.
        noise_var (float or array): Noise variance :math:`\nu` of a complex sample of y; an array broadcasts to the
            images.
        solver (None or Solver): How to solve the equation: :class:`hggdp_plugin.solvers.Diagonal`,
            :class:`~hggdp_plugin.solvers.Chebyshev` or :class:`~hggdp_plugin.solvers.ConjugateGradient`, the default.
        support (None or array): See :class:`DataConsistency`.
        **deprecated: The arguments of earlier versions: ``lamda``, half of ``noise_var``, and ``transform``,
            ``diagonal``, ``max_iter`` and ``largest``, which the solvers have replaced.
    """

    def __init__(
        self,
        A: sp.linop.Linop,
        y: Array,
        *,
        noise_var: float | Array = 0.0,
        solver: Solver | None = None,
        support: Array | None = None,
        **deprecated: object,
    ) -> None:
        if deprecated:
            names = ", ".join(deprecated)
            warn_deprecated(f"L2DataConsistency: {names}: give noise_var, which is 2 * lamda, and a solver instead")
            lamda = deprecated.pop("lamda", None)
            noise_var = noise_var if lamda is None else 2 * lamda  # type: ignore[operator]
            solver = solver or _solver_from_options(**deprecated)  # type: ignore[arg-type]
        self.noise_var, self.solver = noise_var, solver or ConjugateGradient()
        super().__init__(A, y, support=support)

    def _apply(self, alpha: float, AHy: Array, x: Array) -> Array:
        if alpha == 0:
            return x
        # Noise levels and alpha are per real channel, which has half of the complex variance.
        u = self.solver.solve(self.A.N, AHy, x, 0.5 * self.noise_var / alpha)
        return u if self.support is None else u * self.support


class KSpaceReplacement(L2DataConsistency):
    r"""Replace the measured k-space samples of an image: :class:`L2DataConsistency` without noise, in closed form.

    Args:
        A (Linop): Measurement operator of one coil of unit sensitivity on the Cartesian grid.
        y (array): Measured k-space.
        solver (Diagonal): The Fourier transform and the k-space weights.
    """

    def __init__(self, A: sp.linop.Linop, y: Array, solver: Diagonal) -> None:
        super().__init__(A, y, noise_var=0.0, solver=solver)


class GradientConsistency(DataConsistency):
    r"""A gradient step of unit size on :math:`\frac{1}{2} \| A x - y \|_2^2`, the data consistency of the HGGDP paper.

    .. math:: C(x) = x + A^H (y - A x)

    For one coil of unit sensitivity and a mask, this is replacement in k-space. Otherwise the sensitivities must have a
    sum of squares of at most 1, or repeated steps may diverge. It has the interface of a proximal operator, but depends
    neither on the noise nor on the step size ``alpha``.

    Args:
        A (Linop): Measurement operator, images (..., H, W) to k-space.
        y (array): Measured k-space.
        support (None or array): See :class:`DataConsistency`.

    References:
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    def _apply(self, alpha: float, AHy: Array, x: Array) -> Array:
        u = x + (AHy - self.A.N(x))
        return u if self.support is None else u * self.support


def _solver_from_options(
    *,
    transform: sp.linop.Linop | None = None,
    diagonal: Array | None = None,
    max_iter: int = 3,
    largest: float | Array | None = None,
) -> Solver:
    """Translate the arguments of earlier versions to a solver."""
    form = None if transform is None or diagonal is None else Diagonal(transform, diagonal)
    if max_iter == 0:
        if form is None:
            raise ValueError("max_iter: 0, the closed form, needs transform and diagonal")
        return form
    return ConjugateGradient(max_iter, form) if largest is None else Chebyshev(largest, max_iter)

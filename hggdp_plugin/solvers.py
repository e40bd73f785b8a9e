"""Linear solvers for many independent systems at once, and the solver objects that data consistency is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array

#: Lower end of the interval in which Chebyshev's iteration converges fast, relative to the largest eigenvalue of A^H A.
#: With few iterations, components with smaller eigenvalues are left to the prior.
CHEBYSHEV_INTERVAL_RATIO = 0.1
#: Smallest value of a preconditioner relative to its maximum. Smaller ones are mostly rounding error.
PRECONDITIONER_FLOOR = 1e-3
#: Smallest interval of Chebyshev's iteration relative to its upper end: one point would divide by zero.
MIN_SPREAD = 1e-6

Operator = Callable[[Array], Array]


class BatchConjugateGradient(sp.alg.Alg):
    """Conjugate gradients for many independent systems at once.

    Like :class:`sigpy.alg.ConjugateGradient`, but each item along the leading axes has its own step sizes. So a batch
    gives the same result as its items one by one, and no iteration waits for the device.

    Args:
        A (function): Hermitian, positive definite linear mapping, block-diagonal over the leading axes.
        b (array): Right-hand sides.
        x (array): Initial solutions, updated in place.
        ndim (int): Number of trailing axes that form one system.
        max_iter (int): Number of iterations.
        P (None or function): Preconditioner, Hermitian, positive definite and block-diagonal as ``A``.

    Attributes:
        x (array): Current solutions.
    """

    def __init__(
        self,
        A: Operator,
        b: Array,
        x: Array,
        ndim: int = 2,
        max_iter: int = 10,
        P: Operator | None = None,
    ) -> None:
        self.A, self.x, self.P = A, x, P or (lambda r: r)
        self.axes = tuple(range(-ndim, 0))
        self.device = sp.get_device(x)
        with self.device:
            self.r = b - A(x)
            z = self.P(self.r)
            self.p = z.copy()
            self.rz = self._dot(self.r, z)
            # Residuals below this are rounding error, partly in the null space of A, where steps would blow up.
            self.rounding_floor = (10 * np.finfo(x.dtype).eps) ** 2 * self._dot(b, self.P(b))
        super().__init__(max_iter)

    def _dot(self, a: Array, b: Array) -> Array:
        # Only the real part, in one pass over contiguous memory.
        pairs = a.view(a.real.dtype) * b.view(b.real.dtype)
        return pairs.sum(axis=self.axes, keepdims=True)

    def _update(self) -> None:
        xp = self.device.xp
        with self.device:
            Ap = self.A(self.p)
            pAp = self._dot(self.p, Ap)
            active = (self.rz > self.rounding_floor) & (pAp > 0)
            alpha = xp.where(active, self.rz / xp.where(active, pAp, 1), 0)
            self.x += alpha * self.p
            if self.iter + 1 == self.max_iter:
                return  # only the next iteration needs the rest
            self.r -= alpha * Ap
            z = self.P(self.r)
            rz = self._dot(self.r, z)
            self.p *= rz / xp.where(self.rz > 0, self.rz, 1)
            self.p += z
            self.rz = rz


class ChebyshevIteration(sp.alg.Alg):
    """Chebyshev's semi-iteration, from zero, for many independent systems at once.

    Where bounds of the eigenvalues are known, it takes fixed steps, without inner products. Components with eigenvalues
    below ``lower_bound`` converge too, but slowly.

    Args:
        A (function): Hermitian, positive semi-definite linear mapping, block-diagonal over the leading axes; applied
            ``max_iter`` - 1 times.
        b (array): Right-hand sides.
        lower_bound (float or array): Lower end of the interval of eigenvalues with fast convergence, above 0.
        upper_bound (float or array): Upper bound of all eigenvalues. Arrays broadcast to ``b``.
        max_iter (int): Number of iterations.

    Attributes:
        x (array): Current solutions.

    References:
        Golub, G. H., & Varga, R. S. (1961). Chebyshev semi-iterative methods, successive overrelaxation iterative
        methods, and second order Richardson iterative methods. Numerische Mathematik, 3, 147-156.
    """

    def __init__(
        self, A: Operator, b: Array, lower_bound: float | Array, upper_bound: float | Array, max_iter: int
    ) -> None:
        self.A, self.r = A, b
        spread = upper_bound - lower_bound
        floor = MIN_SPREAD * upper_bound
        spread = spread + (spread < floor) * (floor - spread)
        self.radius = spread / 2
        self.ratio = (upper_bound + lower_bound) / spread
        self.rho = 1 / self.ratio
        self.device = sp.get_device(b)
        with self.device:
            self.x = self.device.xp.zeros_like(b)
            self.step = b * (self.rho / self.radius)
        super().__init__(max_iter)

    def _update(self) -> None:
        with self.device:
            if self.iter:
                self.r = self.r - self.A(self.step)
                rho = 1 / (2 * self.ratio - self.rho)
                self.step *= rho * self.rho
                self.step += (2 * rho / self.radius) * self.r
                self.rho = rho
            self.x += self.step


def run(alg: sp.alg.Alg) -> Array:
    """Run an algorithm to its end and return its solution ``x``."""
    while not alg.done():
        alg.update()
    return alg.x


class Solver(Protocol):
    """What data consistency needs of a solver."""

    def solve(self, normal: Operator, AHy: Array, x: Array, weight: float | Array) -> Array:
        """Solve :math:`(A^H A + w I) u = A^H y + w x` for u, starting at x.

        Args:
            normal (function): :math:`A^H A`.
            AHy (array): :math:`A^H y` (..., H, W).
            x (array): The input (..., H, W), which is not changed.
            weight (float or array): w, at least 0; an array broadcasts to ``x``.

        Returns:
            array: u, of the shape of ``x``.
        """
        ...


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The closed form, where A^H A = F^H diag(d) F with a unitary F. Where it is only close to that, a preconditioner.

    Attributes:
        transform: F, from images (..., H, W).
        diagonal: d, at least 0, of a shape that broadcasts to the images.
        ndim: Axes of an image.
    """

    transform: sp.linop.Linop
    diagonal: Array
    ndim: int = 2

    def solve(self, normal: Operator, AHy: Array, x: Array, weight: float | Array) -> Array:
        """Solve in one step, see :class:`Solver`."""
        xp, F = sp.get_array_module(x), self.transform
        total = self.diagonal + weight
        gain = xp.where(total > 0, 1 / xp.where(total > 0, total, 1), 0)
        k = F(x)
        return F.H(k + gain * (F(AHy) - self.diagonal * k))

    def preconditioner(self, weight: float | Array) -> Operator:
        """Return the mapping r -> F^H diag(1 / (d + w)) F r for conjugate gradients."""
        total = self.diagonal + weight
        top = total.max(axis=tuple(range(-self.ndim, 0)), keepdims=True)
        # Where A has a null space, the diagonal is rounding error, which a large gain would amplify.
        total = sp.get_array_module(total).where(total > PRECONDITIONER_FLOOR * top, total, top)
        return lambda r: self.transform.H(self.transform(r) / total)


@dataclass(frozen=True, eq=False)
class Chebyshev:
    """Chebyshev's iteration: fixed steps, and one application of A^H A less than conjugate gradients.

    Attributes:
        max_eigenvalue: Upper bound of the eigenvalues of A^H A; an array broadcasts to the images.
        max_iter: Number of iterations.
    """

    max_eigenvalue: float | Array
    max_iter: int = 2

    def solve(self, normal: Operator, AHy: Array, x: Array, weight: float | Array) -> Array:
        """Solve for the difference from x, see :class:`Solver`."""
        lower_bound = CHEBYSHEV_INTERVAL_RATIO * self.max_eigenvalue + weight
        upper_bound = self.max_eigenvalue + weight
        residual = AHy - normal(x)
        iteration = ChebyshevIteration(
            lambda u: normal(u) + weight * u, residual, lower_bound, upper_bound, self.max_iter
        )
        return x + run(iteration)


@dataclass(frozen=True, eq=False)
class ConjugateGradient:
    """Conjugate gradients, where nothing is known about A^H A, or only its approximate diagonal in k-space.

    Attributes:
        max_iter: Number of iterations.
        approximation: Diagonal form close to A^H A, used as preconditioner; None: no preconditioner.
        ndim: Axes of an image.
    """

    max_iter: int = 10
    approximation: Diagonal | None = None
    ndim: int = 2

    def solve(self, normal: Operator, AHy: Array, x: Array, weight: float | Array) -> Array:
        """Solve starting at a copy of x, see :class:`Solver`."""
        P = None if self.approximation is None else self.approximation.preconditioner(weight)
        b = AHy + weight * x
        return run(BatchConjugateGradient(lambda u: normal(u) + weight * u, b, x.copy(), self.ndim, self.max_iter, P))

"""Linear solvers for many independent systems at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import sigpy as sp

Array = Any  # numpy.ndarray or cupy.ndarray


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


def run(alg: sp.alg.Alg) -> Any:
    """Run an algorithm to its end and return its solution."""
    while not alg.done():
        alg.update()
    return alg.x

"""One operator for many arrays."""

import sigpy as sp

from hggdp_plugin._typing import Array


class Stacked(sp.linop.Linop):
    """Apply an operator to each of several arrays, stacked along a new leading axis.

    Args:
        A (Linop): The operator.
        n (int): Number of arrays.
    """

    def __init__(self, A: sp.linop.Linop, n: int) -> None:
        self.A, self.n = A, n
        super().__init__([n, *A.oshape], [n, *A.ishape])

    def _apply(self, input: Array) -> Array:
        with sp.get_device(input):
            return sp.get_array_module(input).stack([self.A(item) for item in input])

    def _adjoint_linop(self) -> sp.linop.Linop:
        return Stacked(self.A.H, self.n)

    def _normal_linop(self) -> sp.linop.Linop:
        return Stacked(self.A.N, self.n)

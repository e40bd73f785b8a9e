"""The high-dimensional embedding of HGGDP: several views of one image."""

from collections.abc import Sequence

import sigpy as sp

from hggdp_plugin._typing import Array


class Replicate(sp.linop.Linop):
    r"""Copy an image into K views.

    .. math:: R x = (x, \dots, x), \quad R^H X = \sum_k X_k, \quad R^H R = K I

    Args:
        ishape (sequence of int): Image shape (..., H, W).
        views (int): Number of views K; the shape of the output is (..., K, H, W).
    """

    def __init__(self, ishape: Sequence[int], views: int) -> None:
        self.views = views
        super().__init__([*ishape[:-2], views, *ishape[-2:]], ishape)

    def _apply(self, input: Array) -> Array:
        xp = sp.get_array_module(input)
        return xp.repeat(input[..., None, :, :], self.views, axis=-3)

    def _adjoint_linop(self) -> sp.linop.Linop:
        return _SumViews(self.oshape)

    def _normal_linop(self) -> sp.linop.Linop:
        return sp.linop.Multiply(self.ishape, self.views)


class _SumViews(sp.linop.Linop):
    """Adjoint of :class:`Replicate`."""

    def __init__(self, ishape: Sequence[int]) -> None:
        super().__init__([*ishape[:-3], *ishape[-2:]], ishape)

    def _apply(self, input: Array) -> Array:
        return input.sum(axis=-3)

    def _adjoint_linop(self) -> sp.linop.Linop:
        return Replicate(self.oshape, self.ishape[-3])

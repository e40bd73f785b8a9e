"""Fourier transforms of images with the origin at index 0."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import sigpy as sp
import torch

from hggdp_plugin import interop
from hggdp_plugin._typing import Array


def for_fft(array: Array) -> tuple[Array | torch.Tensor, ModuleType]:
    """Return an array as the fastest FFTs of its device take it, and the module of these FFTs.

    On a GPU these are CuPy's. On the CPU they are PyTorch's, on a tensor that shares the memory of the array: faster
    than SciPy's, on the threads that the network has just used.

    Args:
        array (array): NumPy or CuPy array.

    Returns:
        tuple: Tensor or CuPy array, and ``torch.fft`` or ``cupy.fft``.
    """
    if isinstance(array, np.ndarray):
        return interop.to_torch(array), torch.fft
    return array, sp.get_array_module(array).fft


def from_fft(array: Array | torch.Tensor) -> Array:
    """Return the NumPy or CuPy array again."""
    return interop.to_array(array) if isinstance(array, torch.Tensor) else array


class FFT(sp.linop.Linop):
    """Unitary Fourier transform along the last axes, all origins at index 0.

    Faster than :class:`sigpy.linop.FFT`; the two shifts of a centered transform cancel in a round trip.

    Args:
        shape (sequence of int): Shape of input and output.
        ndim (int): Number of axes to transform, 2 or 3.
        inverse (bool): Whether to transform back.
    """

    def __init__(self, shape: Sequence[int], ndim: int = 2, inverse: bool = False) -> None:
        self.ndim, self.inverse = ndim, inverse
        super().__init__(shape, shape)

    def _apply(self, input: Array) -> Array:
        with sp.get_device(input):
            x, fft = for_fft(input)
            transform = fft.ifftn if self.inverse else fft.fftn
            return from_fft(transform(x, None, tuple(range(-self.ndim, 0)), "ortho"))

    def _adjoint_linop(self) -> sp.linop.Linop:
        return FFT(self.ishape, self.ndim, not self.inverse)


class FFT2(FFT):
    """:class:`FFT` along the last two axes.

    Args:
        shape (sequence of int): Shape of input and output.
        inverse (bool): Whether to transform back.
    """

    def __init__(self, shape: Sequence[int], inverse: bool = False) -> None:
        super().__init__(shape, 2, inverse)

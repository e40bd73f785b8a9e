"""Fourier transforms of images that need not be centred."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sigpy as sp
import torch

from hggdp_plugin import interop


def for_fft(array: Any) -> tuple[Any, Any]:
    """An array as the fastest FFTs of its device take it, and the module of these FFTs.

    On a GPU these are CuPy's. On the CPU they are torch's, on a tensor that shares the array's memory: faster
    than SciPy's, on the threads that the network has just used.
    """
    if isinstance(array, np.ndarray):
        return interop.to_torch(array), torch.fft
    return array, sp.get_array_module(array).fft


def from_fft(array: Any) -> Any:
    """The NumPy or CuPy array again."""
    return interop.to_array(array) if isinstance(array, torch.Tensor) else array


class FFT2(sp.linop.Linop):
    """Unitary Fourier transform along the last two axes, both origins at index 0.

    Faster than :class:`sigpy.linop.FFT`; the two shifts of a centred transform cancel in a round trip.

    Args:
        shape (tuple of ints): Shape of input and output.
        inverse (bool): Whether to transform back.
    """

    def __init__(self, shape: Sequence[int], inverse: bool = False) -> None:
        self.inverse = inverse
        super().__init__(shape, shape)

    def _apply(self, input: Any) -> Any:
        with sp.get_device(input):
            x, fft = for_fft(input)
            return from_fft((fft.ifft2 if self.inverse else fft.fft2)(x, norm="ortho"))

    def _adjoint_linop(self) -> sp.linop.Linop:
        return FFT2(self.ishape, not self.inverse)

"""Fourier transforms of images that need not be centred."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import sigpy as sp

#: Threads of an FFT on a CPU: as many as torch takes.
_THREADS = int(asked) if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdigit() else os.cpu_count()


def fft_of(array: Any) -> tuple[Any, dict[str, Any]]:
    """The module of an array's FFTs, and options for its functions: SciPy's take a third of the time of NumPy's."""
    if isinstance(array, np.ndarray):
        return scipy.fft, {"workers": _THREADS}
    return sp.get_array_module(array).fft, {}


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
        fft, options = fft_of(input)
        with sp.get_device(input):
            return (fft.ifft2 if self.inverse else fft.fft2)(input, norm="ortho", **options)

    def _adjoint_linop(self) -> sp.linop.Linop:
        return FFT2(self.ishape, not self.inverse)

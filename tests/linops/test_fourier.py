"""The transform that is not centered: a unitary linear operator, what NumPy computes."""

import numpy as np
import pytest

from hggdp_plugin.linops import FFT2

SHAPE = (2, 6, 5)


@pytest.mark.parametrize("inverse", [False, True])
def test_it_is_a_unitary_operator(inverse, device, check_linop):
    F = FFT2(SHAPE, inverse)
    check_linop(F, SHAPE, SHAPE, device)
    x = np.random.default_rng(0).standard_normal((*SHAPE, 2), dtype=np.float32).view(np.complex64)[..., 0]
    np.testing.assert_allclose(F.H(F(x)), x, atol=1e-6)
    np.testing.assert_allclose(F(x), (np.fft.ifft2 if inverse else np.fft.fft2)(x, norm="ortho"), atol=1e-6)

"""Stacked: one operator for many arrays."""

import numpy as np
import sigpy as sp

from hggdp_plugin.linops import Sense, Stacked


def test_it_is_a_linear_operator(device, check_linop):
    with device:
        mps = device.xp.ones((2, 5, 4), np.complex64) * device.xp.asarray([1, 1j], np.complex64)[:, None, None]
    check_linop(Stacked(Sense(mps, (2,)), 3), (3, 2, 5, 4), (3, 2, 2, 5, 4), device)


def test_arrays_are_mapped_one_by_one():
    A = sp.linop.Multiply((2, 2), np.arange(4, dtype=np.complex64).reshape(2, 2))
    x = np.arange(12, dtype=np.complex64).reshape(3, 2, 2)
    np.testing.assert_array_equal(Stacked(A, 3)(x), np.stack([A(item) for item in x]))

"""Replicate: the embedding of an image in several views."""

import numpy as np
import pytest

from hggdp_plugin.linops import Replicate


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_it_is_a_linear_operator(batch, device, check_linop):
    check_linop(Replicate((*batch, 5, 4), 3), (*batch, 5, 4), (*batch, 3, 5, 4), device)


def test_views_are_copies_and_the_adjoint_is_their_sum():
    x = np.arange(20).reshape(5, 4) * (1 + 1j)
    R = Replicate(x.shape, 3)
    np.testing.assert_array_equal(R(x), [x, x, x])
    np.testing.assert_array_equal(R.H(R(x)), 3 * x)
    np.testing.assert_array_equal(R.N(x), 3 * x)

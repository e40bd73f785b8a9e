"""Flips and quarter turns, and volumes as slices."""

import numpy as np
import pytest

from hggdp_plugin.linops import flips, slice_stacks


@pytest.mark.parametrize("k", range(8))
@pytest.mark.parametrize("batch", [(), (2,)])
def test_each_is_a_unitary_operator(k, batch, device, check_linop):
    T = flips((*batch, 5, 4))[k]
    check_linop(T, (*batch, 5, 4), (*batch, 5, 4) if k < 4 else (*batch, 4, 5), device)
    x = device.xp.arange(int(np.prod((*batch, 5, 4)))).reshape(*batch, 5, 4) * (1 + 1j)
    assert (T.H(T(x)) == x).all()


def test_there_are_eight():
    x = np.arange(16.0).reshape(4, 4)
    assert len({T(x).tobytes() for T in flips(x.shape)}) == 8


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("batch", [(), (2,)])
def test_volumes_as_slices(axis, batch, device, check_linop):
    T = slice_stacks((*batch, 3, 4, 5))[axis]
    check_linop(T, (*batch, 3, 4, 5), (*batch, *((3, 4, 5), (4, 3, 5), (5, 3, 4))[axis]), device)
    x = device.xp.arange(60 * int(np.prod(batch))).reshape(*batch, 3, 4, 5) * (1 + 1j)
    assert (T(x)[..., 1, :, :] == x.take(1, axis=axis - 3)).all()
    assert (T.H(T(x)) == x).all()

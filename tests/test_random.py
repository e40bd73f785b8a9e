"""Random numbers: their distribution, and that they follow from the seed."""

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin.random import complex_normal, complex_uniform


def test_noise_has_unit_variance_per_real_channel(device):
    with device:
        z = sp.to_device(complex_normal(device.xp.random.default_rng(0), (100, 200)))
    assert z.dtype == np.complex64
    n = z.size
    for channel in (z.real, z.imag):
        assert abs(channel.mean()) < 5 / n**0.5
        assert abs(channel.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((z.real * z.imag).mean()) < 5 / n**0.5


def test_uniform_noise_is_in_the_unit_square(device):
    with device:
        z = sp.to_device(complex_uniform(device.xp.random.default_rng(0), (100, 200)))
    assert z.dtype == np.complex64
    for channel in (z.real, z.imag):
        assert 0 <= channel.min() < 0.01
        assert 0.99 < channel.max() < 1


@pytest.mark.parametrize("draw", [complex_normal, complex_uniform])
def test_same_seed_same_noise(draw):
    first, second, other = (draw(np.random.default_rng(seed), (3, 4)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).all()

"""Scale and noise level from the measurements alone."""

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array

from hggdp_plugin.scaling import estimate_noise, estimate_scale


@pytest.mark.parametrize("factor", [1e-15, 1e-6, 1e6, 1e15, np.exp(2j), -3])
def test_the_scale_follows_the_image(factor, device):
    image = complex_array(3, 20, 30) + 0.5
    scale = sp.to_device(estimate_scale(sp.to_device(image, device)))
    scaled = sp.to_device(estimate_scale(sp.to_device((factor * image).astype(np.complex64), device)))
    assert scale.dtype == np.complex64
    assert scale.shape == (3, 1, 1)
    np.testing.assert_allclose(scaled, factor * scale, rtol=1e-4)


def test_an_image_divided_by_its_scale_is_as_the_prior_expects():
    y, x = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64), indexing="ij")
    image = 40 * np.exp(-3 * (x**2 + y**2)) * np.exp(1.2j + 0.3j * x)
    image = image / estimate_scale(image)
    assert 0.5 < abs(image).max() < 1.5
    assert abs(np.angle((image * abs(image)).sum())) < 1e-3


def test_one_hot_pixel_does_not_matter():
    image = complex_array(64, 64)
    hot = image.copy()
    hot[3, 4] = 1e4
    assert abs(estimate_scale(hot)[0, 0]) == pytest.approx(abs(estimate_scale(image)[0, 0]), rel=0.05)


def test_an_empty_slice_has_scale_one():
    image = np.stack([np.zeros((8, 8)), np.ones((8, 8))]).astype(np.complex64)
    scale = estimate_scale(image)
    assert scale[0] == 1
    assert scale[1] != 1


@pytest.mark.parametrize("mask_fraction", [1.0, 0.3])
def test_noise_is_measured_in_the_periphery(mask_fraction, device):
    shape, variance = (64, 60), np.array([0.01, 4.0])
    radius = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")).astype(np.float32)
    signal = 100 * np.exp(-10 * radius)
    y = signal + np.sqrt(variance / 2)[:, None, None, None] * complex_array(2, 3, *shape)
    y = (y * (np.random.default_rng(1).random(shape) < mask_fraction)).astype(np.complex64)
    found = sp.to_device(estimate_noise(sp.to_device(y, device), sp.to_device(radius, device)))
    assert found.shape == (2, 1, 1)
    assert found.dtype == np.float32
    samples = 0.1 * mask_fraction * radius.size * 3
    # The standard error of an exponential's median is 1 / sqrt(n), of 0.69; signal that is left adds a little.
    np.testing.assert_allclose(found[:, 0, 0], variance, rtol=5 / (np.log(2) * samples**0.5) + 0.05)


def test_noise_of_a_slice_without_samples_is_zero():
    y = np.zeros((2, 1, 8, 8), np.complex64)
    y[1] = complex_array(1, 8, 8)
    radius = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, 8)] * 2)).astype(np.float32)
    found = estimate_noise(y, radius)
    assert found[0] == 0
    assert found[1] > 0

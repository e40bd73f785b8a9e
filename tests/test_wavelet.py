import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin.wavelet import HaarDenoiser


def noise(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", [(64, 48), (3, 37, 50), (5, 4)])
def test_without_noise_nothing_changes(device: sp.Device, shape: tuple[int, ...]) -> None:
    x = sp.to_device(noise(shape), device)
    y = HaarDenoiser()(x, 0.0)
    assert y.dtype == np.complex64
    np.testing.assert_allclose(sp.to_device(y), noise(shape), atol=2e-6)


def test_a_constant_image_is_kept_and_single_coefficients_shrink_by_the_threshold() -> None:
    constant = np.full((32, 32), 1 + 2j, np.complex64)
    np.testing.assert_allclose(HaarDenoiser()(constant, 10.0), constant, rtol=1e-5)
    # One level, no shift: a checkerboard is one kind of coefficients, of magnitude 2.
    y, x = np.indices((32, 32))
    board = ((-1.0) ** (x + y)).astype(np.complex64)
    for sigma, left in ((0.5, 0.75), (3.0, 0.0)):
        np.testing.assert_allclose(HaarDenoiser(levels=1)(board, sigma), left * board, atol=1e-6)


def test_it_takes_away_most_of_the_noise_but_not_an_edge() -> None:
    image = np.zeros((64, 64), np.complex64)
    image[20:, 30:] = 1
    noisy = image + 0.1 * noise(image.shape)
    denoised = np.mean([HaarDenoiser(threshold=3.0, seed=seed)(noisy, 0.1) for seed in range(4)], axis=0)
    assert np.linalg.norm(denoised - image) < 0.4 * np.linalg.norm(noisy - image)


def test_it_brings_no_two_images_farther_apart() -> None:
    a, b = noise((48, 48)), noise((96, 48))[48:]
    for sigma in (0.1, 1.0):
        distance = np.linalg.norm(HaarDenoiser(seed=3)(a, sigma) - HaarDenoiser(seed=3)(b, sigma))
        assert distance <= np.linalg.norm(a - b) * (1 + 1e-5)

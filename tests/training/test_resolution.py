"""Smaller parts of k-space."""

import math

import pytest
import torch

from hggdp_plugin.training.resolution import resample


def run(image, fraction=(1.0, 1.0), spacing=1.0, offset=(0.0, 0.0), taper=False, size=None):
    return resample(
        image[None, None],
        torch.tensor([fraction]),
        torch.tensor([spacing]),
        torch.tensor([offset]),
        torch.tensor([taper]),
        size or image.shape,
    )[0, 0]


def cosine(length, order):
    return torch.cos(math.pi * order * (torch.arange(length) + 0.5) / length)


def test_all_of_kspace_is_the_image_itself():
    image = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(run(image), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(image, offset=(2.0, 3.0), size=(8, 9)), image[2:10, 3:12], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("order", "kept"), [(0, 1.0), (7, 1.0), (8, 0.0), (12, 0.0)])
def test_frequencies_below_the_cutoff_are_kept_and_others_are_not(order, kept):
    image = cosine(16, 1)[:, None] * cosine(16, order)
    torch.testing.assert_close(run(image, (1.0, 0.5)), kept * image, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(image.T, (0.5, 1.0)), kept * image.T, rtol=0, atol=1e-5)


def test_a_taper_weighs_frequencies_as_a_hamming_window():
    image = cosine(16, 4)[:, None].expand(16, 16)
    expected = (0.54 + 0.46 * math.cos(math.pi * 4 / 8)) * image
    torch.testing.assert_close(run(image, (0.5, 0.5), taper=True), expected, rtol=0, atol=1e-5)


def test_larger_pixels_sample_the_same_function():
    image = cosine(32, 3)[:, None] * cosine(32, 2)
    expected = cosine(16, 3)[:, None] * cosine(16, 2)
    torch.testing.assert_close(run(image, (0.5, 0.5), 2.0, size=(16, 16)), expected, rtol=0, atol=1e-5)


def test_autocast_does_not_round():
    image = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(image, (0.6, 0.7))
    torch.testing.assert_close(rounded, run(image, (0.6, 0.7)), rtol=0, atol=0)

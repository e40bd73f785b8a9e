"""Synthetic training images."""

import pytest
import torch

from hggdp_plugin.training.synthetic import dead_leaves, random_regions, synthetic_domains


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("make", [dead_leaves, random_regions])
def test_images_are_magnitudes_with_maximum_one_that_follow_from_the_generator(make):
    images = make(6, 64, generator())
    assert images.shape == (6, 64, 64)
    assert images.min() >= 0
    torch.testing.assert_close(images.amax((1, 2)), torch.ones(6))
    torch.testing.assert_close(make(6, 64, generator()), images, rtol=0, atol=0)
    assert (make(6, 64, generator(1)) != images).any()
    assert (images.std((1, 2)) > 0.02).all()
    assert len({tuple(image.flatten()[:200].tolist()) for image in images[images.flatten(1)[:, :200].any(1)]}) > 1


def test_dead_leaves_are_piecewise_smooth():
    """Neighbors are mostly alike, but some differ much: edges, which noise of the same variance has everywhere."""
    images = dead_leaves(8, 128, generator())
    steps = images.diff(dim=2).abs()
    assert (steps < 0.02).float().mean() > 0.6
    assert (steps > 0.1).float().mean() > 0.01


def test_domains_have_the_images_asked_for():
    domains = synthetic_domains(3, 64, generator(), weight=0.5)
    assert [(d.name, len(d.images), d.weight) for d in domains] == [("dead_leaves", 3, 0.5), ("regions", 3, 0.5)]
    for domain in domains:
        for image in domain.images:
            assert image.shape == (2, 64, 64)
            assert not image[1].any()

"""Denoising score matching: the noise levels, the weights and the optimum."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.training.loss import denoising_loss, draw_sigma


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_levels_are_log_normal_within_the_range():
    model = SimpleNamespace(sigma_min=0.01, sigma_max=1.0)
    sigma = draw_sigma(model, 8, generator())
    normal = scipy.stats.norm(-1, 2 / (2 * 2.25))  # of log10
    low, high = normal.cdf([-2, 0])
    eighths = (normal.cdf(torch.log10(sigma)) - low) / (high - low) * 8
    assert np.floor(eighths).tolist() == list(range(8))  # one in each eighth of the distribution
    assert (sigma != draw_sigma(model, 8, generator(1))).all()
    many = draw_sigma(model, 10_000, generator())
    assert model.sigma_min <= many.min() < 0.0102
    assert 0.98 < many.max() <= model.sigma_max


def test_levels_are_drawn_from_those_of_a_network_that_has_some():
    model = SimpleNamespace(sigmas=(1.0, 0.1, 0.01))
    sigma = draw_sigma(model, 3000, generator())
    values, counts = sigma.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.01, 0.1, 1.0]))
    assert (abs(counts - 1000) < 5 * (3000 * 2 / 9) ** 0.5).all()


class Scaled(torch.nn.Module):
    """The denoiser gain * mean of K views."""

    stride, sigma_min, sigma_max = 1, 0.01, 1.0

    def __init__(self, views, gain):
        super().__init__()
        self.views, self.gain = views, gain

    def forward(self, x, sigma):
        return self.gain * x.unflatten(1, (self.views, 2)).mean(1).repeat(1, self.views, 1, 1)


@pytest.mark.parametrize("views", [1, 3])
def test_the_loss_is_least_at_the_posterior_mean(views):
    """For normal pixels of variance v the best gain is v / (v + sigma^2 / K), where the loss is known."""
    v, s, n = 0.04, 0.3, 64
    x = v**0.5 * torch.randn(n, 2, 32, 32, generator=generator(5))
    sigma = torch.full((n,), s)
    best = v / (v + s**2 / views)
    losses = [float(denoising_loss(Denoiser(Scaled(views, best + d)), x, sigma, generator())) for d in (-0.1, 0, 0.1)]
    assert losses[1] < min(losses[0], losses[2])
    expected = best * s**2 / views / s**2  # the posterior variance over sigma^2
    assert losses[1] == pytest.approx(expected, rel=5 * (2 / x.numel()) ** 0.5)


@pytest.mark.parametrize("views", [1, 3])
def test_a_preconditioned_network_starts_with_unit_loss_at_every_level(views):
    """Untrained it is the best linear denoiser of its sigma_data, whose weighted error is 1 by construction."""
    denoiser = Denoiser(UNet(views=views, widths=(4,), blocks=1))
    x = 0.12 * torch.randn(64, 2, 32, 32, generator=generator(5))
    for s in (0.01, 0.1, 1.0):
        with torch.no_grad():
            loss = float(denoising_loss(denoiser, x, torch.full((64,), s), generator()))
        assert loss == pytest.approx(1, rel=5 * (2 / x.numel()) ** 0.5)


def test_the_loss_follows_from_the_generator():
    x, sigma = torch.randn(2, 2, 8, 8), torch.tensor([0.1, 0.5])
    first = denoising_loss(Denoiser(Scaled(2, 0.5)), x, sigma, generator())
    assert first == denoising_loss(Denoiser(Scaled(2, 0.5)), x, sigma, generator())
    assert first != denoising_loss(Denoiser(Scaled(2, 0.5)), x, sigma, generator(1))


def test_with_levels_it_is_the_score_matching_of_the_paper():
    """sigma^2 |s(X + sigma N, i) + N / sigma|^2, but for the factor of its sum."""
    torch.manual_seed(0)
    network = RefineNet(views=3, width=2)
    x, labels = 0.2 * torch.randn(4, 2, 8, 8), torch.tensor([0, 3, 6, 9])
    sigma = torch.tensor(network.sigmas)[labels]
    s = sigma[:, None, None, None]
    with torch.no_grad():
        loss = denoising_loss(Denoiser(network), x, sigma, generator())
        clean = torch.cat([x, x, x], 1)
        noise = torch.randn(clean.shape, generator=generator())
        paper = 0.5 * ((network.score(clean + s * noise, labels) + noise / s) ** 2 * s**2).sum((1, 2, 3)).mean()
    torch.testing.assert_close(0.5 * clean[0].numel() * loss, paper)

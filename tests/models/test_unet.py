"""The U-Net: its preconditioning, its sizes and its description."""

import pytest
import torch

from hggdp_plugin.models.unet import UNet


@pytest.mark.parametrize("views", [1, 3])
def test_an_untrained_network_is_the_best_linear_denoiser(views):
    """The tail starts at zero: what is left is the posterior mean of normal pixels of variance sigma_data^2."""
    network = UNet(views=views, widths=(4, 8), blocks=1)
    x, sigma = torch.randn(2, 2 * views, 8, 8), torch.tensor([0.05, 0.7])
    mean = x.unflatten(1, (views, 2)).mean(1)
    gain = 0.12**2 / (0.12**2 + sigma**2 / views)
    expected = (gain[:, None, None, None] * mean).repeat(1, views, 1, 1)
    torch.testing.assert_close(network(x, sigma), expected)


def test_at_the_start_convolutions_keep_the_variance_or_are_zero():
    network = UNet(widths=(32, 48), blocks=1)
    for layer in (network.head, network.down[0], network.up[0], network.merge[0], network.encoder[0][0].conv1):
        x = torch.randn(2, layer.in_channels, 24, 24, generator=torch.Generator().manual_seed(0))
        assert float(layer(x)[..., 2:-2, 2:-2].detach().std()) == pytest.approx(1, rel=0.15)
    assert not network.encoder[0][0].conv2.weight.any()
    assert not network.tail.weight.any()


@pytest.mark.parametrize("views", [1, 2])
def test_all_views_get_the_one_image_that_they_share(make_network, views):
    network = make_network(views)
    x = torch.randn(3, 2 * views, 8, 12)
    y = network(x, torch.tensor([0.01, 0.1, 1.0])).detach()
    assert y.shape == x.shape
    torch.testing.assert_close(y, y[:, :2].repeat(1, views, 1, 1), rtol=0, atol=0)


def test_items_of_a_batch_do_not_see_each_other(make_network):
    network = make_network()
    x, sigma = torch.randn(2, 2, 8, 8), torch.tensor([0.05, 0.7])
    with torch.no_grad():
        together = network(x, sigma)
        for i in range(2):
            torch.testing.assert_close(network(x[i : i + 1], sigma[i : i + 1])[0], together[i])


def test_the_noise_level_matters_to_the_network(make_network):
    network = make_network()
    with torch.no_grad():
        a, b = (network.embedding(torch.tensor([sigma])) for sigma in (0.1, 0.11))
    assert (a - b).abs().max() > 1e-3


def test_its_description_builds_it_again():
    network = UNet(views=2, widths=(4, 8), blocks=3, sigma_data=0.2, sigma_min=0.01, sigma_max=2.0)
    again = UNet(**network.config)
    again.load_state_dict(network.state_dict())
    assert again.config == network.config
    assert (again.stride, again.sigma_min, again.sigma_max, again.views) == (4, 0.01, 2.0, 2)


def test_every_parameter_learns(make_network):
    network = make_network()
    network(torch.randn(1, 2, 8, 8), torch.tensor([0.3])).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name

"""The U-Net: its preconditioning, its sizes and its description."""

import pytest
import torch

from hggdp_plugin.interop import channels_to_views, views_to_channels
from hggdp_plugin.models.unet import UNet, adapted, rotated, smooth_phase


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
    network = UNet(views=2, widths=(4, 8), blocks=3, sigma_data=0.2, sigma_min=0.01, sigma_max=2.0, phase_pixels=4)
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


@pytest.mark.parametrize("views", [1, 2])
def test_with_its_phase_taken_out_an_image_of_any_phase_is_denoised_alike(make_network, views):
    network = adapted(make_network(views), phase_pixels=4).eval()
    x, sigma = torch.randn(2, views, 16, 12, dtype=torch.complex64), torch.tensor([0.05, 0.7])
    for phase in (0.7, 2.5, -1.3):
        turned = x * torch.tensor(1j * phase).exp()
        with torch.no_grad():
            one, other = (channels_to_views(network(views_to_channels(z), sigma)) for z in (x, turned))
        torch.testing.assert_close(other, one * torch.tensor(1j * phase).exp())


def test_the_smooth_phase_of_a_positive_image_is_found():
    t = torch.linspace(0, 2, 64)
    phase = 2 + torch.sin(t[:, None]) * torch.cos(t[None, :])
    z = torch.polar(0.5 + torch.rand(64, 64), phase)
    image = views_to_channels(z[None, None])
    cos, sin = smooth_phase(image, 8)
    torch.testing.assert_close(cos**2 + sin**2, torch.ones(1, 1, 64, 64))
    demodulated = rotated(image, cos, -sin)
    assert (demodulated[:, 1].abs() < 0.15 * demodulated[:, 0]).all()
    torch.testing.assert_close(rotated(demodulated, cos, sin), image)


def test_a_deepened_network_starts_as_the_same_function(make_network):
    network = make_network()
    blocks = network.config["blocks"]
    deeper = adapted(network, blocks=blocks + 1)
    x, sigma = torch.randn(2, 2, 8, 8), torch.tensor([0.05, 0.7])
    torch.testing.assert_close(deeper(x, sigma), network(x, sigma), rtol=0, atol=0)
    assert deeper.config == {**network.config, "blocks": blocks + 1}
    with pytest.raises(ValueError, match=f"blocks: {blocks} are fewer than the {blocks + 1} of the network"):
        adapted(deeper, blocks=blocks)

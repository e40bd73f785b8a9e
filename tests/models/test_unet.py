"""The U-Net: its initialization and its description."""

import pytest
import torch

from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.unet import UNet, adapt


def test_at_the_start_convolutions_keep_the_variance_or_are_zero():
    network = UNet(widths=(32, 48), blocks=1)
    for layer in (network.head, network.down[0], network.up[0], network.merge[0], network.encoder[0][0].conv1):
        x = torch.randn(2, layer.in_channels, 24, 24, generator=torch.Generator().manual_seed(0))
        assert float(layer(x)[..., 2:-2, 2:-2].detach().std()) == pytest.approx(1, rel=0.15)
    assert not network.encoder[0][0].conv2.weight.any()
    assert not network.tail.weight.any()


def test_the_noise_level_matters_to_the_network(make_network):
    network = make_network()
    with torch.no_grad():
        a, b = (network.embedding(torch.tensor([sigma])) for sigma in (0.1, 0.11))
    assert (a - b).abs().max() > 1e-3


def test_its_description_builds_it_again():
    network = UNet(views=2, widths=(4, 8), blocks=3, sigma_data=0.2, sigma_min=0.01, sigma_max=2.0, phase_resolution=4)
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


def test_a_deepened_network_starts_as_the_same_function(make_network):
    network = make_network()
    blocks = network.config["blocks"]
    deeper = adapt(network, blocks=blocks + 1)
    x, sigma = torch.randn(2, 2, 8, 8), torch.tensor([0.05, 0.7])
    torch.testing.assert_close(Denoiser(deeper)(x, sigma), Denoiser(network)(x, sigma), rtol=0, atol=0)
    assert deeper.config == {**network.config, "blocks": blocks + 1}
    with pytest.raises(ValueError, match=f"blocks: {blocks} are fewer than the {blocks + 1} of the network"):
        adapt(deeper, blocks=blocks)

"""The denoiser around a network: preconditioning, views, phase removal and image sizes."""

import pytest
import torch
from torch import nn

from hggdp_plugin.interop import channels_to_views, views_to_channels
from hggdp_plugin.models.denoiser import Denoiser, mean_view, rotate_phase, smooth_phase
from hggdp_plugin.models.unet import UNet, adapt


@pytest.mark.parametrize("views", [1, 3])
def test_an_untrained_network_is_the_best_linear_denoiser(views):
    """The tail starts at zero: what is left is the posterior mean of normal pixels of variance sigma_data^2."""
    denoiser = Denoiser(UNet(views=views, widths=(4, 8), blocks=1))
    x, sigma = torch.randn(2, 2 * views, 8, 8), torch.tensor([0.05, 0.7])
    gain = 0.12**2 / (0.12**2 + sigma**2 / views)
    expected = (gain[:, None, None, None] * mean_view(x)).repeat(1, views, 1, 1)
    torch.testing.assert_close(denoiser(x, sigma), expected)


@pytest.mark.parametrize("views", [1, 2])
def test_all_views_get_the_one_image_that_they_share(make_network, views):
    x = torch.randn(3, 2 * views, 8, 12)
    y = Denoiser(make_network(views))(x, torch.tensor([0.01, 0.1, 1.0])).detach()
    assert y.shape == x.shape
    torch.testing.assert_close(y, y[:, :2].repeat(1, views, 1, 1), rtol=0, atol=0)


def test_items_of_a_batch_are_independent(make_network):
    denoiser = Denoiser(make_network())
    x, sigma = torch.randn(2, 2, 8, 8), torch.tensor([0.05, 0.7])
    with torch.no_grad():
        together = denoiser(x, sigma)
        for i in range(2):
            torch.testing.assert_close(denoiser(x[i : i + 1], sigma[i : i + 1])[0], together[i])
            torch.testing.assert_close(denoiser(x[i : i + 1], float(sigma[i]))[0], together[i])


class Recorder(nn.Module):
    """The identity, with a stride; remembers its inputs."""

    views, stride, sigma_min, sigma_max = 1, 4, 0.01, 1.0

    def __init__(self, **attributes):
        super().__init__()
        self.seen = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x, sigma):
        self.seen.append(x)
        return x


@pytest.mark.parametrize("shape", [(8, 12), (6, 11), (3, 2)])
def test_images_of_any_size_are_padded_and_cropped(shape):
    network = Recorder()
    x = torch.randn(2, 2, *shape)
    torch.testing.assert_close(Denoiser(network)(x, 0.1), x, rtol=0, atol=0)
    (seen,) = network.seen
    assert all(size % 4 == 0 and size - 4 < before <= size for size, before in zip(seen.shape[2:], shape, strict=True))
    torch.testing.assert_close(seen[..., : shape[0], : shape[1]], x, rtol=0, atol=0)
    if shape == (6, 11):
        torch.testing.assert_close(seen[:, :, 6:, :11], x.flip(2)[:, :, 1:3], rtol=0, atol=0)  # reflected


@pytest.mark.parametrize("views", [1, 2])
def test_with_its_phase_removed_an_image_of_any_phase_is_denoised_alike(make_network, views):
    denoiser = Denoiser(adapt(make_network(views), phase_resolution=4))
    x, sigma = torch.randn(2, views, 16, 12, dtype=torch.complex64), torch.tensor([0.05, 0.7])
    for phase in (0.7, 2.5, -1.3):
        rotated = x * torch.tensor(1j * phase).exp()
        with torch.no_grad():
            one, other = (channels_to_views(denoiser(views_to_channels(z), sigma)) for z in (x, rotated))
        torch.testing.assert_close(other, one * torch.tensor(1j * phase).exp())


def test_the_mode_of_the_network_does_not_matter(make_network):
    network = adapt(make_network(), phase_resolution=4)
    x = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        results = [Denoiser(network.train(mode))(x, 0.1) for mode in (True, False)]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_given_phase_is_removed_instead_of_the_estimated_one():
    network = Recorder(phase_resolution=2)
    x, phase = torch.randn(1, 2, 8, 8), torch.polar(torch.ones(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    denoiser = Denoiser(network)
    for argument, removed in ((phase, phase), (None, denoiser.estimate_phase(x)), (1, torch.ones_like(phase))):
        torch.testing.assert_close(denoiser(x, 0.1, argument), x)
        torch.testing.assert_close(network.seen[-1], rotate_phase(x, removed.conj()))


def test_a_given_phase_is_padded_as_the_image_is():
    network = Recorder()
    x, phase = torch.randn(1, 2, 6, 7), torch.polar(torch.ones(1, 1, 6, 7), torch.rand(1, 1, 6, 7))
    torch.testing.assert_close(Denoiser(network)(x, 0.1, phase), x)
    torch.testing.assert_close(network.seen[-1][..., :6, :7], rotate_phase(x, phase.conj()))


def test_images_without_phase_are_real_and_positive_at_its_resolution():
    x = torch.randn(2, 2, 8, 8)
    removed = Denoiser(Recorder(phase_resolution=1)).remove_phase(x)
    torch.testing.assert_close(removed, torch.stack([x.norm(dim=1), torch.zeros(2, 8, 8)], dim=1))
    assert Denoiser(Recorder()).remove_phase(x) is x


def test_a_network_without_preconditioning_is_the_denoiser_itself():
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(Denoiser(Recorder())(x, 0.1), x, rtol=0, atol=0)


def test_an_eager_denoiser_does_not_call_the_compiled_network(make_network):
    network, compiled = make_network(), []
    network.compile(backend=lambda graph, inputs: compiled.append(1) or graph.forward)
    x = torch.randn(1, 2, 8, 8)
    expected = Denoiser(network, eager=True)(x, 0.1)
    assert not compiled
    torch.testing.assert_close(Denoiser(network)(x, 0.1), expected)
    assert compiled


def test_the_smooth_phase_of_a_positive_image_is_found():
    t = torch.linspace(0, 2, 64)
    phase = 2 + torch.sin(t[:, None]) * torch.cos(t[None, :])
    image = views_to_channels(torch.polar(0.5 + torch.rand(64, 64), phase)[None, None])
    found = smooth_phase(image, 8)
    torch.testing.assert_close(found.abs(), torch.ones(1, 1, 64, 64))
    removed = rotate_phase(image, found.conj())
    assert (removed[:, 1].abs() < 0.15 * removed[:, 0]).all()
    torch.testing.assert_close(rotate_phase(removed, found), image)


def test_a_denoised_view_becomes_complex_without_a_copy(make_network):
    denoiser = Denoiser(adapt(make_network(), phase_resolution=4))
    with torch.no_grad():
        y = denoiser(views_to_channels(torch.randn(2, 1, 8, 12, dtype=torch.complex64)), 0.1)
    assert channels_to_views(y).data_ptr() == y.data_ptr()

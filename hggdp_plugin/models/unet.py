"""The default score network: a small U-Net that denoises complex images at any noise level."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hggdp_plugin.models.network import ScoreNetwork


class NoiseEmbedding(nn.Module):
    """Fourier features of log(sigma), mixed by two linear layers.

    Args:
        width (int): Number of output features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, sigma: Tensor) -> Tensor:
        """Embed sigma (B,) as (B, width)."""
        # log(sigma) spans about 6 from 0.003 to 1. Periods from pi to 32 pi resolve a factor of 2 and stay unambiguous.
        frequency = torch.logspace(1, -4, 16, base=2.0, device=sigma.device)
        phase = sigma.log()[:, None] * frequency
        return self.mix(torch.cat([phase.sin(), phase.cos()], dim=1))


class ResidualBlock(nn.Module):
    """x + conv(SiLU(modulate(conv(SiLU(x))))), modulated by the noise level; no normalization layers.

    Statistics over an image would tie the result at one place to the content of all others and to the image size. The
    preconditioned input has unit variance without them.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for parameter in (*self.modulation.parameters(), *self.conv2.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, width, H, W) to the same shape."""
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(functional.silu(x))
        return x + self.conv2(functional.silu(torch.addcmul(shift, h, 1 + scale)))


class Level(nn.ModuleList):
    """Residual blocks in sequence, at one resolution."""

    def __init__(self, width: int, embedding: int, blocks: int) -> None:
        super().__init__(ResidualBlock(width, embedding) for _ in range(blocks))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, width, H, W) to the same shape."""
        for block in self:
            x = block(x, embedding)
        return x


def keep_variance(network: nn.Module) -> None:
    """Initialize convolutions such that their output has the variance of their input. Zero weights stay zero.

    PyTorch's default initialization shrinks the variance threefold per convolution, so deep levels contribute almost
    nothing and the first few hundred steps are wasted.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.any():
            # The stride of a transposed convolution equals its kernel, so each pixel gets one contribution per channel.
            pixels = 1 if isinstance(module, nn.ConvTranspose2d) else math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=(module.in_channels * pixels) ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class UNet(ScoreNetwork):
    r"""U-Net, preconditioned as in :class:`hggdp_plugin.models.denoiser.Denoiser`.

    Args:
        views (int): Number K of noisy views of the image.
        widths (tuple of int): Channels per resolution level, finest (half the image's resolution) first.
        blocks (int): Residual blocks per level, on the way down and on the way up.
        sigma_data (float): Standard deviation of the images, per real channel.
        sigma_min (float): Smallest noise level it is trained for, per real channel.
        sigma_max (float): Largest noise level it is trained for, per real channel.
        phase_resolution (int): Resolution, in pixels, of the phase that is removed from the image before the network;
            0: the phase stays.
    """

    def __init__(
        self,
        views: int = 1,
        widths: tuple[int, ...] = (64, 128, 192, 224),
        blocks: int = 2,
        sigma_data: float = 0.12,
        sigma_min: float = 0.003,
        sigma_max: float = 1.0,
        phase_resolution: int = 0,
    ) -> None:
        super().__init__()
        self.config = {
            "views": views,
            "widths": list(widths),
            "blocks": blocks,
            "sigma_data": sigma_data,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "phase_resolution": phase_resolution,
        }
        self.views, self.sigma_data, self.sigma_min, self.sigma_max = views, sigma_data, sigma_min, sigma_max
        self.phase_resolution = phase_resolution
        self.stride = 2 ** len(widths)

        features = 4 * widths[0]
        self.embedding = NoiseEmbedding(features)
        self.head = nn.Conv2d(4 * 2 * views, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(Level(width, features, blocks) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.merge = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in widths[:-1])
        self.decoder = nn.ModuleList(Level(width, features, blocks) for width in widths[:-1])
        self.tail = nn.Conv2d(widths[0], 4 * 2, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)
        keep_variance(self)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate what is missing in the mean of the views.

        Args:
            x (Tensor): Views of unit variance, real (B, 2K, H, W) as [re1, im1, re2, im2, ...]; H, W multiples of
                ``stride``.
            sigma (Tensor): Their noise level before they were scaled to unit variance, per real channel, (B,).

        Returns:
            Tensor: An image of unit variance, real (B, 2, H, W).
        """
        embedding = self.embedding(sigma)
        h = self.head(functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for i, level in enumerate(self.encoder):
            if i:
                skips.append(h)
                h = self.down[i - 1](h)
            h = level(h, embedding)
        for up, merge, level in zip(reversed(self.up), reversed(self.merge), reversed(self.decoder), strict=True):
            h = merge(torch.cat([up(h), skips.pop()], dim=1))
            h = level(h, embedding)
        return functional.pixel_shuffle(self.tail(functional.silu(h)), 2)


def adapt(network: UNet, **changes: int) -> UNet:
    """Build a network of another configuration with the weights of a trained one. New blocks start as the identity.

    Args:
        network (UNet): A trained network.
        **changes: Arguments of :class:`UNet`, ``blocks`` or ``phase_resolution``.

    Returns:
        UNet: The new network.

    Raises:
        ValueError: ``blocks`` are fewer than the network has.
    """
    blocks = network.config["blocks"]
    if changes.get("blocks", blocks) < blocks:
        raise ValueError(f"blocks: {changes['blocks']} are fewer than the {blocks} of the network")
    new = UNet(**{**network.config, **changes})
    new.load_state_dict(network.state_dict(), strict=False)
    return new

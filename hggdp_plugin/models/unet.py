"""The default score network: a small U-Net that denoises complex images at any noise level."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        # log(sigma) spans about 6 from 0.003 to 1: the periods, pi to 32 pi, resolve a factor of 2 and tell all apart.
        frequency = torch.logspace(1, -4, 16, base=2.0, device=sigma.device)
        phase = sigma.log()[:, None] * frequency
        return self.mix(torch.cat([phase.sin(), phase.cos()], dim=1))


class ResidualBlock(nn.Module):
    """x + conv(SiLU(modulate(conv(SiLU(x))))), modulated by the noise level; no normalisation layers.

    Statistics over an image would tie the result at one place to the content of all others and to the image size;
    the preconditioned input has unit variance without them.
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
    """Draw the weights of convolutions such that a result varies as much as what it was made of.

    With torch's own start a convolution divides the variance by three, and hardly anything of the lower levels
    arrives: training then stands still for its first hundreds of steps. Weights that start at zero stay so.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.any():
            # Strides are as long as transposed kernels, so that each of their pixels has one contribution a channel.
            pixels = 1 if isinstance(module, nn.ConvTranspose2d) else math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=(module.in_channels * pixels) ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class UNet(nn.Module):
    r"""U-Net denoiser with the preconditioning of Karras et al.

    The views share one clean image, so their mean, which carries noise sigma / sqrt(K), takes the skip path, and the
    network adds its estimate of what is missing. With :math:`\tilde\sigma = \sigma / \sqrt{K}`,

    .. math::
        D(X, \sigma) = c_{skip} \bar X + c_{out} F(c_{in} X, \log \sigma), \quad
        c_{skip} = \frac{\sigma_d^2}{\tilde\sigma^2 + \sigma_d^2}, \quad
        c_{out} = \frac{\tilde\sigma \sigma_d}{\sqrt{\tilde\sigma^2 + \sigma_d^2}}, \quad
        c_{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}

    Args:
        views (int): Number K of noisy views of the image.
        widths (tuple of ints): Channels per resolution level, finest (half the image's resolution) first.
        blocks (int): Residual blocks per level, on the way down and on the way up.
        sigma_data (float): Standard deviation of the images, per real channel.
        sigma_min (float): Smallest noise level it is trained for, per real channel.
        sigma_max (float): Largest noise level it is trained for, per real channel.
        phase_pixels (int): Resolution, in pixels, of the phase that is taken out of the image before the network and
            put back after it: the network then sees images that are real and positive but for details, whatever the
            phase of coils and fields. In training mode images are expected without it: a network that is trained on
            images turned by the phase of their own noise counts on that, and samplers diverge. 0: the phase is left in.

    References:
        Karras, T., Aittala, M., Aila, T., & Laine, S. (2022).
        Elucidating the design space of diffusion-based generative models. NeurIPS 35.
    """

    def __init__(
        self,
        views: int = 1,
        widths: tuple[int, ...] = (64, 128, 192, 224),
        blocks: int = 2,
        sigma_data: float = 0.12,
        sigma_min: float = 0.003,
        sigma_max: float = 1.0,
        phase_pixels: int = 0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "views": views,
            "widths": list(widths),
            "blocks": blocks,
            "sigma_data": sigma_data,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "phase_pixels": phase_pixels,
        }
        self.views, self.sigma_data, self.sigma_min, self.sigma_max = views, sigma_data, sigma_min, sigma_max
        self.phase_pixels = phase_pixels
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
        """Denoise K views.

        Args:
            x (Tensor): Noisy views, real (B, 2K, H, W) as [re1, im1, re2, im2, ...]; H, W multiples of ``stride``.
            sigma (Tensor): Noise standard deviation per real channel, (B,).

        Returns:
            Tensor: The denoised views, (B, 2K, H, W): K times the one image that they share.
        """
        s = sigma[:, None, None, None]
        mean = x.unflatten(1, (self.views, 2)).mean(1)
        s_mean = s / math.sqrt(self.views)
        total = (s_mean**2 + self.sigma_data**2).sqrt()
        x = x / (s**2 + self.sigma_data**2).sqrt()
        if self.phase_pixels and not self.training:
            cos, sin = smooth_phase(mean, self.phase_pixels)
            f = rotated(self._network(rotated(x, cos, -sin), sigma), cos, sin)
        else:
            f = self._network(x, sigma)
        image = (self.sigma_data / total) ** 2 * mean + (s_mean * self.sigma_data / total) * f
        return image.repeat(1, self.views, 1, 1)

    def _network(self, x: Tensor, sigma: Tensor) -> Tensor:
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


def smooth_phase(image: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, 1, H, W) of the phase of images (B, 2, H, W) at a resolution of so many pixels."""
    size = [-(-s // pixels) for s in image.shape[2:]]
    low = functional.interpolate(functional.interpolate(image, size, mode="area"), image.shape[2:], mode="bicubic")
    re, im = low.chunk(2, dim=1)
    magnitude = torch.hypot(re, im).clamp_min(1e-12)
    return re / magnitude, im / magnitude


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Channels (B, 2K, H, W), in pairs of real and imaginary part, times the complex numbers cos + i sin."""
    re, im = x[:, ::2], x[:, 1::2]
    return torch.stack([re * cos - im * sin, re * sin + im * cos], dim=2).flatten(1, 2)


def adapted(network: UNet, **changes: Any) -> UNet:
    """A network of another configuration with the weights of a trained one; blocks that are new start as the identity.

    Args:
        network (UNet): A trained network.
        **changes: Arguments of :class:`UNet`, ``blocks`` or ``phase_pixels``.

    Raises:
        ValueError: ``blocks`` are fewer than the network has.
    """
    if changes.get("blocks", math.inf) < network.config["blocks"]:
        raise ValueError(f"blocks: {changes['blocks']} are fewer than the {network.config['blocks']} of the network")
    new = UNet(**{**network.config, **changes})
    new.load_state_dict(network.state_dict(), strict=False)
    return new

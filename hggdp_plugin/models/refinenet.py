"""The network of the HGGDP paper: a RefineNet conditioned on the noise level, as in NCSN."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hggdp_plugin.models.network import ScoreNetwork

HGGDP_SIGMAS: tuple[float, ...] = tuple(np.geomspace(1.0, 0.01, 10).tolist())


class ConditionalInstanceNormPlus(nn.Module):
    """Instance normalization with a scale and a shift per noise level, which keeps the means of the channels.

    Plain instance normalization removes the mean intensity of each channel. The "plus" (Song & Ermon 2019,
    appendix A.1) adds the means back, standardized over the channels.

    Args:
        channels (int): Number of channels C.
        levels (int): Number of noise levels.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels)  # one row for each level: gamma, alpha, beta
        nn.init.normal_(self.embed.weight[:, : 2 * channels], 1.0, 0.02)
        nn.init.zeros_(self.embed.weight[:, 2 * channels :])

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalize x (B, C, H, W) for the noise levels labels (B,)."""
        gamma, alpha, beta = self.embed(labels)[..., None, None].chunk(3, dim=1)
        means = x.mean((2, 3), keepdim=True)
        variance, mean = torch.var_mean(means, dim=1, keepdim=True)
        means = (means - mean) / torch.sqrt(variance + 1e-5)
        return gamma * (functional.instance_norm(x) + alpha * means) + beta


def conv3x3(in_channels: int, out_channels: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the image size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each 2x2 cell: (B, C_in, H, W) to (B, C_out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and halve x."""
        return functional.avg_pool2d(self.conv(x), 2)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: twice norm, ELU, convolution; plus a shortcut.

    A "down" block widens the receptive field of the blocks that follow it: without dilation it halves the
    resolution, with dilation it keeps it. Its shortcut is learned; that of any other block is the identity.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output; equal to in_channels unless the block is a down block.
        levels (int): Number of noise levels.
        dilation (int): Dilation of the 3x3 convolutions.
        down (bool): Whether this is a down block.
    """

    def __init__(self, in_channels: int, out_channels: int, levels: int, dilation: int = 1, down: bool = False) -> None:
        super().__init__()
        halve = down and dilation == 1
        self.normalize1 = ConditionalInstanceNormPlus(in_channels, levels)
        self.conv1 = conv3x3(in_channels, in_channels, dilation)
        self.normalize2 = ConditionalInstanceNormPlus(in_channels, levels)
        self.conv2: nn.Module
        self.shortcut: nn.Module
        if halve:
            self.conv2 = ConvMeanPool(in_channels, out_channels, 3)
            self.shortcut = ConvMeanPool(in_channels, out_channels, 1)
        else:
            self.conv2 = conv3x3(in_channels, out_channels, dilation)
            self.shortcut = conv3x3(in_channels, out_channels, dilation) if down else nn.Identity()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Map x (B, C_in, H, W) to (B, C_out, H, W), or to half the size in a halving block."""
        h = self.conv1(functional.elu(self.normalize1(x, labels)))
        h = self.conv2(functional.elu(self.normalize2(h, labels)))
        return self.shortcut(x) + h


class RCUBlock(nn.ModuleDict):
    """RefineNet's residual convolution units: each adds two stages of norm, ELU, convolution to its input.

    A dictionary of modules, because names in the authors' checkpoints, like ``1_2_conv``, are not Python identifiers.

    Args:
        channels (int): Number of channels C.
        levels (int): Number of noise levels.
        units (int): Number of residual convolution units in sequence.
    """

    def __init__(self, channels: int, levels: int, units: int) -> None:
        super().__init__()
        self.units = units
        for unit in range(1, units + 1):
            for stage in (1, 2):
                self[f"{unit}_{stage}_norm"] = ConditionalInstanceNormPlus(channels, levels)
                self[f"{unit}_{stage}_conv"] = conv3x3(channels, channels, bias=False)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape."""
        for unit in range(1, self.units + 1):
            h = x
            for stage in (1, 2):
                h = self[f"{unit}_{stage}_conv"](functional.elu(self[f"{unit}_{stage}_norm"](h, labels)))
            x = x + h
        return x


class MSFBlock(nn.Module):
    """RefineNet's multi-resolution fusion: bring all inputs to one width and one size, and sum them.

    Args:
        in_channels (sequence of int): Channels of each input.
        out_channels (int): Channels of the output.
        levels (int): Number of noise levels.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(channels, out_channels) for channels in in_channels)
        self.norms = nn.ModuleList(ConditionalInstanceNormPlus(channels, levels) for channels in in_channels)

    def forward(self, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Fuse inputs, the finest first, into (B, out_channels, H, W) of the first's size."""
        size = inputs[0].shape[-2:]
        fused = [conv(norm(x, labels)) for conv, norm, x in zip(self.convs, self.norms, inputs, strict=True)]
        return torch.stack([functional.interpolate(x, size, mode="bilinear", align_corners=True) for x in fused]).sum(0)


class CRPBlock(nn.Module):
    """RefineNet's chained residual pooling: context from ever larger windows, with mean in place of max pooling.

    Args:
        channels (int): Number of channels C.
        levels (int): Number of noise levels.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(channels, channels, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(ConditionalInstanceNormPlus(channels, levels) for _ in range(2))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape."""
        x = path = functional.elu(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            path = conv(functional.avg_pool2d(norm(path, labels), 5, stride=1, padding=2))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """RefineNet's refinement block: adapt each input, fuse them, pool in a chain, and refine the output.

    Args:
        in_channels (sequence of int): Channels of each input, the finest input first.
        out_channels (int): Channels of the output.
        levels (int): Number of noise levels.
        output_units (int): Number of residual convolution units at the output.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, levels: int, output_units: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(RCUBlock(channels, levels, units=2) for channels in in_channels)
        self.msf = MSFBlock(in_channels, out_channels, levels) if len(in_channels) > 1 else None
        self.crp = CRPBlock(out_channels, levels)
        self.output_convs = RCUBlock(out_channels, levels, units=output_units)

    def forward(self, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Refine inputs into (B, out_channels, H, W) of the first's size."""
        adapted = [adapt(x, labels) for adapt, x in zip(self.adapt_convs, inputs, strict=True)]
        h = adapted[0] if self.msf is None else self.msf(adapted, labels)
        return self.output_convs(self.crp(h, labels), labels)


class RefineNet(ScoreNetwork):
    r"""The network of the HGGDP paper: the score of K noisy views of a complex image, at a few noise levels.

    The network only has classes i for its levels. At other noise levels :math:`\sigma` the class nearest in
    :math:`\log\sigma` is used, and its score is rescaled: :math:`s(x, \sigma) = s_i(x) \sigma_i / \sigma`. This keeps
    the noise estimate :math:`-\sigma s`, which has unit variance at every level; the normalization layers keep that
    variance whatever the amplitude of the noise in x. For a normal prior of any variance the error of the score is then
    at most half a step of the grid of levels, instead of a whole step for :math:`s_i` itself. Interpolation between two
    levels would be still more accurate, at twice the cost.

    Args:
        views (int): Number K of noisy views of the image.
        width (int): Channels at full resolution; twice as many below.
        sigmas (sequence of float): Noise standard deviation per real channel of each level.

    Raises:
        ValueError: sigmas is empty or not positive.

    References:
        Song, Y., & Ermon, S. (2019).
        Generative modeling by estimating gradients of the data distribution. NeurIPS 32.

        Lin, G., Milan, A., Shen, C., & Reid, I. (2017).
        RefineNet: Multi-path refinement networks for high-resolution semantic segmentation. CVPR.

        Quan, C., Zhou, J., Zhu, Y., Chen, Y., Wang, S., Liang, D., & Liu, Q. (2021).
        Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE Transactions on Medical Imaging, 40(12), 3265-3278.
    """

    def __init__(self, views: int = 3, width: int = 128, sigmas: Sequence[float] = HGGDP_SIGMAS) -> None:
        super().__init__()
        if not sigmas or min(sigmas) <= 0:
            raise ValueError(f"sigmas: need positive noise levels, not {list(sigmas)}")
        self.config = {"views": views, "width": width, "sigmas": list(sigmas)}
        self.views, self.sigmas, self.stride = views, tuple(sigmas), 2
        self.sigma_min, self.sigma_max = min(sigmas), max(sigmas)

        levels, fine, coarse = len(sigmas), width, 2 * width
        self.begin_conv = conv3x3(2 * views, fine)
        self.res1 = nn.ModuleList([ResidualBlock(fine, fine, levels), ResidualBlock(fine, fine, levels)])
        self.res2 = nn.ModuleList(
            [ResidualBlock(fine, coarse, levels, down=True), ResidualBlock(coarse, coarse, levels)]
        )
        self.res3, self.res4 = (
            nn.ModuleList(ResidualBlock(coarse, coarse, levels, dilation, down) for down in (True, False))
            for dilation in (2, 4)
        )
        self.refine1 = RefineBlock([coarse], coarse, levels)
        self.refine2 = RefineBlock([coarse, coarse], coarse, levels)
        self.refine3 = RefineBlock([coarse, coarse], fine, levels)
        self.refine4 = RefineBlock([fine, fine], fine, levels, output_units=3)
        self.normalizer = ConditionalInstanceNormPlus(fine, levels)
        self.end_conv = conv3x3(fine, 2 * views)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise K views.

        Args:
            x (Tensor): Noisy views, real (B, 2K, H, W) as [re1, im1, re2, im2, ...]; H, W multiples of ``stride``.
            sigma (Tensor): Noise standard deviation per real channel, (B,); below and above the range
                of the network's levels, its last or first class is used.

        Returns:
            Tensor: The denoised views x + sigma^2 s(x, sigma), (B, 2K, H, W).
        """
        sigmas = torch.tensor(self.sigmas, dtype=sigma.dtype, device=sigma.device)
        labels = (sigma.log()[:, None] - sigmas.log()).abs().argmin(1)
        return x + (sigma * sigmas[labels])[:, None, None, None] * self.score(x, labels)

    def score(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the score, the gradient of the log density of noisy views, at the levels of this network.

        Args:
            x (Tensor): Noisy views, real (B, 2K, H, W); H, W multiples of ``stride``.
            labels (Tensor): Indices into ``sigmas``, (B,).

        Returns:
            Tensor: The score at x, (B, 2K, H, W).
        """
        h = self.begin_conv(2 * x - 1)
        features = []
        for stage in (self.res1, self.res2, self.res3, self.res4):
            for block in stage:
                h = block(h, labels)
            features.append(h)
        h = self.refine1([features[3]], labels)
        h = self.refine2([features[2], h], labels)
        h = self.refine3([features[1], h], labels)
        h = self.refine4([features[0], h], labels)
        return self.end_conv(functional.elu(self.normalizer(h, labels)))

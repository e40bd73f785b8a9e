"""Denoising score matching."""

import math

import torch
from torch import Tensor

from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.network import ScoreNetwork

#: Half the range of noise levels, in standard deviations of their logarithm: the middle, where reconstructions spend
#: their steps, is drawn more often than the ends (benchmarks/training.py).
HALF_RANGE_IN_STDS = 2.25


def draw_sigma(network: ScoreNetwork, n: int, generator: torch.Generator) -> Tensor:
    """Draw n noise levels: uniform among the network's ``sigmas`` if it has levels, else log-normal in its range.

    The range is :data:`HALF_RANGE_IN_STDS` standard deviations to both sides of its middle. The draw is stratified, one
    from each n-th of the distribution, which lowers the variance of the gradient.

    Args:
        network (ScoreNetwork): The network to train.
        n (int): How many.
        generator (Generator): Source of the randomness.

    Returns:
        Tensor: (n,) float32 on the generator's device.
    """
    u = torch.rand(n, generator=generator, device=generator.device)
    levels = getattr(network, "sigmas", None)
    if levels is not None:
        return torch.tensor(levels, device=u.device)[(u * len(levels)).long()]
    u = (torch.arange(n, device=u.device) + u) / n
    tail = 0.5 * math.erfc(HALF_RANGE_IN_STDS / 2**0.5)
    normal = torch.special.ndtri(tail + (1 - 2 * tail) * u)
    middle = (network.sigma_min * network.sigma_max) ** 0.5
    return middle * (network.sigma_max / middle) ** (normal / HALF_RANGE_IN_STDS)


def denoising_loss(denoiser: Denoiser, x: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    r"""Return the loss of denoising score matching over K independently noisy views of each image.

    .. math:: w(\sigma) \, \| D(X + \sigma N, \sigma) - X \|^2, \quad D(X, \sigma) = X + \sigma^2 s(X, \sigma)

    With :math:`w = 1 / \sigma^2` this is the score matching loss with :math:`\sigma^2` weighting,
    :math:`\sigma^2 \| s(X + \sigma N, \sigma) + N / \sigma \|^2`. A preconditioned network has
    :math:`w = K / \sigma^2 + 1 / \sigma_d^2`, which keeps its error at unit scale at every level.

    Args:
        denoiser (Denoiser): The denoiser to train.
        x (Tensor): Clean images, real (B, 2, H, W), without the phase that the network does not see, see
            :meth:`hggdp_plugin.models.denoiser.Denoiser.remove_phase`.
        sigma (Tensor): Noise levels (B,).
        generator (Generator): Source of the noise, on the device of ``x``.

    Returns:
        Tensor: Scalar, the mean over batch, views and pixels.

    References:
        Vincent, P. (2011). A connection between score matching and denoising autoencoders. Neural Computation, 23(7).
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """
    clean = x.repeat(1, denoiser.views, 1, 1)
    noise = torch.randn(clean.shape, generator=generator, device=x.device)
    s = sigma[:, None, None, None]
    weight = 1 / s**2
    if denoiser.sigma_data is not None:
        weight = weight * denoiser.views + 1 / denoiser.sigma_data**2
    return (weight * (denoiser(clean + s * noise, sigma, phase=1) - clean) ** 2).mean()

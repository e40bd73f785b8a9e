"""What a score network has to be."""

from typing import Any

from torch import nn


class ScoreNetwork(nn.Module):
    """Base class of score networks; any other module with these attributes will do, too.

    ``forward(x, sigma)`` takes noisy views, real (B, 2K, H, W) as [re1, im1, re2, im2, ...], and the standard deviation
    of their noise per real channel, (B,). Without ``sigma_data`` it returns the denoised views, (B, 2K, H, W). With it,
    the network is preconditioned: it gets views of unit variance, and returns an image of unit variance, (B, 2, H, W),
    from which :class:`hggdp_plugin.models.denoiser.Denoiser` computes the denoised views.

    Attributes:
        views (int): Number K of noisy views of an image.
        stride (int): Height and width have to be multiples of it.
        sigma_min (float): Smallest noise level of its training.
        sigma_max (float): Largest noise level of its training.
        config (dict): Arguments of the constructor: ``type(network)(**network.config)`` builds the network again.
        sigma_data (None or float): Standard deviation of images per real channel, for preconditioning.
        phase_resolution (int): Resolution, in pixels, of the phase that is removed from images before the network.
            0: the phase stays.
    """

    views: int
    stride: int
    sigma_min: float
    sigma_max: float
    config: dict[str, Any]
    sigma_data: float | None = None
    phase_resolution: int = 0

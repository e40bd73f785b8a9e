"""The denoiser that a score network stands for: image sizes, phase removal, preconditioning and views."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hggdp_plugin.models.network import ScoreNetwork


class Denoiser:
    r"""The denoiser :math:`D(X, \sigma) = E[\text{image} \,|\, X]` of K noisy views X, by a score network.

    Images of any size are reflected at their borders up to multiples of the network's stride, and cropped afterwards.

    A network with ``sigma_data`` :math:`\sigma_d` is preconditioned (Karras et al.). The views share one image, so
    their mean, which has the noise :math:`\tilde\sigma = \sigma / \sqrt{K}`, takes the skip path, and the network F
    adds its estimate of what is missing,

    .. math::
        D(X, \sigma) = c_{skip} \bar X + c_{out} F(c_{in} X, \log \sigma), \quad
        c_{skip} = \frac{\sigma_d^2}{\tilde\sigma^2 + \sigma_d^2}, \quad
        c_{out} = \frac{\tilde\sigma \sigma_d}{\sqrt{\tilde\sigma^2 + \sigma_d^2}}, \quad
        c_{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}

    A network with ``phase_resolution`` sees images whose smooth phase has been removed, and which are real and positive
    but for details, whatever the phase of coils and fields. The phase is put back after the network. In use it is
    estimated from the noisy image. In training it must be that of the clean image: if the phase is estimated from the
    noisy input during training, the network exploits it and sampling diverges.

    Args:
        network (ScoreNetwork): The network. Its mode, ``train()`` or ``eval()``, does not matter.
        eager (bool): Call the network as it is, even if it has been compiled: for images of many sizes.

    Attributes:
        network (ScoreNetwork): The network.
        views (int): Number K of views.
        sigma_min (float): Smallest noise level of its training.
        sigma_max (float): Largest noise level of its training.
        sigma_data (None or float): Standard deviation of images per real channel, if the network is preconditioned.
        phase_resolution (int): Resolution of the phase that is removed, in pixels; 0: the phase stays.

    References:
        Karras, T., Aittala, M., Aila, T., & Laine, S. (2022).
        Elucidating the design space of diffusion-based generative models. NeurIPS 35.
    """

    def __init__(self, network: ScoreNetwork, *, eager: bool = False) -> None:
        self.network, self.eager = network, eager
        self.views: int = network.views
        self.sigma_min: float = network.sigma_min
        self.sigma_max: float = network.sigma_max
        self.sigma_data: float | None = getattr(network, "sigma_data", None)
        self.phase_resolution: int = getattr(network, "phase_resolution", 0)

    def __call__(self, x: Tensor, sigma: Tensor | float, phase: Tensor | Literal[1] | None = None) -> Tensor:
        """Denoise K views.

        Args:
            x (Tensor): Noisy views, real (B, 2K, H, W) as [re1, im1, re2, im2, ...].
            sigma (Tensor or float): Noise standard deviation per real channel of each view, (B,) or one for all.
            phase (Tensor, None or 1): Phase to remove for the network: complex numbers of magnitude 1 (B, 1, H, W).
                None: estimated from x, if the network asks for it. 1: leave x as it is.

        Returns:
            Tensor: The denoised views, float32 (B, 2K, H, W).
        """
        height, width = x.shape[-2:]
        if not isinstance(sigma, Tensor):
            sigma = torch.full((len(x),), sigma, device=x.device)
        x = pad_to_multiple(x, self.network.stride).contiguous(memory_format=torch.channels_last)
        if phase is None:
            phase = self.estimate_phase(x)
        elif isinstance(phase, Tensor):
            phase = torch.complex(*(pad_to_multiple(part, self.network.stride) for part in (phase.real, phase.imag)))
        y = self._denoise(x, sigma, phase if isinstance(phase, Tensor) else None)
        return y.float()[..., :height, :width]

    def estimate_phase(self, x: Tensor) -> Tensor | None:
        """Return the smooth phase of views (B, 2K, H, W) as complex numbers of magnitude 1 (B, 1, H, W).

        None if the network sees images with their phase.
        """
        return smooth_phase(mean_view(x), self.phase_resolution) if self.phase_resolution else None

    def remove_phase(self, x: Tensor) -> Tensor:
        """Return clean images (B, 2, H, W) as the network is trained on them: without the phase it does not see."""
        phase = self.estimate_phase(x)
        return x if phase is None else rotate_phase(x, phase.conj())

    def _denoise(self, x: Tensor, sigma: Tensor, phase: Tensor | None) -> Tensor:
        if self.sigma_data is None:
            return self._evaluate(x, sigma, phase)
        s = sigma[:, None, None, None]
        s_mean = s / math.sqrt(self.views)
        total = (s_mean**2 + self.sigma_data**2).sqrt()
        f = self._evaluate(x / (s**2 + self.sigma_data**2).sqrt(), sigma, phase)
        image = (self.sigma_data / total) ** 2 * mean_view(x) + (s_mean * self.sigma_data / total) * f
        return image if self.views == 1 else image.repeat(1, self.views, 1, 1)

    def _evaluate(self, x: Tensor, sigma: Tensor, phase: Tensor | None) -> Tensor:
        """Evaluate the network, with the phase removed before and put back after it."""
        network = self.network.forward if self.eager else self.network
        if phase is None:
            return network(x, sigma)
        return rotate_phase(network(rotate_phase(x, phase.conj()), sigma), phase)


def mean_view(x: Tensor) -> Tensor:
    """Return the mean (B, 2, H, W) of K views (B, 2K, H, W)."""
    return x if x.shape[1] == 2 else x.unflatten(1, (-1, 2)).mean(1)


def pad_to_multiple(x: Tensor, stride: int) -> Tensor:
    """Reflect images (B, C, H, W) at their lower borders up to multiples of the stride."""
    height, width = x.shape[-2:]
    pad = [-size % stride for size in (height, width)]
    if not any(pad):
        return x
    # Reflection keeps edges natural, but needs an image larger than the padding.
    mode = "reflect" if pad[0] < height and pad[1] < width else "replicate"
    return functional.pad(x, (0, pad[1], 0, pad[0]), mode=mode)


def smooth_phase(image: Tensor, resolution: int) -> Tensor:
    """Return the phase of images at a low resolution.

    Args:
        image (Tensor): Real (B, 2, H, W).
        resolution (int): Resolution in pixels.

    Returns:
        Tensor: Complex numbers of magnitude 1, (B, 1, H, W).
    """
    size = [-(-s // resolution) for s in image.shape[2:]]
    low = functional.interpolate(functional.interpolate(image, size, mode="area"), image.shape[2:], mode="bicubic")
    re, im = low.chunk(2, dim=1)
    magnitude = torch.hypot(re, im).clamp_min(1e-12)
    return torch.complex(re / magnitude, im / magnitude)


def rotate_phase(x: Tensor, phase: Tensor) -> Tensor:
    """Multiply views by complex numbers of magnitude 1.

    Args:
        x (Tensor): Views, real (B, 2K, H, W).
        phase (Tensor): Complex (B, 1, H, W).

    Returns:
        Tensor: Real (B, 2K, H, W), channels last for K = 1.
    """
    re, im, cos, sin = x[:, ::2], x[:, 1::2], phase.real, phase.imag
    return torch.stack([re * cos - im * sin, re * sin + im * cos], dim=-1).permute(0, 1, 4, 2, 3).flatten(1, 2)

"""Random variation of training images."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from hggdp_plugin.training.config import Augmentation
from hggdp_plugin.training.contrast import (
    CURVE_LENGTH,
    CURVE_ORDER,
    evaluate_curves,
    monotone_curves,
    nonmonotone_curves,
    remap,
)
from hggdp_plugin.training.fields import decaying_coefficients, smooth_field
from hggdp_plugin.training.resolution import resample

#: Cosines, along each axis, of the phase given to magnitude images.
PHASE_ORDER = 8
#: The smallest amplitude of that phase, relative to the largest.
LEAST_PHASE = 0.1


class Draws:
    """Random numbers for a batch: drawn on the CPU, so that they are the same for every device, then moved.

    Args:
        n (int): Batch size.
        generator (Generator): Source of all randomness, on the CPU.
        device (torch.device): Where the batch is.
    """

    def __init__(self, n: int, generator: torch.Generator, device: torch.device) -> None:
        self.n, self.generator, self.device = n, generator, device

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers (n, *shape) within [-1, 1]."""
        return (2 * torch.rand(self.n, *shape, generator=self.generator) - 1).to(self.device, non_blocking=True)

    def chosen(self, share: float, *shape: int) -> Tensor:
        """Draw booleans (n, *shape) that are true with probability ``share``."""
        return (torch.rand(self.n, *shape, generator=self.generator) < share).to(self.device, non_blocking=True)

    def half(self) -> Tensor:
        """Draw 0 or 1, (n, 1, 1)."""
        return (self.uniform(1, 1) > 0).float()


def vary_contrast(batch: Tensor, a: Augmentation, draws: Draws) -> Tensor:
    """Remap the magnitude of some of the images (n, 2, H, W)."""
    if not a.monotone_remap and not a.nonmonotone_remap:
        return batch
    choice = 0.5 + 0.5 * draws.uniform(1)
    uniform = draws.uniform(CURVE_ORDER)
    identity = torch.linspace(0, 1, CURVE_LENGTH, device=batch.device).expand(len(batch), -1)
    curves = torch.where(choice < a.monotone_remap, monotone_curves(uniform), identity)
    return remap(batch, torch.where(choice > 1 - a.nonmonotone_remap, nonmonotone_curves(uniform), curves))


def draw_resolution(a: Augmentation, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Draw which part of k-space is kept.

    Returns:
        tuple: Fraction along each axis (n, 2), the same for both in half of the cases, 1 for images that keep theirs;
        pixel spacing (n,) in old pixels; whether to taper (n,).
    """
    fraction = a.resolution ** (0.5 + 0.5 * draws.uniform(2))
    fraction = torch.where(draws.chosen(0.5, 1), fraction, fraction[:, :1])
    fraction = torch.where(draws.chosen(0.5, 1), fraction, 1.0)
    spacing = torch.where(draws.chosen(0.5), 1 / fraction.amax(1), 1.0)
    return fraction, spacing, draws.chosen(0.5) & (fraction < 1).any(1)


def vary_resolution(batch: Tensor, size: int, a: Augmentation, draws: Draws) -> Tensor:
    """Resample regions (n, 2, L, L) to crops (n, 2, size, size), L at least ``size / a.resolution``."""
    fraction, spacing, taper = draw_resolution(a, draws)
    offset = (0.5 + 0.5 * draws.uniform(2)) * (batch.shape[2] - size * spacing[:, None])
    offset = torch.where(spacing[:, None] > 1, offset, offset.round())  # crops that keep their pixels stay on them
    return resample(batch, fraction, spacing, offset, taper, (size, size))


def vary_whole_resolution(batch: Tensor, a: Augmentation, draws: Draws) -> Tensor:
    """Resample one whole image (1, 2, H, W), to larger pixels or on its grid."""
    fraction, spacing, taper = draw_resolution(a, draws)
    size = [max(round(length / float(spacing)), 2) for length in batch.shape[2:]]
    return resample(batch, fraction, spacing, torch.zeros_like(fraction), taper, size)


def vary_values(batch: Tensor, magnitude_only: Tensor | None, a: Augmentation, draws: Draws) -> Tensor:
    """Vary pixel size, intensity and phase of images.

    Args:
        batch (Tensor): Real images (n, 2, H, W); overwritten.
        magnitude_only (None or Tensor): Which images have no phase (n,), bool, and get one; None: none of them.
        a (Augmentation): What to vary.
        draws (Draws): Source of random numbers.

    Returns:
        Tensor: Real images (n, 2, H, W).
    """
    n, size, device = len(batch), batch.shape[2:], batch.device
    if a.zoom > 1:
        # Chosen on the CPU: a device would have to be waited for.
        chosen = (torch.rand(n, generator=draws.generator) < 0.5).nonzero()[:, 0].to(device)
        zoom = a.zoom ** draws.uniform()[chosen]
        shift = draws.uniform(2)[chosen] / torch.tensor(size[::-1], device=device)
        if len(chosen):
            batch[chosen] = _zoomed(batch[chosen], zoom, shift)
    gain = a.intensity ** draws.uniform(1, 1)
    if a.shading:
        gain = gain * (1 + a.shading * draws.half() * smooth_field(draws.uniform(3, 3), size))
    angle = torch.zeros(n, 1, 1, device=device)
    if a.phase:
        angle = math.pi * draws.uniform(1, 1)
    if a.smooth_phase:
        angle = angle + a.smooth_phase * draws.half() * smooth_field(draws.uniform(3, 3), size)
    if a.bias_field:
        gain = gain * torch.exp(a.bias_field * draws.half() * smooth_field(draws.uniform(3, 3), size))
    if a.magnitude_phase and magnitude_only is not None:
        angle = angle + a.magnitude_phase * magnitude_only[:, None, None] * magnitude_phase(size, draws)
    if a.tissue_phase:
        amplitude = a.tissue_phase * draws.half() * draws.uniform(1, 1)
        curves = nonmonotone_curves(draws.uniform(CURVE_ORDER))
        angle = angle + amplitude * evaluate_curves(curves, torch.hypot(*batch.unbind(1)))
    z = torch.complex(batch[:, 0], batch[:, 1]) * torch.polar(*torch.broadcast_tensors(gain, angle))
    return torch.stack([z.real, z.imag], dim=1)


def magnitude_phase(size: torch.Size, draws: Draws) -> Tensor:
    """Draw smooth phases (n, *size) within [-1, 1], some smoother and weaker than others."""
    amplitude = LEAST_PHASE ** (0.5 + 0.5 * draws.uniform(1, 1))
    coefficients = decaying_coefficients(draws.uniform(PHASE_ORDER, PHASE_ORDER), 1.25 + 0.75 * draws.uniform(1, 1))
    return amplitude * smooth_field(coefficients, size)


def with_phase(images: list[Tensor], amplitude: float = Augmentation().magnitude_phase) -> list[Tensor]:
    """Give magnitude images, real (2, H, W) with an imaginary part of zero, a random smooth phase, always the same."""
    phased = []
    for number, image in enumerate(images):
        if not image[1].any():
            draws = Draws(1, torch.Generator().manual_seed(number), image.device)
            angle = amplitude * magnitude_phase(image.shape[1:], draws)[0]
            image = torch.stack([image[0] * torch.cos(angle), image[0] * torch.sin(angle)])
        phased.append(image)
    return phased


def _zoomed(batch: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Resample (n, 2, H, W) about the center by ``zoom`` (n,) with ``shift`` (n, 2) in half fields of view."""
    theta = torch.zeros(len(batch), 2, 3, device=batch.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, mode="bicubic", padding_mode="reflection", align_corners=False)

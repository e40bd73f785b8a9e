"""Synthetic images with the statistics of natural ones, in any contrast: a supplement to too few scans.

Made on the generator's device, all of a set at once; 1000 of 256 x 256 take seconds on a GPU.

References:
    Lee, A. B., Mumford, D., & Huang, J. (2001). Occlusion models for natural images. IJCV, 41(1), 35-59. (dead leaves)
    Billot, B., et al. (2023). SynthSeg: segmentation of brain MRI scans of any contrast and resolution without
    retraining. Medical Image Analysis, 86, 102789. (random contrast of label maps)
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from hggdp_plugin.training.batches import Domain

#: Smallest radius (pixels) of the leaves of an image, log-uniform; the largest is a quarter of the image.
LEAST_RADIUS = (2.0, 12.0)
#: Mean number of leaves that cover a pixel.
LAYERS = 3.0
#: Numbers of corners of leaves, all equally likely; so many are a disc.
CORNERS = (3, 4, 5, 6, 60, 60, 60)
#: Sizes of the grids that regions are made of, relative to a region's width, and the number of labels.
REGION_GRIDS, LABELS = (4, 8, 16, 32), 12
#: Range of the power with which the spectrum of textures falls; white textures would look like noise.
TEXTURE_POWERS = (0.75, 2.0)
#: Images made at once: of leaves, which share their radii, and of regions, which need more memory.
CHUNKS = {"dead_leaves": 256, "regions": 32}


def synthetic_domains(n: int, size: int, generator: torch.Generator, weight: float = 1.0) -> list[Domain]:
    """Make the domains ``dead_leaves`` and ``regions`` of n images each.

    Args:
        n (int): Images of each domain.
        size (int): Height and width.
        generator (Generator): Source of all randomness, on the device where the images are made.
        weight (float): Weight of each domain.

    Returns:
        list of Domain: Magnitude images, real (2, size, size), maximum 1, on the CPU.
    """
    domains = []
    for name, make in (("dead_leaves", dead_leaves), ("regions", random_regions)):
        chunks = [min(CHUNKS[name], n - start) for start in range(0, n, CHUNKS[name])]
        magnitude = torch.cat([make(chunk, size, generator).cpu() for chunk in chunks])
        domains.append(Domain(name, tuple(torch.stack([magnitude, torch.zeros_like(magnitude)], dim=1)), weight))
    return domains


def dead_leaves(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw images of ellipses and polygons of all sizes that hide each other, with plain, shaded or textured fills.

    Args:
        n (int): Images, which share the sequence of their leaves' radii.
        size (int): Height and width, at least 48.
        generator (Generator): Source of all randomness.

    Returns:
        Tensor: (n, size, size) within [0, 1], on the generator's device.
    """
    largest = size / 4
    least = min(_log_uniform(LEAST_RADIUS, generator), largest / 2)
    margin = math.ceil(largest) + 2
    width = size + 2 * margin
    # Brightness, and amplitude of the texture; leaves lie in the middle, and reach into the margin.
    canvas = torch.rand(2, n, 1, generator=generator, device=generator.device).expand(-1, -1, width**2).clone()
    canvas[1] = 0
    for radius in _radii(least, largest, LAYERS * size**2, generator):
        _paint_leaf(canvas, radius, size, width, margin, generator)
    brightness, amplitude = canvas.view(2, n, width, width)[:, :, margin:-margin, margin:-margin]
    return _finished(brightness + amplitude * _texture(n, size, generator), generator)


def random_regions(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw images of regions like those of a label map, each with a random brightness and texture, and thin membranes.

    Args:
        n (int): Number of images.
        size (int): Height and width, at least 48.
        generator (Generator): Source of all randomness.

    Returns:
        Tensor: (n, size, size) within [0, 1], on the generator's device.
    """
    fields = torch.zeros(n, LABELS, size, size, device=generator.device)
    for grid in REGION_GRIDS:
        strength = torch.rand(n, LABELS, 1, 1, generator=generator, device=generator.device) / grid**0.5
        noise = torch.randn(n, LABELS, grid, grid, generator=generator, device=generator.device)
        fields += strength * functional.interpolate(noise, (size, size), mode="bicubic", align_corners=True)
    # A soft maximum, so that borders are about a pixel wide, some wider.
    sharpness = 20 * 20 ** torch.rand(n, 1, 1, 1, generator=generator, device=generator.device)
    membranes = torch.exp(-((fields[:, :2] * sharpness / 4) ** 2))
    parts = torch.softmax(sharpness * fields, dim=1)
    levels = torch.rand(2, n, LABELS, generator=generator, device=generator.device)
    levels[1] = 0.3 * (levels[1] - 0.5).clamp_min(0)  # half of the regions have no texture
    brightness, amplitude = torch.einsum("knl,nlyx->knyx", levels, parts)
    for membrane in membranes.unbind(1):
        shown = torch.rand(2, n, 1, 1, generator=generator, device=generator.device)
        brightness = torch.lerp(brightness, shown[0], membrane * (shown[1] < 0.4))
    return _finished(brightness + amplitude * _texture(n, size, generator), generator)


def _paint_leaf(canvas: Tensor, radius: float, size: int, width: int, margin: int, generator: torch.Generator) -> None:
    """Paint one leaf on each image of a canvas (2, n, width^2), with edges of one pixel."""
    n, device = canvas.shape[1], canvas.device
    reach = math.ceil(radius) + 1
    u = torch.rand(10, n, 1, generator=generator, device=device)
    center = margin + size * u[:2]
    corner = center.long() - reach
    patch = torch.arange(2 * reach + 1, device=device)
    y, x = (corner[0] + patch)[:, :, None], (corner[1] + patch)[:, None, :]
    index = (y * width + x).flatten(1)
    dy, dx = y - center[0, :, :, None], x - center[1, :, :, None]
    cos, sin = torch.cos(2 * math.pi * u[2, :, :, None]), torch.sin(2 * math.pi * u[2, :, :, None])
    along, across = cos * dy + sin * dx, (cos * dx - sin * dy) / (0.3 + 0.7 * u[3, :, :, None])
    corners = torch.tensor(CORNERS, device=device)[(u[4] * len(CORNERS)).long()][:, :, None]
    angle = torch.remainder(torch.atan2(across, along), 2 * math.pi / corners) - math.pi / corners
    distance = torch.hypot(along, across) * torch.cos(angle) - radius * torch.cos(math.pi / corners)
    cover = (0.5 - distance).clamp(0, 1).flatten(1)
    shade = 0.4 * (u[5] - 0.5).clamp_min(0) * (along / radius).flatten(1)
    fills = torch.stack([(u[6] + shade).clamp_min(0), (0.4 * (u[7] - 0.5).clamp_min(0)).expand_as(shade)])
    places = index.expand(2, -1, -1)
    canvas.scatter_(2, places, torch.lerp(canvas.gather(2, places), fills, cover))


def _radii(least: float, largest: float, area: float, generator: torch.Generator) -> list[float]:
    """Draw radii whose discs have a total area; every octave has the same share of it."""
    mean_square = 2 * math.log(largest / least) / (least**-2 - largest**-2)
    u = torch.rand(round(area / (math.pi * mean_square)), generator=generator, device=generator.device)
    return (least**-2 - u * (least**-2 - largest**-2)).rsqrt().tolist()


def _texture(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw noise (n, size, size) of unit variance whose spectrum falls with a random power."""
    device = generator.device
    spectrum = torch.fft.rfft2(torch.randn(n, size, size, generator=generator, device=device))
    ky, kx = torch.fft.fftfreq(size, device=device), torch.fft.rfftfreq(size, device=device)
    low, high = TEXTURE_POWERS
    power = low + (high - low) * torch.rand(n, 1, 1, generator=generator, device=device)
    noise = torch.fft.irfft2(spectrum * torch.hypot(ky[:, None], kx).clamp_min(1 / size) ** -power, (size, size))
    return noise / noise.std((1, 2), keepdim=True)


def _finished(image: Tensor, generator: torch.Generator) -> Tensor:
    """Put half of the images into a round object with nothing outside, and scale all to a maximum of 1."""
    n, size, device = len(image), image.shape[-1], image.device
    axis = torch.linspace(-1, 1, size, device=device)
    u = torch.rand(10, n, 1, 1, generator=generator, device=device)
    dy, dx = axis[:, None] - 0.2 * (u[0] - 0.5), axis - 0.2 * (u[1] - 0.5)
    angle = torch.atan2(dy, dx * (1 + 0.6 * u[2]))
    radius = 0.6 + 0.5 * u[3]
    for order in range(1, 4):
        radius = radius + 0.3 / order**2 * (u[3 + order] - 0.5) * torch.cos(order * angle + 2 * math.pi * u[6 + order])
    inside = (0.5 + size / 2 * (radius - torch.hypot(dy, dx * (1 + 0.6 * u[2])))).clamp(0, 1)
    boxed = torch.rand(n, 1, 1, generator=generator, device=device) < 0.5
    image = image.clamp_min(0) * torch.where(boxed, inside, 1.0)
    return image / image.amax((1, 2), keepdim=True).clamp_min(1e-6)


def _log_uniform(ends: tuple[float, float], generator: torch.Generator) -> float:
    low, high = ends
    return low * (high / low) ** float(torch.rand((), generator=generator, device=generator.device))

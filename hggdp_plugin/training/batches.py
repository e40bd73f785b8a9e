"""Augmented batches of training images."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """What a prior should be indifferent to; each can be switched off.

    Attributes:
        flip: Flips and quarter turns, all eight equally likely.
        phase: A global phase, uniform.
        smooth_phase: Largest amplitude (radian) of a smooth spatial phase, as coils and field errors give; on half of
            the images.
        intensity: Largest factor of a random intensity scale, log-uniform in [1/intensity, intensity].
        shading: Largest relative amplitude of a smooth intensity variation; on half of the images.
        zoom: Largest factor of a random change of pixel size, log-uniform, with a sub-pixel shift; on half of the
            images.
    """

    flip: bool = True
    phase: bool = True
    smooth_phase: float = 2.0
    intensity: float = 1.25
    shading: float = 0.3
    zoom: float = 1.25

    def without(self, names: Iterable[str]) -> "Augmentation":
        """The same with some attributes switched off."""
        return replace(self, **{name: OFF[name] for name in names})


#: The value of each attribute of :class:`Augmentation` that switches it off.
OFF: dict[str, Any] = {
    "flip": False,
    "phase": False,
    "smooth_phase": 0.0,
    "intensity": 1.0,
    "shading": 0.0,
    "zoom": 1.0,
}


class BatchSource:
    """Draws augmented crops from images in memory, on the device where the images are.

    Args:
        images (list of Tensor): Real (2, H, W) images, of any sizes.
        crop (int): Crop height and width; smaller images are reflected at their borders.
        augmentation (Augmentation): What to vary.
    """

    def __init__(self, images: Sequence[Tensor], crop: int = 128, augmentation: Augmentation | None = None) -> None:
        images = [at_least(image, crop) for image in images]
        self.crop = crop
        self.augmentation = augmentation or Augmentation()
        # One after the other in one vector, so that crops of images of different sizes are drawn at once.
        self.pixels = torch.cat([image.flatten(1) for image in images], dim=1)
        self.sizes = torch.tensor([image.shape[1:] for image in images])
        self.starts = self.sizes.prod(1).cumsum(0) - self.sizes.prod(1)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sizes)

    def __deepcopy__(self, memo: object) -> "BatchSource":
        """Itself: the averaging of weights copies the whole training module, and must not double the images."""
        return self

    def to(self, device: torch.device) -> "BatchSource":
        """Move the images to a device, in place."""
        self.pixels = self.pixels.to(device)
        return self

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n crops, real (n, 2, crop, crop); all randomness comes from ``generator`` (a CPU generator)."""
        batch = self.pixels[:, self._crops(n, generator).to(self.pixels.device)].transpose(0, 1)
        return self._augmented(batch, generator)

    def whole(self, generator: torch.Generator) -> Tensor:
        """Draw one whole image, real (1, 2, H, W); all randomness comes from ``generator`` (a CPU generator)."""
        number = int(torch.randint(len(self), (), generator=generator))
        height, width = self.sizes[number].tolist()
        start = int(self.starts[number])
        image = self.pixels[:, start : start + height * width].reshape(1, 2, height, width)
        if self.augmentation.flip:
            vertical, horizontal, transposed = torch.randint(2, (3,), generator=generator).tolist()
            image = image.flip([axis for axis, flips in ((2, vertical), (3, horizontal)) if flips])
            image = image.mT if transposed else image
        return self._augmented(image.clone(), generator)

    def _augmented(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Vary images (n, 2, H, W), in place, but for their orientation."""
        a, n, size, device = self.augmentation, len(batch), batch.shape[2:], batch.device

        def uniform(*shape: int) -> Tensor:
            return (2 * torch.rand(n, *shape, generator=generator) - 1).to(device)

        def half() -> Tensor:
            return (uniform(1, 1) > 0).float()

        if a.zoom > 1:
            # Chosen on the CPU: a device would have to be waited for.
            chosen = (torch.rand(n, generator=generator) < 0.5).nonzero()[:, 0].to(device)
            zoom, shift = a.zoom ** uniform()[chosen], uniform(2)[chosen] / torch.tensor(size[::-1], device=device)
            if len(chosen):
                batch[chosen] = _zoomed(batch[chosen], zoom, shift)
        magnitude = a.intensity ** uniform(1, 1)
        if a.shading:
            magnitude = magnitude * (1 + a.shading * half() * _smooth(uniform(3, 3), size))
        angle = torch.zeros(n, 1, 1, device=device)
        if a.phase:
            angle = math.pi * uniform(1, 1)
        if a.smooth_phase:
            angle = angle + a.smooth_phase * half() * _smooth(uniform(3, 3), size)
        z = torch.complex(batch[:, 0], batch[:, 1]) * torch.polar(*torch.broadcast_tensors(magnitude, angle))
        return torch.stack([z.real, z.imag], dim=1)

    def _crops(self, n: int, generator: torch.Generator) -> Tensor:
        """Where in ``pixels`` n crops are, flipped and turned or not: indices (n, crop, crop)."""
        image = torch.randint(len(self), (n,), generator=generator)
        corner = (torch.rand(n, 2, generator=generator) * (self.sizes[image] - self.crop + 1)).long()
        along = torch.arange(self.crop).expand(n, 2, -1)
        transposed = torch.zeros(n, 1, 1, dtype=torch.bool)
        if self.augmentation.flip:
            flipped = torch.randint(2, (n, 2, 1), generator=generator).bool()
            along = torch.where(flipped, along.flip(2), along)
            transposed = torch.randint(2, (n, 1, 1), generator=generator).bool()
        y, x = (corner[:, :, None] + along).unbind(1)
        width = self.sizes[image, 1]
        index = (self.starts[image, None] + y * width[:, None])[:, :, None] + x[:, None, :]
        return torch.where(transposed, index.transpose(1, 2), index)


def at_least(image: Tensor, size: int) -> Tensor:
    """Reflect an image (2, H, W) at its lower borders until it is at least size x size."""
    while min(image.shape[1:]) < size:
        pad = [min(max(size - s, 0), s - 1) for s in image.shape[1:]]
        image = functional.pad(image[None], (0, pad[1], 0, pad[0]), mode="reflect")[0]
    return image


def _zoomed(batch: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Resample (n, 2, H, W) about the centre by ``zoom`` (n,) with ``shift`` (n, 2) in half fields of view."""
    theta = torch.zeros(len(batch), 2, 3, device=batch.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def _smooth(coefficients: Tensor, size: Sequence[int]) -> Tensor:
    """A smooth field (n, *size) within [-1, 1] from (n, 3, 3) cosine coefficients within [-1, 1]."""
    bases = []
    for length in size:
        t = torch.linspace(0, math.pi, length, device=coefficients.device)
        bases.append(torch.stack([torch.cos(k * t) for k in range(3)]))
    field = torch.einsum("nij,iy,jx->nyx", coefficients, *bases)
    return field / coefficients.abs().sum((1, 2), keepdim=True).clamp_min(1e-6)

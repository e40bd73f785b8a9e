"""Augmented batches of training images."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hggdp_plugin.training.augmentation import (
    Draws,
    vary_contrast,
    vary_resolution,
    vary_values,
    vary_whole_resolution,
)
from hggdp_plugin.training.config import OFF, Augmentation

__all__ = ["OFF", "Augmentation", "BatchSource", "Domain", "at_least"]


@dataclass(frozen=True)
class Domain:
    """Images of one kind, such as an anatomy in a contrast.

    Attributes:
        name (str): Its name.
        images (tuple of Tensor): Real (2, H, W), channels real and imaginary, of any sizes. An image whose imaginary
            part is zero is a magnitude image: it gets a random smooth phase whenever it is drawn.
        weight (float): How often the domain is drawn, relative to others.
    """

    name: str
    images: tuple[Tensor, ...]
    weight: float = 1.0


class BatchSource:
    """Draws augmented crops from images in memory, on the device where the images are.

    Args:
        images (list of Tensor or list of Domain): Real (2, H, W) images of any sizes, all equally likely; or domains,
            which are drawn by their weights, and then their images, equally likely.
        crop (int): Crop height and width; smaller images are reflected at their borders.
        augmentation (Augmentation): What to vary.
    """

    def __init__(
        self, images: Sequence[Tensor] | Sequence[Domain], crop: int = 128, augmentation: Augmentation | None = None
    ) -> None:
        domains = [d for d in images if isinstance(d, Domain)] or [Domain("images", tuple(images))]  # type: ignore[arg-type]
        domains = [d for d in domains if d.weight > 0]
        self.crop = crop
        self.augmentation = augmentation or Augmentation()
        #: Height and width of the regions that crops are made of, larger where their pixels may become larger.
        self.region = math.ceil(crop / self.augmentation.resolution)
        flat = [image for domain in domains for image in domain.images]
        self._store(flat)
        self.magnitude_only = torch.tensor([not image[1].any() for image in flat])
        self.domains = {domain.name: len(domain.images) for domain in domains}
        self.domain_sizes = torch.tensor([len(domain.images) for domain in domains])
        self.domain_starts = self.domain_sizes.cumsum(0) - self.domain_sizes
        weights = torch.tensor([domain.weight for domain in domains])
        self.domain_ends = (weights / weights.sum()).cumsum(0)[:-1]

    def _store(self, images: Sequence[Tensor]) -> None:
        """Store images one after the other in one vector, so that crops of many sizes of image are drawn at once."""
        images = [at_least(image, self.region) for image in images]
        self.pixels = torch.cat([image.flatten(1) for image in images], dim=1)
        self.sizes = torch.tensor([image.shape[1:] for image in images])
        self.starts = self.sizes.prod(1).cumsum(0) - self.sizes.prod(1)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.sizes)

    @property
    def mean_pixels(self) -> float:
        """Mean number of pixels of an image."""
        return float(self.sizes.prod(1).float().mean())

    def __deepcopy__(self, memo: object) -> "BatchSource":
        """Return self: weight averaging deep-copies the module, and the images must not be duplicated."""
        return self

    def with_crop(self, crop: int) -> "BatchSource":
        """Return a source of the same images with crops of another size, in the same memory if they are large enough.

        Args:
            crop (int): Crop height and width; smaller images are reflected at their borders.
        """
        other = copy.copy(self)
        other.crop, other.region = crop, math.ceil(crop / self.augmentation.resolution)
        if int(self.sizes.min()) < other.region:
            parts = zip(self.starts.tolist(), self.sizes.tolist(), strict=True)
            other._store([self.pixels[:, start : start + h * w].reshape(2, h, w) for start, (h, w) in parts])
        return other

    def to(self, device: torch.device) -> "BatchSource":
        """Move the images to a device, in place."""
        self.pixels = self.pixels.to(device)
        return self

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n crops, real (n, 2, crop, crop); all randomness comes from ``generator`` (a CPU generator)."""
        image = self._draw_images(n, generator)
        batch = self.pixels[:, self._regions(image, generator)].transpose(0, 1)
        draws = Draws(n, generator, batch.device)
        batch = vary_contrast(batch, self.augmentation, draws)
        if self.region > self.crop:
            batch = vary_resolution(batch, self.crop, self.augmentation, draws)
        return vary_values(batch, self._without_phase(image), self.augmentation, draws)

    def whole(self, generator: torch.Generator) -> Tensor:
        """Draw one whole image, real (1, 2, H, W); all randomness comes from ``generator`` (a CPU generator)."""
        number = self._draw_images(1, generator)
        height, width = self.sizes[number[0]].tolist()
        start = int(self.starts[number[0]])
        image = self.pixels[:, start : start + height * width].reshape(1, 2, height, width)
        if self.augmentation.flip:
            vertical, horizontal, transposed = torch.randint(2, (3,), generator=generator).tolist()
            image = image.flip([axis for axis, flips in ((2, vertical), (3, horizontal)) if flips])
            image = image.mT if transposed else image
        draws = Draws(1, generator, image.device)
        image = vary_contrast(image, self.augmentation, draws)
        if self.region > self.crop:
            image = vary_whole_resolution(image, self.augmentation, draws)
        return vary_values(image.clone(), self._without_phase(number), self.augmentation, draws)

    def _draw_images(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the numbers of n images, by domain."""
        if len(self.domain_sizes) == 1:
            return torch.randint(len(self), (n,), generator=generator)
        domain = torch.searchsorted(self.domain_ends, torch.rand(n, generator=generator), right=True)
        within = torch.rand(n, generator=generator) * self.domain_sizes[domain]
        return self.domain_starts[domain] + within.long().minimum(self.domain_sizes[domain] - 1)

    def _without_phase(self, image: Tensor) -> Tensor | None:
        """Which of the drawn images are magnitude images, or None if the source has none."""
        return self.magnitude_only[image].to(self.pixels.device) if self.magnitude_only.any() else None

    def _regions(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Draw where in ``pixels`` regions are, flipped and turned or not: indices (n, region, region)."""
        n, device = len(image), self.pixels.device
        corner = (torch.rand(n, 2, generator=generator) * (self.sizes[image] - self.region + 1)).long()
        along = torch.arange(self.region).expand(n, 2, -1)
        transposed = torch.zeros(n, 1, 1, dtype=torch.bool)
        if self.augmentation.flip:
            flipped = torch.randint(2, (n, 2, 1), generator=generator).bool()
            along = torch.where(flipped, along.flip(2), along)
            transposed = torch.randint(2, (n, 1, 1), generator=generator).bool()
        y, x = (corner[:, :, None] + along).unbind(1)
        rows = (self.starts[image, None] + y * self.sizes[image, 1, None]).to(device)
        index = rows[:, :, None] + x.to(device)[:, None, :]
        return torch.where(transposed.to(device), index.transpose(1, 2), index)


def at_least(image: Tensor, size: int) -> Tensor:
    """Reflect an image (2, H, W) at its lower borders until it is at least size x size."""
    while min(image.shape[1:]) < size:
        pad = [min(max(size - s, 0), s - 1) for s in image.shape[1:]]
        image = functional.pad(image[None], (0, pad[1], 0, pad[0]), mode="reflect")[0]
    return image

"""Training images in, augmented batches out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SUFFIXES = (".h5", ".npy", ".cfl")


def load_images(paths: Sequence[str | Path]) -> list[Tensor]:
    """Read complex images, each slice divided by its maximum magnitude.

    Args:
        paths: Files or folders of files: ``.npy`` and ``.cfl`` arrays of complex images (..., H, W), and ``.h5`` files
            with a dataset ``image``, complex (..., H, W) or integer (N, 2, H, W) with the attribute ``step`` and
            channels real, imaginary.

    Returns:
        list of Tensor: Real (2, H, W), float32, channels real and imaginary; empty slices are left out.

    Raises:
        ValueError: A path has no readable image; the message names it.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(f for f in path.rglob("*") if f.suffix in SUFFIXES) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path}: no training images here; expected files ending in {', '.join(SUFFIXES)}")
        files += found
    images = [torch.from_numpy(image) for file in files for image in _slices(file)]
    if not images:
        raise ValueError(f"{', '.join(map(str, paths))}: all images are empty; nothing to train on")
    return images


def _slices(file: Path) -> list[np.ndarray]:
    array = _read(file)
    if array.ndim < 2 or not np.iscomplexobj(array):
        raise ValueError(f"{file}: expected complex images (..., H, W), got {array.dtype} {array.shape}")
    if min(array.shape[-2:]) < 2:
        raise ValueError(
            f"{file}: images of {array.shape[-2]} x {array.shape[-1]} pixels cannot fill a crop; need 2 x 2"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{file}: has NaN or infinite values; remove them before training")
    slices = array.reshape(-1, *array.shape[-2:])
    peaks = np.abs(slices).max(axis=(1, 2))
    return [
        (np.stack([s.real, s.imag]) / peak).astype(np.float32)
        for s, peak in zip(slices, peaks, strict=True)
        if peak > 0
    ]


def _read(file: Path) -> np.ndarray:
    if file.suffix != ".h5":
        from hggdp_plugin.io import read_array

        return read_array(file)
    try:
        with h5py.File(file, "r") as h5:
            data = h5["image"][()]
            if np.issubdtype(data.dtype, np.integer):
                real = data.astype(np.float32) * np.float32(h5["image"].attrs["step"])
                data = real[:, 0] + 1j * real[:, 1]
    except (OSError, KeyError, IndexError, TypeError) as e:
        raise ValueError(f"{file}: not a training file with a dataset 'image' ({e})") from e
    return data


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


class BatchSource:
    """Draws augmented crops from images in memory, on the device where the images are.

    Args:
        images (list of Tensor): Real (2, H, W) images, of any sizes.
        crop (int): Crop height and width; smaller images are reflected at their borders.
        augmentation (Augmentation): What to vary.
    """

    def __init__(self, images: Sequence[Tensor], crop: int = 128, augmentation: Augmentation | None = None) -> None:
        self.images = [_at_least(image, crop) for image in images]
        self.crop = crop
        self.augmentation = augmentation or Augmentation()

    def __deepcopy__(self, memo: object) -> "BatchSource":
        """Itself: the averaging of weights copies the whole training module, and must not double the images."""
        return self

    def to(self, device: torch.device) -> "BatchSource":
        """Move the images to a device, in place."""
        self.images = [image.to(device) for image in self.images]
        return self

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n crops, real (n, 2, crop, crop); all randomness comes from ``generator`` (a CPU generator)."""
        index = torch.randint(len(self.images), (n,), generator=generator).tolist()
        batch = torch.stack([self._crop(self.images[i], generator) for i in index])
        a, device = self.augmentation, batch.device

        def uniform(*shape: int) -> Tensor:
            return (2 * torch.rand(n, *shape, generator=generator) - 1).to(device)

        def half() -> Tensor:
            return (uniform(1, 1) > 0).float()

        if a.zoom > 1:
            chosen = half()[:, 0, 0] > 0
            batch[chosen] = _zoomed(batch, a.zoom ** uniform(), uniform(2) / self.crop)[chosen]
        if a.flip:
            turns = torch.randint(8, (n,), generator=generator).tolist()
            batch = torch.stack([_turned(image, k) for image, k in zip(batch, turns, strict=True)])
        magnitude = a.intensity ** uniform(1, 1)
        if a.shading:
            magnitude = magnitude * (1 + a.shading * half() * _smooth(uniform(3, 3), self.crop))
        angle = torch.zeros(n, 1, 1, device=device)
        if a.phase:
            angle = math.pi * uniform(1, 1)
        if a.smooth_phase:
            angle = angle + a.smooth_phase * half() * _smooth(uniform(3, 3), self.crop)
        z = torch.complex(batch[:, 0], batch[:, 1]) * torch.polar(*torch.broadcast_tensors(magnitude, angle))
        return torch.stack([z.real, z.imag], dim=1)

    def _crop(self, image: Tensor, generator: torch.Generator) -> Tensor:
        y, x = (int(torch.randint(s - self.crop + 1, (1,), generator=generator)) for s in image.shape[1:])
        return image[:, y : y + self.crop, x : x + self.crop]


def _at_least(image: Tensor, size: int) -> Tensor:
    """Reflect an image (2, H, W) at its lower borders until it is at least size x size."""
    while min(image.shape[1:]) < size:
        pad = [min(max(size - s, 0), s - 1) for s in image.shape[1:]]
        image = functional.pad(image[None], (0, pad[1], 0, pad[0]), mode="reflect")[0]
    return image


def _turned(image: Tensor, k: int) -> Tensor:
    image = image.rot90(k % 4, (1, 2))
    return image.flip(2) if k >= 4 else image


def _zoomed(batch: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Resample (n, 2, H, W) about the centre by ``zoom`` (n,) with ``shift`` (n, 2) in half fields of view."""
    theta = torch.zeros(len(batch), 2, 3, device=batch.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def _smooth(coefficients: Tensor, size: int) -> Tensor:
    """A smooth field (n, size, size) within [-1, 1] from (n, 3, 3) cosine coefficients within [-1, 1]."""
    t = torch.linspace(0, math.pi, size, device=coefficients.device)
    basis = torch.stack([torch.cos(k * t) for k in range(3)])
    field = torch.einsum("nij,iy,jx->nyx", coefficients, basis, basis)
    return field / coefficients.abs().sum((1, 2), keepdim=True).clamp_min(1e-6)

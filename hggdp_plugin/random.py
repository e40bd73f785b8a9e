"""Complex random numbers, the one source of noise."""

import numpy as np
import sigpy as sp
import torch

from hggdp_plugin import interop
from hggdp_plugin._typing import Array, RandomGenerator


def complex_normal(rng: RandomGenerator, shape: tuple[int, ...]) -> Array:
    """Draw complex normal noise of unit variance per real channel.

    Args:
        rng (Generator): Random generator of NumPy, CuPy or PyTorch.
        shape (tuple of int): Shape of the result.

    Returns:
        array: complex64, on the device of the generator.
    """
    if isinstance(rng, np.random.Generator):
        # PyTorch draws in less than half of NumPy's time; NumPy's generator gives the seed.
        rng = torch.Generator().manual_seed(int(rng.integers(2**63)))
    if isinstance(rng, torch.Generator):
        pairs = interop.to_array(torch.randn((*shape, 2), generator=rng, dtype=torch.float32, device=rng.device))
    else:
        pairs = rng.standard_normal((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]


def complex_uniform(rng: RandomGenerator, shape: tuple[int, ...]) -> Array:
    """Draw complex noise that is uniform on [0, 1) per real channel.

    Args:
        rng (Generator): Random generator of NumPy, CuPy or PyTorch.
        shape (tuple of int): Shape of the result.

    Returns:
        array: complex64, on the device of the generator.
    """
    if isinstance(rng, torch.Generator):
        pairs = interop.to_array(torch.rand((*shape, 2), generator=rng, dtype=torch.float32, device=rng.device))
    else:
        pairs = rng.random((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]


def device_generator(seed: int, device: sp.Device) -> RandomGenerator:
    """Return a random generator that draws on a device, cheap enough to be made at every step.

    Args:
        seed (int): Seed, at least 0 and below 2^63.
        device (Device): Where to draw.

    Returns:
        Generator: NumPy's on the CPU, PyTorch's on a GPU. (CuPy's takes milliseconds to be made.)
    """
    if device.id < 0:
        return np.random.default_rng(seed)
    return torch.Generator(interop.torch_device(device)).manual_seed(seed)

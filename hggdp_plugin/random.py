"""Complex random numbers, the one source of noise."""

import numpy as np
import torch

from hggdp_plugin._typing import Array, RandomGenerator


def complex_normal(rng: RandomGenerator, shape: tuple[int, ...]) -> Array:
    """Draw complex normal noise of unit variance per real channel.

    Args:
        rng (Generator): NumPy or CuPy random generator.
        shape (tuple of int): Shape of the result.

    Returns:
        array: complex64, NumPy or CuPy as the generator.
    """
    if isinstance(rng, np.random.Generator):
        # PyTorch draws in less than half of NumPy's time; NumPy's generator gives the seed.
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        pairs = torch.randn((*shape, 2), generator=generator, dtype=torch.float32, device="cpu").numpy()
    else:
        pairs = rng.standard_normal((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]


def complex_uniform(rng: RandomGenerator, shape: tuple[int, ...]) -> Array:
    """Draw complex noise that is uniform on [0, 1) per real channel.

    Args:
        rng (Generator): NumPy or CuPy random generator.
        shape (tuple of int): Shape of the result.

    Returns:
        array: complex64, NumPy or CuPy as the generator.
    """
    pairs = rng.random((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]

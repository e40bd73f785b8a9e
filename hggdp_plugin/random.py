"""Complex random numbers, the one source of noise."""

from typing import Any

import numpy as np
import torch

Array = Any  # numpy.ndarray or cupy.ndarray


def complex_normal(rng: Any, shape: tuple[int, ...]) -> Array:
    """Complex noise of unit variance per real channel, complex64."""
    if isinstance(rng, np.random.Generator):
        # Drawn by torch, from a seed of NumPy's: in less than half the time.
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        pairs = torch.randn((*shape, 2), generator=generator, dtype=torch.float32, device="cpu").numpy()
    else:
        pairs = rng.standard_normal((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]


def complex_uniform(rng: Any, shape: tuple[int, ...]) -> Array:
    """Complex noise, uniform on [0, 1) per real channel, complex64."""
    pairs = rng.random((*shape, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0]

"""What several test files need beside the fixtures."""

import numpy as np


def complex_array(*shape: int, seed: int = 0) -> np.ndarray:
    """Complex normal noise, complex64."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def random_hermitian(n: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    """A Hermitian n x n matrix with eigenvalues between low and high."""
    q, _ = np.linalg.qr(complex_array(n, n, seed=seed))
    return (q * np.linspace(low, high, n)) @ q.conj().T


def radial(shape: tuple[int, int], spokes: int, samples: int) -> np.ndarray:
    """Coordinates (spokes, samples, 2) of spokes over half a turn, in units of 1 / field of view."""
    angle = np.pi * np.arange(spokes)[:, None] / spokes
    radius = np.linspace(-0.5, 0.5, samples, endpoint=False)[None]
    return np.stack([shape[0] * radius * np.sin(angle), shape[1] * radius * np.cos(angle)], -1).astype(np.float32)


def kooshball(shape: tuple[int, int, int], spokes: int, samples: int) -> np.ndarray:
    """Coordinates (spokes, samples, 3) of spokes in all directions, in units of 1 / field of view."""
    z = 1 - (np.arange(spokes) + 0.5) / spokes
    angle = np.pi * (3 - 5**0.5) * np.arange(spokes)
    direction = np.stack([z, np.sqrt(1 - z**2) * np.sin(angle), np.sqrt(1 - z**2) * np.cos(angle)], axis=-1)
    radius = np.linspace(-0.5, 0.5, samples, endpoint=False)[None, :, None]
    return (direction[:, None] * radius * shape).astype(np.float32)


def relative_error(image: np.ndarray, reference: np.ndarray) -> float:
    """Norm of the difference over that of the reference."""
    return float(np.linalg.norm(image - reference) / np.linalg.norm(reference))


def smooth_maps(coils: int, shape: tuple[int, int]) -> np.ndarray:
    """Coil sensitivity maps of coils around the image, complex64 (coils, H, W)."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    mps = (1.2 + np.cos(angles) * x + np.sin(angles) * y) * np.exp(1j * (angles + 0.5 * x))
    return (mps / np.sqrt((abs(mps) ** 2).sum(0))).astype(np.complex64)

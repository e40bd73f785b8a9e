"""What the tests share: the GPU half, small networks and a small measurement."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest
import sigpy as sp
import torch
from helpers import smooth_maps

from hggdp_plugin.models.unet import UNet
from hggdp_plugin.prior import ScorePrior

#: Only for fixtures: as modules with doctests, two files of one name would clash.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]


def missing_gpu() -> str | None:
    """Why the tests marked cuda cannot run here, or None."""
    if find_spec("cupy") is None:
        return "needs CuPy"
    return None if torch.cuda.is_available() else "needs an NVIDIA GPU"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := missing_gpu():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=[-1, pytest.param(0, marks=pytest.mark.cuda)], ids=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> sp.Device:
    return sp.Device(request.param)


@pytest.fixture(scope="session")
def make_network() -> Callable[..., UNet]:
    """Builds a small U-Net in which no weight is zero, as no trained network's is."""

    def make(views: int = 1) -> UNet:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            network = UNet(views=views, widths=(8, 16), blocks=1)
            for parameter in network.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.05)
        return network

    return make


@pytest.fixture
def prior(make_network: Callable[..., UNet]) -> ScorePrior:
    return ScorePrior(make_network(), autocast=False)


@dataclass
class Measurement:
    """Noisy undersampled k-space y (coils, H, W) of an image (H, W) seen by coils mps (coils, H, W)."""

    image: np.ndarray
    mps: np.ndarray
    mask: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="session")
def make_measurement() -> Callable[..., Measurement]:
    def make(coils: int = 4, shape: tuple[int, int] = (20, 18), noise: float = 0.01) -> Measurement:
        rng = np.random.default_rng(3)
        image = np.zeros(shape, np.complex64)
        image[3:-3, 4:-4] = 1
        image[7:12, 6:10] = 0.4
        image *= np.exp(1j * np.linspace(-1, 1, shape[1]))
        mps = smooth_maps(coils, shape) if coils > 1 else np.ones((1, *shape), np.complex64)
        y = sp.fft(mps * image, axes=(-2, -1))
        y += noise * (rng.standard_normal(y.shape) + 1j * rng.standard_normal(y.shape))
        mask = rng.random(shape) < 0.5
        mask[shape[0] // 2 - 3 : shape[0] // 2 + 3, shape[1] // 2 - 3 : shape[1] // 2 + 3] = True
        return Measurement(image, mps, mask, (y * mask).astype(np.complex64))

    return make


@pytest.fixture
def measurement(make_measurement: Callable[..., Measurement]) -> Measurement:
    return make_measurement()

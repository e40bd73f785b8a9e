"""The network of the HGGDP paper against reference outputs, and its behavior at every noise level."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hggdp_plugin.models.refinenet import HGGDP_SIGMAS, RefineNet

VECTORS = Path(__file__).with_name("refinenet_vectors.npz")


def load_rule_weights(network: RefineNet) -> None:
    """Fill the network by the rule that the reference outputs were computed with: normal values seeded by the name.

    A tensor under another name or of another shape gets other values, so agreement in the outputs proves that the
    state dict is the published one.
    """
    state = {}
    for name, tensor in network.state_dict().items():
        w = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tensor.shape).astype(np.float32)
        if tensor.ndim == 4:
            w /= np.sqrt(np.prod(tensor.shape[1:]), dtype=np.float32)
        else:
            w *= 0.1
        if name.endswith("embed.weight"):
            w[:, : 2 * tensor.shape[1] // 3] += 1.0
        state[name] = torch.from_numpy(w)
    network.load_state_dict(state)


def relative_error(a: Tensor, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.numpy() - b) / np.linalg.norm(b))


@torch.inference_mode()
def test_agrees_with_the_network_of_the_paper() -> None:
    vectors = np.load(VECTORS)
    network = RefineNet()
    assert sum(p.numel() for p in network.parameters()) == 30_124_550
    assert len(network.state_dict()) == 173
    load_rule_weights(network)
    x = torch.from_numpy(vectors["x"]).expand(3, -1, -1, -1)
    y = network.score(x, torch.tensor([0, 4, 9]))
    assert relative_error(y[:, :, 3::8, 5::8], vectors["y"]) < 1e-5


@torch.inference_mode()
def test_agrees_with_its_own_narrow_vector() -> None:
    vectors = np.load(VECTORS)
    network = RefineNet(views=2, width=4, sigmas=[1.0, 0.1, 0.01])
    load_rule_weights(network)
    y = network.score(torch.from_numpy(vectors["narrow_x"]), torch.tensor([2, 0]))
    assert relative_error(y, vectors["narrow_y"]) < 1e-5


@pytest.mark.parametrize(("views", "height", "width"), [(1, 14, 10), (2, 8, 22), (5, 16, 16)])
def test_config_rebuilds_the_network(views: int, height: int, width: int) -> None:
    network = RefineNet(views=views, width=4, sigmas=(0.5, 0.05))
    again = RefineNet(**json.loads(json.dumps(network.config)))
    again.load_state_dict(network.state_dict())
    assert (again.views, again.stride, again.sigma_min, again.sigma_max) == (views, 2, 0.05, 0.5)
    x, sigma = torch.randn(2, 2 * views, height, width), torch.tensor([0.5, 0.1])
    denoised = again(x, sigma)
    assert denoised.shape == x.shape
    torch.testing.assert_close(denoised, network(x, sigma))


def test_every_parameter_gets_a_gradient() -> None:
    network = RefineNet(views=1, width=4, sigmas=(0.5, 0.05))
    network(torch.randn(2, 2, 8, 8), torch.tensor([0.5, 0.05])).square().mean().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert not missing


class GaussianScore(RefineNet):
    """The exact score, at the levels, of images that are normal with a given variance: -x / (variance + sigma_i^2)."""

    def __init__(self, variance: float) -> None:
        super().__init__(views=1, width=2)
        self.variance = variance

    def score(self, x: Tensor, labels: Tensor) -> Tensor:
        sigma = torch.tensor(self.sigmas, dtype=x.dtype)[labels]
        return -x / (self.variance + sigma**2)[:, None, None, None]


def denoised_unit(network: RefineNet, sigma: Tensor) -> Tensor:
    return network(torch.ones(len(sigma), 2, 1, 1, dtype=sigma.dtype), sigma)[:, 0, 0, 0]


@pytest.mark.parametrize("variance", [0.0, 0.3, 100.0])
def test_exact_at_the_levels(variance: float) -> None:
    network = GaussianScore(variance)
    sigma = torch.tensor(network.sigmas, dtype=torch.float64)
    torch.testing.assert_close(denoised_unit(network, sigma), variance / (variance + sigma**2))


def test_scaling_the_noise_estimate_is_best_between_levels() -> None:
    """Worst relative error of the score over all priors and levels, for the powers of sigma_i / sigma as its scale.

    The true score of a normal prior of variance v is -x / (v + sigma^2). Far above the noise (v large) it does not
    depend on sigma, far below it goes with 1 / sigma^2, so that no scale is right for all; the power 1, which keeps
    the noise estimate sigma s, errs by half a step of the grid, the score itself (power 0) and the denoised image's
    correction sigma^2 s (power 2) by a whole step.
    """
    step = HGGDP_SIGMAS[0] / HGGDP_SIGMAS[1]
    sigma = torch.logspace(0, -2, 181, dtype=torch.float64)
    nearest = torch.tensor(HGGDP_SIGMAS, dtype=torch.float64)
    nearest = nearest[(sigma.log()[:, None] - nearest.log()).abs().argmin(1)]
    worst = {0: 0.0, 1: 0.0, 2: 0.0}
    for variance in (0.0, *np.geomspace(1e-6, 1e4, 41).tolist()):
        network = GaussianScore(variance)
        relative = (1 - denoised_unit(network, sigma)) * (variance + sigma**2) / sigma**2
        for power, error in worst.items():
            scaled = relative * (nearest / sigma) ** (power - 1)
            worst[power] = max(error, float((scaled - 1).abs().max()))
    assert worst[1] == pytest.approx(step**0.5 - 1, rel=0.02)
    assert worst[0] == pytest.approx(step - 1, rel=0.02)
    assert worst[2] == pytest.approx(step - 1, rel=0.02)


def test_outside_the_range_the_nearest_level_is_used() -> None:
    network = GaussianScore(variance=0.0)
    sigma = torch.tensor([0.0, 0.002, 3.0], dtype=torch.float64)
    expected = 1 - sigma / torch.tensor([1.0, 0.01, 1.0], dtype=torch.float64)
    torch.testing.assert_close(denoised_unit(network, sigma), expected)


@pytest.mark.parametrize("sigmas", [[], [1.0, 0.0], [-1.0]])
def test_refuses_levels_without_noise(sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="sigmas: need positive noise levels"):
        RefineNet(views=1, width=2, sigmas=sigmas)

"""The published network against reference outputs, and its behaviour at every noise level."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hggdp_plugin.models.refinenet import RefineNet

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
def test_agrees_with_the_published_network() -> None:
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

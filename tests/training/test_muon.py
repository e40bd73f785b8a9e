"""The optimizer: orthogonal steps of kernels, AdamW's of the rest."""

from copy import deepcopy

import pytest
import torch

from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.training.muon import KERNEL_RATE, Muon, muon, orthogonal


def kernel(*shape):
    torch.manual_seed(0)
    return torch.nn.Parameter(torch.randn(shape))


@pytest.mark.parametrize("shape", [(6, 40), (40, 6)])
def test_an_orthogonal_matrix_has_the_singular_vectors_and_no_small_singular_values(shape):
    u, _, vt = torch.linalg.svd(kernel(*shape).detach(), full_matrices=False)
    matrix = 1e-6 * u * torch.logspace(0, -1.5, 6) @ vt
    core = u.T @ orthogonal(matrix) @ vt.T
    assert core.diag().min() > 0.6
    assert core.diag().max() < 1.3
    torch.testing.assert_close(core, torch.diag(core.diag()), rtol=0, atol=0.1)  # bfloat16


def test_the_first_step_of_a_kernel_is_that_of_its_gradient():
    p = kernel(6, 12, 2, 2)
    before = p.detach().clone()
    optimizer = Muon([p], [], lr=0.1, weight_decay=0.5)
    gradient = torch.randn_like(p)
    p.grad = gradient.clone()
    optimizer.step()
    rate = 0.1 * KERNEL_RATE
    expected = before * (1 - rate * 0.5) - rate * orthogonal(gradient.flatten(1)).view(p.shape)
    torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0.05 * rate)  # bfloat16


def test_other_parameters_take_the_steps_of_adamw():
    a, b = kernel(5), kernel(5)
    ours, adamw = Muon([], [a], lr=0.1, weight_decay=0.5), torch.optim.AdamW([b], lr=0.1, weight_decay=0.5)
    for step in range(3):
        for p, optimizer in ((a, ours), (b, adamw)):
            p.grad = torch.full_like(p, step - 0.5)
            optimizer.step()
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_its_state_can_be_saved_and_loaded():
    p, q = kernel(12, 12, 3, 3), kernel(12, 12, 3, 3)
    first, second = Muon([p], [], lr=0.1), Muon([q], [], lr=0.1)
    p.grad = torch.randn_like(p)
    first.step()
    q.data.copy_(p.data)
    second.load_state_dict(deepcopy(first.state_dict()))
    for parameter, optimizer in ((p, first), (q, second)):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_a_closure_is_called_and_its_loss_returned():
    p = kernel(12, 12)

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    before = float(p.detach().square().sum())
    assert float(Muon([p], [], lr=0.01).step(closure).detach()) == pytest.approx(before)
    assert float(p.detach().square().sum()) < before


@pytest.mark.parametrize("network", [UNet(widths=(12, 16)), RefineNet(views=1, width=12)])
def test_convolutions_between_hidden_features_take_orthogonal_steps(network):
    optimizer = muon(network, 1e-3)
    kernels, others = (group["params"] for group in optimizer.param_groups)
    assert len(kernels) + len(others) == len(list(network.parameters()))
    names = {id(p): name for name, p in network.named_parameters()}
    assert kernels
    assert all(p.ndim == 4 for p in kernels)
    ends = {"head.weight", "tail.weight", "begin_conv.weight", "end_conv.weight"}
    assert not ends & {names[id(p)] for p in kernels}
    assert not any(name.startswith("up.") for name in (names[id(p)] for p in kernels))

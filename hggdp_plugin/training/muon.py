"""The optimizer: Muon for convolution kernels, AdamW for the other parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hggdp_plugin.prior import has_bfloat16

#: Learning rate of kernels over that of the other parameters: a step then changes a kernel of 128 channels by as much,
#: in root mean square, as AdamW would.
KERNEL_RATE = 7.0


class Muon(torch.optim.AdamW):
    r"""AdamW, but with orthogonal steps of kernels: all directions of the gradient's momentum have the same weight.

    The momentum of a kernel (out, in, h, w), as a matrix M (out, in h w), is replaced by a matrix close to
    :math:`(M M^T)^{-1/2} M`, and the step is that times :math:`\sqrt{\max(1, out / (in \, h \, w))}` and
    :data:`KERNEL_RATE` times the learning rate. Denoisers trained for some thousand steps are much better than those
    trained with AdamW (benchmarks/training.py). (``torch.optim.Muon`` accepts matrices only.)

    Args:
        kernels (sequence of Tensor): Parameters of two or more axes, with orthogonal steps.
        others (sequence of Tensor): Parameters with the steps of AdamW.
        lr (float): Learning rate.
        weight_decay (float): Of both kinds of parameters. With much less, kernels grow until long trainings diverge.
        momentum (float): Of the kernels.

    References:
        Jordan, K., et al. (2024). Muon: an optimizer for hidden layers in neural networks.
    """

    def __init__(
        self,
        kernels: Sequence[Tensor],
        others: Sequence[Tensor],
        lr: float,
        weight_decay: float = 0.03,
        momentum: float = 0.95,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(kernels), "momentum": momentum, "lr": KERNEL_RATE * lr},
            {"params": list(others), "momentum": None},
        ]
        super().__init__(groups, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; ``closure`` computes the loss and the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["momentum"] is None:
                continue
            moving = [kernel for kernel in group["params"] if kernel.grad is not None]
            shapes = dict.fromkeys(tuple(kernel.shape) for kernel in moving)
            for shape in shapes:
                self._move([kernel for kernel in moving if tuple(kernel.shape) == shape], group)
            for kernel in moving:
                kernel.grad = None  # AdamW skips parameters without a gradient
        super().step()
        return loss

    def _move(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        """Step kernels of one shape, as one batch of matrices."""
        for kernel in kernels:
            if not self.state[kernel]:
                # AdamW asks for the number of steps when a state is loaded.
                self.state[kernel].update(step=torch.tensor(0.0), momentum=torch.zeros_like(kernel))
            self.state[kernel]["step"] += 1
        grads: list[Any] = [kernel.grad for kernel in kernels]
        averages = [self.state[kernel]["momentum"] for kernel in kernels]
        torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
        directions = torch.stack(torch._foreach_lerp(grads, averages, group["momentum"])).flatten(2)
        moves = orthogonal(directions)
        scale = max(1, directions.shape[1] / directions.shape[2]) ** 0.5
        torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(kernels, list(moves.view(len(kernels), *kernels[0].shape)), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return matrices (..., m, n) with the same singular vectors and singular values between about 0.7 and 1.2.

    Five Newton-Schulz iterations with the coefficients of Jordan et al., in bfloat16, which is exact enough, where the
    processor has it.
    """
    x = matrix.bfloat16() if has_bfloat16(matrix.device) else matrix.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-30)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


def muon(network: Any, lr: float) -> Muon:
    """Build the optimizer of a network: kernels of convolutions between hidden features take orthogonal steps.

    Not those of the first and the last layer, nor transposed ones, whose axes are in another order.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    kernels = [m.weight for m in convolutions if min(m.in_channels, m.out_channels) > 8 * network.views]
    chosen = {id(kernel) for kernel in kernels}
    return Muon(kernels, [p for p in network.parameters() if id(p) not in chosen], lr)

"""The optimizer: Muon for convolution kernels, AdamW for the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Learning rate of kernels over that of the other parameters: a step then changes a kernel of 128 channels by as much,
#: in root mean square, as AdamW would.
KERNEL_RATE = 7.0


class Muon(torch.optim.AdamW):
    r"""AdamW, but kernels take orthogonal steps: every direction of the gradient's momentum counts alike.

    The momentum of a kernel (out, in, h, w), as a matrix M (out, in h w), is replaced by a matrix close to
    :math:`(M M^T)^{-1/2} M`, and the step is that times :math:`\sqrt{\max(1, out / (in \, h \, w))}` and
    :data:`KERNEL_RATE` times the learning rate. Denoisers of some thousand steps come out much better than by AdamW
    (benchmarks/training.py). (``torch.optim.Muon`` takes matrices only.)

    Args:
        kernels (sequence of Tensor): Parameters of two or more axes that take orthogonal steps.
        others (sequence of Tensor): Parameters that take AdamW's.
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
            for kernel in group["params"]:
                if kernel.grad is not None:
                    self._move(kernel, kernel.grad, group)
                    kernel.grad = None  # AdamW passes over parameters without one
        super().step()
        return loss

    def _move(self, kernel: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[kernel]
        if not state:
            # AdamW asks for the number of steps when a state is loaded.
            state["step"], state["momentum"] = torch.tensor(0.0), torch.zeros_like(kernel)
        state["step"] += 1
        average = state["momentum"].lerp_(grad, 1 - group["momentum"])
        direction = grad.lerp(average, group["momentum"]).flatten(1)
        move = orthogonal(direction).view(kernel.shape)
        scale = max(1, direction.shape[0] / direction.shape[1]) ** 0.5
        kernel.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with the singular vectors of the given one and singular values between about 0.7 and 1.2.

    Five Newton-Schulz iterations with the coefficients of Jordan et al., in bfloat16, which is exact enough.
    """
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-30)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def muon(network: Any, lr: float) -> Muon:
    """The optimizer of a network: kernels of convolutions between hidden features take orthogonal steps.

    Not those of the first and the last layer, nor transposed ones, whose axes are in another order.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    kernels = [m.weight for m in convolutions if min(m.in_channels, m.out_channels) > 8 * network.views]
    chosen = {id(kernel) for kernel in kernels}
    return Muon(kernels, [p for p in network.parameters() if id(p) not in chosen], lr)

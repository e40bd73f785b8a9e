"""The published checkpoints of HGGDP, ``checkpoint_100000.pth`` and its like, read without running what is in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hggdp_plugin.models.refinenet import HGGDP_SIGMAS, RefineNet


def read_hggdp_checkpoint(path: str | Path, sigmas: Sequence[float] = HGGDP_SIGMAS) -> RefineNet:
    """Read a published checkpoint; the number of views, the width and the number of levels follow from its shapes.

    Args:
        path: Torch file that holds a list, [0] the network's state dict and [1] the optimizer's, or the state dict
            alone. Names may have the prefix ``module.`` of ``DataParallel``.
        sigmas (sequence of floats): Noise level of each class; the file does not hold them.

    Returns:
        RefineNet: The network in evaluation mode, float32, on the CPU.

    Raises:
        ValueError: The file is no such checkpoint, or has another number of levels than sigmas; the message is one
            line that names the file and what it lacks.
        OSError: The file can't be read.
    """
    state = _network_state(path)
    try:
        width, channels, _, _ = state["begin_conv.weight"].shape
        levels, _ = state["normalizer.embed.weight"].shape
    except (KeyError, ValueError) as e:
        raise ValueError(
            f"{path}: no weights of the published network (begin_conv.weight and normalizer.embed.weight)"
        ) from e
    if levels != len(sigmas):
        raise ValueError(f"{path}: {levels} noise levels, but {len(sigmas)} sigmas; hggdp convert --sigmas sets them")

    with torch.device("meta"):  # shapes only: the weights come from the file
        network = RefineNet(channels // 2, width, sigmas)
    expected = network.state_dict()
    for fault, names in {
        "misses": expected.keys() - state.keys(),
        "has unknown": state.keys() - expected.keys(),
        "has of another shape": {k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape},
    }.items():
        if names:
            raise ValueError(f"{path}: {fault} {len(names)} of {len(expected)} tensors, such as {min(names)}")
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return network.eval()


def _network_state(path: str | Path) -> dict[str, Tensor]:
    """Return the network's state dict in a torch file, without prefixes."""
    try:
        # weights_only: a pickle may hold any call; this reads tensors and plain containers and refuses the rest.
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as e:  # bytes that are no pickle fail in any way: IndexError, struct.error, ...
        raise ValueError(f"{path}: not a torch file, or one that holds more than tensors") from e
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{path}: no state dict, neither alone nor first in a list")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}

"""Checkpoints of the HGGDP authors' code, such as ``checkpoint_100000.pth``, read without running code in them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hggdp_plugin._typing import PathLike
from hggdp_plugin.models.refinenet import HGGDP_SIGMAS, RefineNet


def read_hggdp_checkpoint(path: PathLike, sigmas: Sequence[float] = HGGDP_SIGMAS) -> RefineNet:
    """Read a checkpoint; the number of views, the width and the number of levels follow from its shapes.

    Args:
        path (str or Path): PyTorch file with a list, [0] the network's state dict and [1] the optimizer's, or with the
            state dict alone. Names may have the prefix ``module.`` of ``DataParallel``.
        sigmas (sequence of float): Noise level of each class, which is not in the file.

    Returns:
        RefineNet: The network, float32, on the CPU.

    Raises:
        ValueError: The file is not such a checkpoint, or its number of levels differs from that of ``sigmas``; the
            message is one line that names the file and what is missing.
        OSError: The file cannot be read.
    """
    state = _network_state(path)
    try:
        width, channels, _, _ = state["begin_conv.weight"].shape
        levels, _ = state["normalizer.embed.weight"].shape
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: no weights of the HGGDP network (begin_conv.weight and normalizer.embed.weight)"
        ) from error
    if levels != len(sigmas):
        raise ValueError(f"{path}: {levels} noise levels, but {len(sigmas)} sigmas; hggdp convert --sigmas sets them")

    with torch.device("meta"):  # shapes only: the weights come from the file
        network = RefineNet(channels // 2, width, sigmas)
    expected = network.state_dict()
    for fault, names in {
        "lacks": expected.keys() - state.keys(),
        "has unknown": state.keys() - expected.keys(),
        "has other shapes of": {k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape},
    }.items():
        if names:
            raise ValueError(f"{path}: {fault} {len(names)} of {len(expected)} tensors, such as {min(names)}")
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return network.eval()


def _network_state(path: PathLike) -> dict[str, Tensor]:
    """Return the network's state dict in a PyTorch file, without prefixes."""
    try:
        # weights_only: a pickle may contain any call; this reads tensors and plain containers and refuses the rest.
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # bytes that are not a pickle raise anything: IndexError, struct.error, ...
        raise ValueError(f"{path}: not a PyTorch file, or one that contains more than tensors") from error
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{path}: no state dict, neither alone nor first in a list")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}

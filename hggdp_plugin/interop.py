"""Where torch meets NumPy and CuPy: arrays cross through DLPack without a copy, complex views become real channels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import sigpy as sp
import torch
from torch import Tensor


def to_torch(array: Any) -> Tensor:
    """A tensor that shares the memory of a NumPy or CuPy array.

    Read-only arrays and arrays with negative strides, which torch has no notion of, are copied. For a CuPy array
    torch's current stream waits for CuPy's.

    Args:
        array (array): NumPy or CuPy array.

    Returns:
        Tensor: On the device of the array.
    """
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()
    if any(stride < 0 for stride in array.strides):
        array = array.copy(order="C")
    return torch.from_dlpack(array)


def to_array(tensor: Tensor) -> Any:
    """A NumPy (CPU) or CuPy (GPU) array that shares the memory of a tensor.

    For a CUDA tensor CuPy's current stream waits for torch's.

    Args:
        tensor (Tensor): Tensor on a CPU or an NVIDIA GPU.

    Returns:
        array: NumPy or CuPy array.
    """
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.device.type == "cpu":
        return tensor.numpy()  # as from_dlpack, which with older torch gives a read-only array
    import cupy

    return cupy.from_dlpack(tensor)


def torch_device(device: sp.Device) -> torch.device:
    """The torch device of a SigPy device."""
    return torch.device("cpu" if device.id < 0 else f"cuda:{device.id}")


@contextmanager
def current_stream(device: sp.Device) -> Iterator[None]:
    """Run torch on CuPy's current stream, so that work of both, and memory that either reuses, stays in order.

    Args:
        device (Device): SigPy device; nothing to do on a CPU.
    """
    if device.id < 0:
        yield
        return
    import cupy

    with device:
        stream, place = cupy.cuda.get_current_stream().ptr, torch_device(device)
        # For the null stream ExternalStream would give another at each call, with memory of its own.
        with torch.cuda.stream(
            torch.cuda.ExternalStream(stream, device=place) if stream else torch.cuda.default_stream(place)
        ):
            yield


def views_to_channels(views: Tensor) -> Tensor:
    """Complex views (B, K, H, W) as real channels (B, 2K, H, W): [re1, im1, re2, im2, ...].

    For one view this is the same memory, which a convolution network reads as channels last.
    """
    return torch.view_as_real(views).permute(0, 1, 4, 2, 3).flatten(1, 2)


def channels_to_views(channels: Tensor) -> Tensor:
    """Real channels (B, 2K, H, W) as complex views (B, K, H, W); without a copy for one view in channels last."""
    pairs = channels.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2)
    return torch.view_as_complex(pairs.contiguous())

"""Where PyTorch meets NumPy and CuPy: DLPack without copies, and complex views as real channels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import sigpy as sp
import torch
from torch import Tensor

from hggdp_plugin._typing import Array


def to_torch(array: Array) -> Tensor:
    """Return a tensor that shares the memory of a NumPy or CuPy array.

    Read-only arrays and arrays with negative strides, which PyTorch does not support, are copied. For a CuPy array
    PyTorch's current stream waits for CuPy's.

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


def to_array(tensor: Tensor) -> Array:
    """Return a NumPy (CPU) or CuPy (GPU) array that shares the memory of a tensor.

    For a CUDA tensor CuPy's current stream waits for PyTorch's.

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


def as_array(name: str, value: object) -> Array:
    """Return an argument as a NumPy or CuPy array: tensors, HDF5 datasets, lists and numbers are converted.

    Args:
        name (str): Name of the argument, for messages.
        value (object): NumPy or CuPy array, PyTorch tensor, or what :func:`numpy.asarray` takes.

    Returns:
        array: The same object if it is an array; a tensor shares its memory.

    Raises:
        ValueError: It can't be converted to an array of numbers.
    """
    if isinstance(value, Tensor):
        return to_array(value)
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__cuda_array_interface__"):
        return cast(Array, value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"{name}: expected an array, got {type(value).__name__} ({error})") from None
    if array.dtype.kind not in "buifc":
        raise ValueError(f"{name}: expected an array of numbers, got {type(value).__name__}")
    return array


def optional_array(name: str, value: object) -> Array | None:
    """Return an argument as by :func:`as_array`, or None."""
    return None if value is None else as_array(name, value)


def torch_device(device: sp.Device) -> torch.device:
    """Return the PyTorch device of a SigPy device."""
    return torch.device("cpu" if device.id < 0 else f"cuda:{device.id}")


@contextmanager
def current_stream(device: sp.Device) -> Iterator[None]:
    """Run PyTorch on CuPy's current stream, so that their work, and the memory that either reuses, stays in order.

    Args:
        device (Device): SigPy device; nothing to do on a CPU.
    """
    if device.id < 0:
        yield
        return
    import cupy

    with device:
        pointer, cuda = cupy.cuda.get_current_stream().ptr, torch_device(device)
        # For the null stream, ExternalStream would return a new one at each call, with its own memory pool.
        with torch.cuda.stream(
            torch.cuda.ExternalStream(pointer, device=cuda) if pointer else torch.cuda.default_stream(cuda)
        ):
            yield


def views_to_channels(views: Tensor) -> Tensor:
    """Return complex views (B, K, H, W) as real channels (B, 2K, H, W): [re1, im1, re2, im2, ...].

    For one view this is the same memory, in the format channels last.
    """
    return torch.view_as_real(views).permute(0, 1, 4, 2, 3).flatten(1, 2)


def channels_to_views(channels: Tensor) -> Tensor:
    """Return real channels (B, 2K, H, W) as complex views (B, K, H, W); no copy for one view in channels last."""
    pairs = channels.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2)
    return torch.view_as_complex(pairs.contiguous())

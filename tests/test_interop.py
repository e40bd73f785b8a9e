"""Arrays cross between torch, NumPy and CuPy without a copy; complex views become real channels and come back."""

import numpy as np
import pytest
import sigpy as sp
import torch

from hggdp_plugin import interop


def pointer(array) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int64])
def test_array_to_tensor_shares_memory(device, dtype):
    with device:
        array = device.xp.arange(12, dtype=dtype).reshape(3, 4)
    tensor = interop.to_torch(array)
    assert tensor.data_ptr() == pointer(array)
    assert tensor.device == interop.torch_device(device)
    array += 1
    np.testing.assert_array_equal(tensor.cpu().numpy(), sp.to_device(array))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_tensor_to_array_shares_memory(device, dtype):
    tensor = torch.ones(3, 4, dtype=dtype, device=interop.torch_device(device))
    array = interop.to_array(tensor)
    assert pointer(array) == tensor.data_ptr()
    assert sp.get_device(array) == device
    array += 1  # writable
    assert (tensor == 2).all()


def test_strides_that_torch_knows_are_not_copied():
    array = np.arange(24, dtype=np.complex64).reshape(4, 6)[::2, 1::2].T
    tensor = interop.to_torch(array)
    assert tensor.data_ptr() == pointer(array)
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_negative_strides_are_copied(device):
    with device:
        array = device.xp.arange(6, dtype=np.float32).reshape(2, 3)[::-1, ::-1]
    tensor = interop.to_torch(array)
    np.testing.assert_array_equal(tensor.cpu().numpy(), sp.to_device(array))


def test_read_only_arrays_are_copied():
    array = np.broadcast_to(np.float32(3), (2, 2))
    tensor = interop.to_torch(array)
    tensor += 1
    assert (array == 3).all()


def test_lazy_conjugation_and_gradients_are_resolved():
    tensor = torch.tensor([1 + 2j], requires_grad=True).conj()
    np.testing.assert_array_equal(interop.to_array(tensor), [1 - 2j])
    np.testing.assert_array_equal(interop.to_array(torch.tensor([1 + 2j]).conj().imag), [-2])


@pytest.mark.parametrize("views", [1, 3])
def test_views_and_channels_round_trip(views):
    x = torch.randn(2, views, 5, 4, dtype=torch.complex64)
    channels = interop.views_to_channels(x)
    assert channels.shape == (2, 2 * views, 5, 4)
    for k in range(views):
        torch.testing.assert_close(channels[:, 2 * k], x[:, k].real, rtol=0, atol=0)
        torch.testing.assert_close(channels[:, 2 * k + 1], x[:, k].imag, rtol=0, atol=0)
    torch.testing.assert_close(interop.channels_to_views(channels), x, rtol=0, atol=0)


def test_one_view_is_the_same_memory_as_its_channels():
    x = torch.randn(2, 1, 5, 4, dtype=torch.complex64)
    channels = interop.views_to_channels(x)
    assert channels.data_ptr() == x.data_ptr()
    assert channels.is_contiguous(memory_format=torch.channels_last)
    assert interop.channels_to_views(channels).data_ptr() == x.data_ptr()


def test_cpu_needs_no_stream():
    with interop.current_stream(sp.cpu_device):
        assert interop.torch_device(sp.cpu_device) == torch.device("cpu")


@pytest.mark.cuda
def test_torch_runs_on_the_stream_of_cupy():
    import cupy

    device = sp.Device(0)
    stream = cupy.cuda.Stream(non_blocking=True)
    with device, stream, interop.current_stream(device):
        assert torch.cuda.current_stream().cuda_stream == stream.ptr
    with device, cupy.cuda.Stream.null, interop.current_stream(device):
        assert torch.cuda.current_stream() == torch.cuda.default_stream()


@pytest.mark.cuda
def test_work_stays_in_order_on_another_stream():
    import cupy

    device = sp.Device(0)
    stream = cupy.cuda.Stream(non_blocking=True)
    with device, stream:
        a = cupy.eye(2048, dtype=cupy.float32)
        for _ in range(50):  # milliseconds of work, queued and not waited for
            a = a @ a
        a += 1
        with interop.current_stream(device):
            b = interop.to_array(interop.to_torch(a) * 2)
        c = b - 2
        total = float(c.sum())
    assert total == 2 * 2048

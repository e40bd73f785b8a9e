"""The SENSE operator for a batch of slices."""

from typing import Any

import sigpy as sp


def Sense(
    mps: Any,
    batch: tuple[int, ...] = (),
    coord: Any = None,
    weights: Any = None,
    coil_batch_size: int | None = None,
    comm: Any = None,
) -> sp.linop.Linop:
    r"""SENSE operator :math:`W^{1/2} F S` for a batch of slices.

    As :func:`sigpy.mri.linop.Sense`, for images with leading batch axes. All arrays stay on the device of ``mps``.

    Args:
        mps (array): Sensitivity maps, complex (coils, H, W), or (..., coils, H, W) with leading axes that broadcast to
            ``batch``.
        batch (tuple of ints): Batch axes of the images.
        coord (None or array): Non-Cartesian k-space coordinates (..., 2), in units of 1 / field of view.
        weights (None or array): k-space weights, of a shape that broadcasts to the k-space (..., coils, *k).
        coil_batch_size (None or int): Coils processed at a time; bounds the memory.
        comm (None or Communicator): SigPy communicator among processes that hold different coils.

    Returns:
        Linop: Maps images (*batch, H, W) to k-space (*batch, coils, H, W) or (*batch, coils, *coord.shape[:-1]).
    """
    device = sp.get_device(mps)
    coord, weights = (None if a is None else sp.to_device(a, device) for a in (coord, weights))
    coils = mps.shape[-3]
    size = coil_batch_size or coils
    kspace_axes = 2 if coord is None else coord.ndim - 1
    parts = []
    for start in range(0, coils, size):
        part = slice(start, start + size)
        own = weights
        if weights is not None and weights.ndim > kspace_axes and weights.shape[-kspace_axes - 1] == coils:
            index = (..., part, *[slice(None)] * kspace_axes)
            own = weights[index]
        parts.append(_sense(mps[..., part, :, :], batch, coord, own))
    A = parts[0] if len(parts) == 1 else sp.linop.Vstack(parts, axis=len(batch))
    if comm is not None:
        A = A * sp.linop.AllReduceAdjoint(A.ishape, comm, in_place=True)
    A.repr_str = "Sense"
    return A


def _sense(mps: Any, batch: tuple[int, ...], coord: Any, weights: Any) -> sp.linop.Linop:
    ishape = (*batch, *mps.shape[-2:])
    A = sp.linop.Reshape((*batch, 1, *mps.shape[-2:]), ishape)
    A = sp.linop.Multiply(A.oshape, mps) * A
    F = sp.linop.FFT(A.oshape, axes=(-2, -1)) if coord is None else sp.linop.NUFFT(A.oshape, coord)
    A = F * A
    if weights is not None:
        with sp.get_device(weights):
            A = sp.linop.Multiply(A.oshape, weights**0.5) * A
    return A

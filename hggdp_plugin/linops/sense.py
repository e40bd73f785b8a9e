"""The SENSE operator for a batch of slices, and for volumes."""

from math import prod
from types import ModuleType
from typing import TypeVar, cast

import numpy as np
import scipy.fft
import sigpy as sp
import torch

from hggdp_plugin import interop
from hggdp_plugin._typing import Array
from hggdp_plugin.linops.fourier import for_fft, from_fft
from hggdp_plugin.validation import sets_axis

_AnyArray = TypeVar("_AnyArray", Array, torch.Tensor, Array | torch.Tensor)

#: Oversampling and kernel width with an error of 2e-6; that of SigPy's defaults is 3e-3, as large as the noise of good
#: data.
_NUFFT_OPTIONS = {"oversamp": 2, "width": 6}


class Sense(sp.linop.Linop):
    r"""SENSE operator :math:`W^{1/2} F S` for a batch of slices or volumes.

    Like :func:`sigpy.mri.linop.Sense`, for images with leading batch axes. All arrays stay on the device of ``mps``.
    Its normal operator is :class:`SenseNormal`, for volumes :class:`VolumeNormal`, which avoids the forward and adjoint
    NUFFT. With several sets of maps it is soft-SENSE, the sum over their images :math:`W^{1/2} F \sum_m S_m x_m`.

    Args:
        mps (array): Coil sensitivity maps, complex (coils, H, W), or (..., coils, H, W) with leading axes that
            broadcast to ``batch``. Volumes have D before H. Several sets are an axis before that of the coils.
        batch (tuple of int): Batch axes of the images.
        coord (None or array): Non-Cartesian k-space coordinates (..., 2), for volumes (..., 3), in units of 1 / field
            of view.
        weights (None or array): k-space weights, of a shape that broadcasts to the k-space (..., coils, *k).
        coil_batch_size (None or int): Coils processed at a time; bounds the memory.
        comm (None or Communicator): SigPy communicator among processes that hold different coils.
        ndim (None or int): Axes of an image, 2 or 3; None: those of ``coord``, and 2 on the Cartesian grid.
        maps (int): Sets of maps. More than 1 are an axis of ``mps`` before the coils, and of the images.

    Maps images (*batch, H, W), with several sets (*batch, maps, H, W), to k-space (*batch, coils, H, W) or
    (*batch, coils, *coord.shape[:-1]).

    References:
        Uecker, M., et al. (2014). ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI. MRM, 71(3),
        990-1001. Several sets of maps.
    """

    def __init__(
        self,
        mps: Array,
        batch: tuple[int, ...] = (),
        coord: Array | None = None,
        weights: Array | None = None,
        coil_batch_size: int | None = None,
        comm: sp.Communicator | None = None,
        *,
        ndim: int | None = None,
        maps: int = 1,
    ) -> None:
        device = sp.get_device(mps)
        coord, weights = (None if a is None else sp.to_device(a, device) for a in (coord, weights))
        self.ndim, self.maps = image_axes(coord, ndim), maps
        ndim = self.ndim
        coils = mps.shape[-ndim - 1]
        self.coil_batch_size = min(coil_batch_size or coils, coils)
        kspace_axes = ndim if coord is None else coord.ndim - 1
        parts, normals = [], list[sp.linop.Linop]()
        for start in range(0, coils, self.coil_batch_size):
            part = slice(start, start + self.coil_batch_size)
            options = _some_coils(mps, part, ndim), batch, coord, _weights_of_coils(weights, part, kspace_axes, coils)
            parts.append(_sense(*options, ndim, maps))
            if ndim == 2:
                normals.append(SenseNormal(*options, maps=maps))
        A = parts[0] if len(parts) == 1 else sp.linop.Vstack(parts, axis=len(batch))
        if ndim == 3:
            normals.append(VolumeNormal(mps, batch, coord, weights, maps=maps))
        N = normals[0] if len(normals) == 1 else sp.linop.Add(normals)
        if comm is not None:
            # Not in place: MPI takes contiguous arrays only, and copies are.
            A = A * sp.linop.AllReduceAdjoint(A.ishape, comm)
            N = sp.linop.AllReduce(N.oshape, comm) * N
        self._composed, self._composed_normal = A, N
        super().__init__(A.oshape, A.ishape)

    def _apply(self, input: Array) -> Array:
        return self._composed(input)

    def _adjoint_linop(self) -> sp.linop.Linop:
        return self._composed.H

    def _normal_linop(self) -> sp.linop.Linop:
        return self._composed_normal


def image_axes(coord: Array | None, ndim: int | None = None) -> int:
    """Return the number of axes of an image: as given, or that of coordinates, or 2."""
    return ndim or (2 if coord is None else coord.shape[-1])


def _sum_sets(array: _AnyArray, maps: int, axis: int) -> _AnyArray:
    """Sum over the sets of maps, if there are several."""
    return array.sum(axis) if maps > 1 else array


def _weights_of_coils(weights: Array | None, part: slice, kspace_axes: int, coils: int) -> Array | None:
    """Return the weights of a part of the coils, where each coil has its own."""
    if weights is None or weights.ndim <= kspace_axes or weights.shape[-kspace_axes - 1] != coils:
        return weights
    return _some_coils(weights, part, kspace_axes)


def _some_coils(array: Array, part: slice, ndim: int) -> Array:
    """Return a part of the coils of an array (..., coils, *axes) with ``ndim`` axes after the coils."""
    xp, axis = sp.get_array_module(array), -ndim - 1
    return xp.moveaxis(xp.moveaxis(array, axis, 0)[part], 0, axis)


def _coils_first(array: Array, batch_ndim: int, ndim: int) -> Array:
    """Move the coils of (..., coils, *image) to the front, before as many axes as the batch has.

    Axes that are missing at the front have length 1.
    """
    ones = (1,) * (batch_ndim + 1 + ndim - array.ndim)
    return sp.get_array_module(array).moveaxis(array.reshape(ones + array.shape), -ndim - 1, 0)


def _sense(
    mps: Array, batch: tuple[int, ...], coord: Array | None, weights: Array | None, ndim: int, maps: int
) -> sp.linop.Linop:
    shape, axes = mps.shape[-ndim:], tuple(range(-ndim, 0))
    batch = (*batch, *sets_axis(maps))
    A = sp.linop.Reshape((*batch, 1, *shape), (*batch, *shape))
    A = sp.linop.Multiply(A.oshape, mps) * A
    if maps > 1:
        A = sp.linop.Sum(A.oshape, (-ndim - 2,)) * A
    F = sp.linop.FFT(A.oshape, axes=axes) if coord is None else sp.linop.NUFFT(A.oshape, coord, **_NUFFT_OPTIONS)
    A = F * A
    if weights is not None:
        with sp.get_device(weights):
            A = sp.linop.Multiply(A.oshape, weights**0.5) * A
    return A


class SenseNormal(sp.linop.Linop):
    r"""Normal operator :math:`S^H F^H W F S` of :class:`Sense`.

    :math:`F^H W F` is a convolution with the point spread function of the samples. On the Cartesian grid it is
    circular, and its transfer function is W; otherwise zeros around the image make it circular (Toeplitz embedding).
    Convolutions commute with shifts, so that nothing needs to be centered. Along an axis where the transfer function is
    constant, as it is along the readout if whole lines are missing, nothing is transformed.

    Args:
        mps (array): As in :class:`Sense`.
        batch (tuple of int): As in :class:`Sense`.
        coord (None or array): As in :class:`Sense`.
        weights (None or array): As in :class:`Sense`.
        maps (int): As in :class:`Sense`.

    References:
        Fessler, J. A., Lee, S., Olafsson, V. T., Shi, H. R., & Noll, D. C. (2005). Toeplitz-based iterative image
        reconstruction for MRI with correction for magnetic field inhomogeneity. IEEE TSP, 53(9), 3393-3402.
    """

    def __init__(
        self,
        mps: Array,
        batch: tuple[int, ...] = (),
        coord: Array | None = None,
        weights: Array | None = None,
        *,
        maps: int = 1,
    ) -> None:
        self.maps = maps
        with sp.get_device(mps):
            xp, shape = sp.get_array_module(mps), (*batch, *sets_axis(maps), *mps.shape[-2:])
            transfer = _transfer(mps.shape[-2:], coord, weights, xp)
            lines = _constant_axis(transfer) if coord is None and xp is np else None
            # One transform is fastest along the last axis.
            self.is_transposed = lines == -1
            if self.is_transposed:
                mps, transfer = mps.swapaxes(-1, -2), transfer.swapaxes(-1, -2)
            if lines:
                transfer = transfer[..., :1, :]
            self.axes = (-1,) if lines else (-2, -1)
            self.grid = transfer.shape[-len(self.axes) :]
            if xp is np:  # for real and imaginary parts, which PyTorch multiplies in a third of the time
                transfer = transfer.repeat(2, axis=-1)
            mps = xp.ascontiguousarray(mps)
            self.mps, self.fft = for_fft(mps)
            self.conjugate, _ = for_fft(mps.conj())
            self.transfer, _ = for_fft(transfer)
        super().__init__(shape, shape)

    def _apply(self, input: Array) -> Array:
        with sp.get_device(input):
            if isinstance(input, np.ndarray):
                return from_fft(self._coil_by_coil(interop.to_torch(input)))
            transfer = self.transfer[..., None, :, :] if self.transfer.ndim == 2 else self.transfer
            k = self.fft.fft2(_sum_sets(self.mps * input[..., None, :, :], self.maps, -4), self.grid)
            k *= transfer
            terms = self.fft.ifft2(k)[..., : input.shape[-2], : input.shape[-1]]
            if self.maps > 1:
                return (terms[..., None, :, :, :] * self.conjugate).sum(-3)
            terms *= self.conjugate
            return terms.sum(-3)

    def _coil_by_coil(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it on a CPU.

        Buffers for all coils would be new memory at every call, and the first access to its pages takes longer than the
        transforms.
        """
        mps, conjugate, transfer = (cast(torch.Tensor, a) for a in (self.mps, self.conjugate, self.transfer))
        x = x.mT.contiguous() if self.is_transposed else x
        height, width = x.shape[-2:]
        total = torch.zeros_like(x)
        for coil in range(mps.shape[-3]):
            k = torch.fft.fftn(_sum_sets(mps[..., coil, :, :] * x, self.maps, -3), self.grid, self.axes)
            pairs = torch.view_as_real(k)
            of_coil = transfer if transfer.ndim == 2 else transfer[..., min(coil, transfer.shape[-3] - 1), :, :]
            pairs.view(*pairs.shape[:-2], -1).mul_(of_coil)
            terms = torch.fft.ifftn(k, None, self.axes)[..., :height, :width]
            if self.maps > 1:
                total.addcmul_(terms[..., None, :, :], conjugate[..., coil, :, :])
                continue
            terms *= conjugate[..., coil, :, :]
            total += terms
        return total.mT.contiguous() if self.is_transposed else total

    def _adjoint_linop(self) -> sp.linop.Linop:
        return self


class VolumeNormal(sp.linop.Linop):
    r"""Normal operator :math:`S^H F^H W F S` of :class:`Sense` for volumes, coil by coil, as :class:`SenseNormal`.

    Args:
        mps (array): As in :class:`Sense`.
        batch (tuple of int): As in :class:`Sense`.
        coord (None or array): As in :class:`Sense`.
        weights (None or array): As in :class:`Sense`.
        maps (int): As in :class:`Sense`.
    """

    def __init__(
        self,
        mps: Array,
        batch: tuple[int, ...] = (),
        coord: Array | None = None,
        weights: Array | None = None,
        *,
        maps: int = 1,
    ) -> None:
        self.maps = maps
        matrix, xp = mps.shape[-3:], sp.get_array_module(mps)
        shape = (*batch, *sets_axis(maps), *matrix)
        with sp.get_device(mps):
            mps = _coils_first(xp.ascontiguousarray(mps), len(shape) - 3, 3)
            self.mps, self.fft = for_fft(mps)
            self.conjugate, _ = for_fft(mps.conj())
            self.transfer, _ = for_fft(_coils_first(_transfer(matrix, coord, weights, xp), len(batch), 3))
        super().__init__(shape, shape)

    def _apply(self, input: Array) -> Array:
        with sp.get_device(input):
            x, _ = for_fft(input)
            total = self._term(x, 0)
            for coil in range(1, len(self.mps)):
                total += self._term(x, coil)
            return from_fft(total)

    def _term(self, x: Array | torch.Tensor, coil: int) -> Array | torch.Tensor:
        """Apply the term of one coil."""
        transfer, axes = self.transfer[0 if len(self.transfer) == 1 else coil], (-3, -2, -1)
        k = self.fft.fftn(_sum_sets(self.mps[coil] * x, self.maps, -4), tuple(transfer.shape[-3:]), axes)
        k *= transfer
        depth, height, width = x.shape[-3:]
        term = self.fft.ifftn(k, None, axes)[..., :depth, :height, :width]
        if self.maps > 1:
            return term[..., None, :, :, :] * self.conjugate[coil]
        term *= self.conjugate[coil]
        return term

    def _adjoint_linop(self) -> sp.linop.Linop:
        return self


def _constant_axis(transfer: Array) -> int | None:
    """Return the axis, -2 or -1, along which a transfer function is constant; None if there is none."""
    first = transfer[..., :1, :], transfer[..., :, :1]
    return next((axis for axis, part in zip((-2, -1), first, strict=True) if (transfer == part).all()), None)


def kspace_diagonal(
    mps: Array, coord: Array | None = None, weights: Array | None = None, ndim: int | None = None
) -> Array:
    r"""Return the diagonal of the normal operator of :class:`Sense` in k-space, :math:`e_k^H S^H F^H W F S e_k`.

    It is the density of the samples, blurred by the coils. The normal operator with only this diagonal is the circulant
    one closest to the true one, a preconditioner; for one coil of unit sensitivity on the Cartesian grid it is the true
    one.

    Args:
        mps (array): As in :class:`Sense`.
        coord (None or array): As in :class:`Sense`.
        weights (None or array): As in :class:`Sense`.
        ndim (None or int): As in :class:`Sense`.

    Returns:
        array: float32 (..., H, W), the origin of k-space at index (0, 0).

    References:
        Chan, T. F. (1988). An optimal circulant preconditioner for Toeplitz systems. SIAM J. Sci. Stat. Comput., 9(4).
    """
    device, ndim = sp.get_device(mps), image_axes(coord, ndim)
    coord, weights = (None if a is None else sp.to_device(a, device) for a in (coord, weights))
    with device:
        xp, axes = sp.get_array_module(mps), tuple(range(-ndim, 0))
        coils, *shape = mps.shape[-ndim - 1 :]
        transfer = _transfer(tuple(shape), coord, weights, xp)
        grid = transfer.shape[-ndim:]
        transfer = xp.broadcast_to(transfer, (*transfer.shape[: -ndim - 1], coils, *grid))

        def blurred_psf(c: int) -> Array:
            x, fft = for_fft(xp.moveaxis(mps, -ndim - 1, 0)[c])
            power = abs(fft.fftn(x, grid, axes)) ** 2
            psf = fft.ifftn(for_fft(xp.moveaxis(transfer, -ndim - 1, 0)[c])[0], None, axes)
            return from_fft(psf * fft.ifftn(power, None, axes).conj())

        terms = blurred_psf(0)
        for c in range(1, coils):  # one by one: all at once would take the memory of many k-spaces
            terms = terms + blurred_psf(c)
        for axis, n in zip(axes, shape, strict=True):
            terms = xp.moveaxis(terms, axis, -1)
            wrapped = terms[..., :n].copy()
            if coord is not None:  # differences of pixels, -n < d < n, modulo n
                wrapped[..., 1:] += terms[..., 1 - n :]
            terms = xp.moveaxis(wrapped, -1, axis)
        blurred, fft = for_fft(terms)
        return (xp.maximum(from_fft(fft.fftn(blurred, None, axes)).real, 0) / prod(shape)).astype(xp.float32)


def _transfer(shape: tuple[int, ...], coord: Array | None, weights: Array | None, xp: ModuleType) -> Array:
    """Return the transfer function of F^H W F, real (..., *grid), zero-padded if there are coordinates."""
    axes = tuple(range(-len(shape), 0))
    if weights is None:
        weights = xp.ones(1, xp.float32)
    weights = xp.broadcast_to(weights, np.broadcast_shapes(weights.shape, shape if coord is None else coord.shape[:-1]))
    if coord is None:
        return xp.fft.ifftshift(weights, axes=axes)
    grid = [scipy.fft.next_fast_len(2 * n - 1) for n in shape]
    scale = xp.asarray([g / n for g, n in zip(grid, shape, strict=True)], coord.dtype)
    oshape = (*weights.shape[: 1 - coord.ndim], *grid)
    psf = sp.nufft_adjoint(weights.astype(xp.complex64), coord * scale, oshape, **_NUFFT_OPTIONS)
    psf = xp.fft.ifftshift(psf, axes=axes)
    return (xp.fft.fftn(psf, axes=axes).real * (prod(grid) ** 0.5 / prod(shape))).astype(xp.float32)

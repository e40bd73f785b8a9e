"""HGGDP reconstruction as a SigPy app."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp

from hggdp_plugin.alg import AnnealedLangevin, HGGDPSampler
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.linops import FFT2, Replicate, Sense, flips, kspace_diagonal
from hggdp_plugin.memory import coils_at_a_time
from hggdp_plugin.prior import ScorePrior, load_prior
from hggdp_plugin.prox import GradientConsistency, L2DataConsistency
from hggdp_plugin.random import complex_uniform
from hggdp_plugin.scaling import estimate_noise, estimate_scale
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.solvers import BatchConjugateGradient, run

#: Conjugate gradient iterations of the least-squares image that gives the scale and the start.
LEAST_SQUARES_ITERATIONS = 15
#: Iterations per step: Chebyshev's on the Cartesian grid, those of conjugate gradients elsewhere. More bring next to
#: nothing (docs/sampling.md).
CARTESIAN_ITERATIONS, NON_CARTESIAN_ITERATIONS = 2, 4
#: Share of the variance at the periphery of k-space that counts as noise: part of it is signal (benchmarks/noise.py).
CARTESIAN_SHARE, NON_CARTESIAN_SHARE = 0.3, 0.4


class HGGDPRecon(sp.app.App):
    r"""Reconstruction with a learned score prior (HGGDP).

    Samples images by annealed Langevin dynamics on the prior, with data consistency at every step, that is it looks for
    x where both terms of

    .. math::
        -\log p(x \,|\, y) = \frac{1}{\lambda} \| W^{1/2} (F S x - y) \|_2^2 - \log p(x) + \text{const.}

    are small, where W are the k-space weights, F the Fourier transform, S the sensitivity maps and p the prior. Takes
    the place of :class:`sigpy.mri.app.L1WaveletRecon`. Leading axes of ``y`` are a batch (slices, frames), which goes
    through the network at once; a slice's result does not depend on the others.

    Args:
        y (array): k-space, complex (..., coils, H, W), zero where not sampled, or (..., coils, *coord.shape[:-1]).
        mps (None or array): Sensitivity maps (coils, H, W), or with the leading axes of ``y``. None: one coil of unit
            sensitivity, Cartesian.
        prior (None, str, Path or ScorePrior): The prior, its name or its file; default: the bundled ``brain-t2``.
        lamda (None or float): Noise variance :math:`\lambda = E|n|^2` of a sample of ``y`` of weight 1, in its units
            squared (prewhitened data: 1; half of it gives a higher PSNR on a Cartesian grid). 0: exact consistency.
            None: 0 for one coil of unit sensitivity on a Cartesian grid, else a share of what is measured at the
            periphery of k-space: 0.3 on a Cartesian grid, 0.4 elsewhere.
        weights (None or array): k-space weights, of a shape that broadcasts to that of ``y``. None, Cartesian: the
            samples that are not zero.
        coord (None or array): Non-Cartesian coordinates (..., 2) in units of 1 / field of view, +- half the matrix.
        device (Device): Where to reconstruct, and where the result is.
        coil_batch_size (None or int): Coils processed at a time; bounds the memory. None: what fits into the free one.
        comm (None or Communicator): SigPy communicator; each process holds the y and mps of its own coils.
        seed (int): Seed of the noise; same seed, same image.
        schedule (None or NoiseSchedule): Noise levels and step rule; default: :meth:`NoiseSchedule.fast`. With
            ``published_noise`` the data consistency too is the published one, whatever ``lamda``; Cartesian only.
        max_cg_iter (None or int): Conjugate gradient iterations per step, where there is no closed form. None: 2
            iterations of Chebyshev, and 4 of conjugate gradients for non-Cartesian samples.
        show_pbar (bool): Show a progress bar with noise level and relative k-space residual.
        leave_pbar (bool): Leave the bar when finished.

    Raises:
        ValueError: An argument does not fit; the message names it, its shape and what would fit.

    References:
        Quan, C., Zhou, J., Zhu, Y., Chen, Y., Wang, S., Liang, D., & Liu, Q. (2021). Homotopic gradients of generative
        density priors for MR image reconstruction. IEEE TMI, 40(12), 3265-3278.
    """

    def __init__(
        self,
        y: Any,
        mps: Any = None,
        prior: Any = None,
        lamda: float | None = None,
        weights: Any = None,
        coord: Any = None,
        device: sp.Device = sp.cpu_device,
        coil_batch_size: int | None = None,
        comm: Any = None,
        seed: int = 0,
        schedule: NoiseSchedule | None = None,
        max_cg_iter: int | None = None,
        show_pbar: bool = True,
        leave_pbar: bool = True,
    ) -> None:
        self.device = sp.Device(device)
        self.schedule = schedule or NoiseSchedule.fast()
        if not isinstance(prior, str | Path | ScorePrior | None):
            raise ValueError(
                f"prior: expected its name, its file or a ScorePrior, got {prior!r}; lamda is the next argument"
            )
        self.prior = prior if isinstance(prior, ScorePrior) else load_prior(prior or DEFAULT_PRIOR)
        check_arguments(y, mps, lamda, weights, coord)
        check_counts(coil_batch_size=coil_batch_size, max_cg_iter=max_cg_iter)
        with self.device:
            xp = self.device.xp
            y, mps, weights, coord = (_placed(a, self.device) for a in (y, mps, weights, coord))
            if self.schedule.published_noise:
                check_reference_noise(mps, weights, coord)
            closed_form = coord is None and comm is None and (mps is None or _is_unit(mps))
            if mps is None:
                mps = xp.ones((1, *y.shape[-2:]), xp.complex64)
            if weights is None and coord is None:
                weights = (y != 0).any(axis=-3, keepdims=True).astype(xp.float32)
            batch = y.shape[: -3 if coord is None else -coord.ndim]
            if coil_batch_size is None:
                coil_batch_size = coils_at_a_time((*batch, *mps.shape[-2:]), mps.shape[-3], coord is None, self.device)
            self.A = Sense(mps, batch, coord, weights, coil_batch_size, comm)
            self.y = y if weights is None else y * weights**0.5

            x = self._least_squares(1 if closed_form else LEAST_SQUARES_ITERATIONS)
            self.scale = estimate_scale(x)
            self.y = self.y / self.scale.reshape(*self.scale.shape[:-2], *[1] * (y.ndim - len(batch)))
            if lamda is not None:
                variance = (lamda**0.5 / abs(self.scale)) ** 2
            else:
                variance = 0.0 if closed_form else self._noise(coord, comm)
            # The prior's noise levels are per real channel, which carries half the complex variance.
            self.lamda = xp.asarray(0.5 * variance, xp.float32)
            if self.schedule.published_noise:
                self.consistency: sp.prox.Prox = GradientConsistency(self.A, self.y, _support(mps, comm))
            elif closed_form:
                F = FFT2(x.shape) * sp.linop.Multiply(x.shape, mps[..., 0, :, :])
                density = xp.fft.ifftshift(xp.broadcast_to(weights, y.shape)[..., 0, :, :], axes=(-2, -1))
                self.consistency = L2DataConsistency(self.A, self.y, self.lamda, F, density, max_iter=0)
            else:
                options = self._iterations(mps, coord, weights, comm, max_cg_iter)
                self.consistency = L2DataConsistency(self.A, self.y, self.lamda, support=_support(mps, comm), **options)
            alg = self._sampler(x / self.scale, seed)
        self._next_summary = 0.0
        super().__init__(alg, show_pbar and (comm is None or comm.rank == 0), leave_pbar)

    def _least_squares(self, max_iter: int) -> Any:
        b = self.A.H(self.y)
        return run(BatchConjugateGradient(self.A.N, b, self.device.xp.zeros_like(b), max_iter=max_iter))

    def _iterations(self, mps: Any, coord: Any, weights: Any, comm: Any, max_cg_iter: int | None) -> dict[str, Any]:
        """How :class:`L2DataConsistency` iterates."""
        if coord is None:
            if max_cg_iter:
                return {"max_iter": max_cg_iter}
            heaviest = self.device.xp.broadcast_to(weights, self.A.oshape).max(axis=(-3, -2, -1))
            return {"max_iter": CARTESIAN_ITERATIONS, "largest": _largest(mps, heaviest[..., None, None], comm)}
        # Cartesian samples are equally dense; others are far denser at the centre, where plain conjugate gradients
        # would spend themselves. (On few Cartesian lines a preconditioner does harm: it hurries towards what the data
        # say where they say little.)
        density = kspace_diagonal(mps, coord, weights)
        if comm is not None:
            comm.allreduce(density)
        transform = FFT2(self.A.ishape)
        return {"max_iter": max_cg_iter or NON_CARTESIAN_ITERATIONS, "transform": transform, "diagonal": density}

    def _noise(self, coord: Any, comm: Any) -> Any:
        """Noise variance of the scaled k-space that counts, the same in every process: the mean over theirs."""
        xp, share = self.device.xp, NON_CARTESIAN_SHARE
        if coord is None:
            share = CARTESIAN_SHARE
            coord = xp.stack(
                xp.meshgrid(*[xp.linspace(-1, 1, n, dtype=xp.float32) for n in self.y.shape[-2:]], indexing="ij"), -1
            )
        variance = estimate_noise(self.y, (coord**2).sum(-1) ** 0.5)
        if comm is not None:
            comm.allreduce(variance)
            variance /= comm.size
        return share * variance

    def _sampler(self, start: Any, seed: int) -> AnnealedLangevin | HGGDPSampler:
        """The sampler; the slices of a batch share its noise, so that none depends on the others."""
        xp = self.device.xp
        rng = xp.random.default_rng(seed)
        batch, K = start.ndim - 2, self.prior.views
        R = Replicate(start.shape, K)
        if self.schedule.published:
            views = R(start)
            if not self.schedule.from_data:
                views[...] = 2 * complex_uniform(rng, views.shape[batch:]) - (1 + 1j)
            return HGGDPSampler(self.prior.denoise_views, self.consistency, views, self.schedule, rng, batch)
        if not self.schedule.from_data:
            start[...] = 2 * complex_uniform(rng, start.shape[batch:]) - (1 + 1j)
        if not (self.schedule.langevin and K > 1):
            orientations = flips(start.shape) if self.schedule.turn else [sp.linop.Identity(start.shape)]
            order = np.random.default_rng(seed)

            def denoise(x: Any, sigma: float) -> Any:
                T = orientations[order.integers(len(orientations))]
                return T.H(self.prior.denoise(T(x), sigma, rng))

            return AnnealedLangevin(denoise, self.consistency, start, self.schedule, rng, batch)

        def consistency(alpha: float, views: Any) -> Any:
            mean = views.mean(axis=-3)
            # A move of the mean moves K views: it costs K times the squared distance.
            return views + R(self.consistency(alpha / K, mean) - mean)

        return AnnealedLangevin(self.prior.denoise_views, consistency, R(start), self.schedule, rng, batch)

    @property
    def image(self) -> Any:
        """The current image, in the units of ``y``, zero where no coil sees anything; complex64 (..., H, W)."""
        with self.device:
            return self._mean(self.alg.x) * self.scale

    def _mean(self, x: Any) -> Any:
        return x if x.ndim == self.scale.ndim else x.mean(axis=-3)

    def _summarize(self) -> None:
        # The residual costs an application of A and a wait for the device: twice a second is enough for a reader.
        if not self.show_pbar or (time.monotonic() < self._next_summary and not self.alg.done()):
            return
        self._next_summary = time.monotonic() + 0.5
        xp = self.device.xp
        with self.device:
            residual = xp.linalg.norm(self.A(self._mean(self.alg.x)) - self.y) / xp.linalg.norm(self.y)
        level = min(self.alg.iter, self.alg.max_iter - 1) // self.schedule.steps + 1
        self.pbar.set_postfix(
            {
                "level": f"{level}/{len(self.schedule.sigmas)}",
                "sigma": f"{self.alg.sigma:.3g}",
                "residual": f"{float(residual):.2e}",
            }
        )

    def _output(self) -> Any:
        return self.image


def check_arguments(y: Any, mps: Any, lamda: float | None, weights: Any, coord: Any) -> None:
    """Refuse arguments of :class:`HGGDPRecon` that do not fit together.

    Raises:
        ValueError: Names the argument, its shape and what would fit.
    """
    if coord is not None and (coord.ndim < 2 or coord.shape[-1] != 2):
        raise ValueError(f"coord: expected shape (..., 2), got {coord.shape}")
    if coord is not None and mps is None:
        raise ValueError("mps: coord needs sensitivity maps (coils, H, W); for one coil, ones of the image's shape")
    axes = ("H", "W") if coord is None else coord.shape[:-1]
    if y.ndim < len(axes) + 1 or (coord is not None and y.shape[-len(axes) :] != axes):
        raise ValueError(f"y: expected shape (..., coils, {', '.join(map(str, axes))}), got {y.shape}")
    if not np.iscomplexobj(y):
        raise ValueError(f"y: expected complex k-space, got {y.dtype}")
    for name, array in {"y": y, "mps": mps, "weights": weights, "coord": coord}.items():
        if array is not None and not _all_finite(array):
            raise ValueError(f"{name}: has NaN or infinite values (shape {array.shape}); set them to zero or leave out")
    with sp.get_device(y):
        if not y.any():
            raise ValueError("y: all samples are zero; there is nothing to reconstruct")
    batch, coils = y.shape[: -len(axes) - 1], y.shape[-len(axes) - 1]
    if mps is None and coils != 1:
        raise ValueError(f"mps: y has {coils} coils (shape {y.shape}); give sensitivity maps (coils, H, W)")
    if mps is not None:
        matrix = y.shape[-2:] if coord is None else mps.shape[-2:]
        if mps.shape[-3:] != (coils, *matrix) or mps.shape[:-3] not in ((), batch):
            raise ValueError(f"mps: expected shape {(coils, *matrix)} for y of shape {y.shape}, got {mps.shape}")
    if weights is not None and not _are_weights(weights, y):
        raise ValueError(f"weights: expected values >= 0 that broadcast to y {y.shape}, got shape {weights.shape}")
    if lamda is not None and not 0 <= lamda < float("inf"):
        raise ValueError(f"lamda: expected a noise variance >= 0, got {lamda}")


def check_counts(**counts: int | None) -> None:
    """Refuse counts below 1, by name; None is no count.

    Raises:
        ValueError: Names the count.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")


def check_reference_noise(mps: Any, weights: Any, coord: Any) -> None:
    """Refuse what the data consistency of ``published_noise``, a gradient step of unit size, is not made for.

    Raises:
        ValueError: Names the argument and what would fit.
    """
    if coord is not None:
        raise ValueError("coord: published_noise takes Cartesian data only; leave it out")
    if weights is not None and (top := float(weights.max())) > 1:
        raise ValueError(f"weights: published_noise needs weights of at most 1, got up to {top:.3g}")
    if mps is not None and (top := float((abs(mps) ** 2).sum(axis=-3).max())) > 1.01:
        raise ValueError(f"mps: published_noise needs a sum of squares of 1 over the coils, got up to {top:.3g}")


def _all_finite(array: Any) -> bool:
    with sp.get_device(array):
        return bool(sp.get_array_module(array).isfinite(array).all())


def _are_weights(weights: Any, y: Any) -> bool:
    try:
        broadcasts = np.broadcast_shapes(weights.shape, y.shape) == tuple(y.shape)
    except ValueError:
        return False
    with sp.get_device(weights):
        return broadcasts and not np.iscomplexobj(weights) and bool((weights >= 0).all())


def _support(mps: Any, comm: Any) -> Any:
    """Where any coil, of any process, sees something; (..., H, W)."""
    seen = (mps != 0).any(axis=-3).astype(np.float32)
    if comm is not None:
        comm.allreduce(seen)
    return seen > 0


def _largest(mps: Any, heaviest: Any, comm: Any) -> Any:
    """Bound of the eigenvalues of A^H A, Cartesian: largest weight times sum of squares over all coils; (..., 1, 1)."""
    power = heaviest * (abs(mps) ** 2).sum(axis=-3)
    if comm is not None:
        comm.allreduce(power)
    top = power.max(axis=(-2, -1), keepdims=True)
    return sp.get_array_module(top).where(top > 0, top, 1)


def _placed(array: Any, device: sp.Device) -> Any:
    """An array on a device, once, in single precision."""
    if array is None:
        return None
    array = sp.to_device(array, device)
    return array.astype(np.complex64 if np.iscomplexobj(array) else np.float32, copy=False)


def _is_unit(mps: Any) -> bool:
    """Whether the maps are one coil of sensitivity 1 in magnitude, so that W^(1/2) F S is diagonal in k-space."""
    return mps.shape[-3] == 1 and bool((abs(abs(mps) - 1) < 1e-4).all())

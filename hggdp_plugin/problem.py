"""The SENSE problem behind a reconstruction: operator, scaled data, noise variance and data consistency."""

from dataclasses import dataclass, replace

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array, RandomGenerator
from hggdp_plugin.coil_maps import combine_sets
from hggdp_plugin.interop import as_array, optional_array
from hggdp_plugin.linops import FFT, Sense, Stacked, kspace_diagonal
from hggdp_plugin.linops.sense import image_axes
from hggdp_plugin.memory import coils_at_a_time
from hggdp_plugin.posterior import GaussianLikelihood
from hggdp_plugin.processes import Processes
from hggdp_plugin.prox import KSpaceReplacement, L2DataConsistency
from hggdp_plugin.random import complex_normal
from hggdp_plugin.scaling import estimate_noise, estimate_scale
from hggdp_plugin.solvers import BatchConjugateGradient, Chebyshev, ConjugateGradient, Diagonal, Solver, run
from hggdp_plugin.validation import check_arguments, check_counts

#: Conjugate gradient iterations of the least-squares image, which gives the scale and the start.
LEAST_SQUARES_ITERATIONS = 15
#: Iterations of data consistency per step: Chebyshev's on the Cartesian grid, conjugate gradients elsewhere. More help
#: very little (docs/sampling.md).
CARTESIAN_ITERATIONS, NON_CARTESIAN_ITERATIONS = 2, 4
#: Conjugate gradient iterations of a draw from the likelihood.
LIKELIHOOD_ITERATIONS = 10
#: Part of the variance at the periphery of k-space that is taken as noise variance. Signal adds to that variance, and
#: on the grid half of the true one gives the highest PSNR (benchmarks/noise.py, docs/sampling.md).
CARTESIAN_NOISE_SHARE, NON_CARTESIAN_NOISE_SHARE = 0.3, 0.4
#: Largest deviation from 1 of the magnitude of a map that counts as uniform.
UNIT_MAP_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class SenseProblem:
    """Find x with A x close to y, for images x whose maximum magnitude is about 1.

    Attributes:
        A: The operator :class:`hggdp_plugin.linops.Sense`, images (..., H, W) to k-space. With several sets of maps
            images are (..., maps, H, W), and all shapes of images below have that axis, scales one more 1.
        y: k-space, times the square root of the weights and divided by ``scale``.
        scale: Complex factor between x and the image in the units of the data, complex64 (..., 1, 1).
        noise_var: Noise variance E|n|^2 of a complex sample of ``y``, float32, a scalar or (..., 1, 1).
        support: Where any coil has a signal, bool (..., H, W); None: everywhere.
        start: The least-squares image, divided by ``scale``; (..., H, W).
        solver: How data consistency is solved by default.
        is_cartesian: Whether the samples lie on the Cartesian grid.
        ndim: Axes of an image: 2, or 3 for volumes, whose shapes have D before H and one more 1.
        maps: Sets of maps.
    """

    A: sp.linop.Linop
    y: Array
    scale: Array
    noise_var: Array
    support: Array | None
    start: Array
    solver: Solver
    is_cartesian: bool = True
    ndim: int = 2
    maps: int = 1

    @property
    def n_batch_axes(self) -> int:
        """Leading axes of the images along which the problems are independent. Images of several sets are not."""
        return self.start.ndim - _axes_of_one(self.ndim, self.maps)

    @classmethod
    def build(
        cls,
        y: Array,
        mps: Array | None = None,
        noise_var: float | None = None,
        weights: Array | None = None,
        coord: Array | None = None,
        *,
        device: sp.Device = sp.cpu_device,
        coil_batch_size: int | None = None,
        comm: sp.Communicator | Processes | None = None,
        ndim: int | None = None,
        maps: int = 1,
    ) -> "SenseProblem":
        """Set up the problem, and estimate its scale and noise variance.

        Args:
            y (array): k-space, complex (..., coils, H, W), or (..., coils, *coord.shape[:-1]).
            mps (None or array): Coil sensitivity maps (coils, H, W), or with the leading axes of ``y``; several sets
                (..., maps, coils, H, W). None: one coil of unit sensitivity, Cartesian.
            noise_var (None or float): Noise variance E|n|^2 of a complex sample of ``y`` of weight 1. None: 0 for one
                coil of unit sensitivity on the Cartesian grid, else estimated at the periphery of k-space.
            weights (None or array): k-space weights that broadcast to ``y``. A number, or None for 1, Cartesian: where
                y is not 0.
            coord (None or array): Non-Cartesian coordinates (..., 2), for volumes (..., 3), in units of 1 / field of
                view.
            device (Device): Where to compute.
            coil_batch_size (None or int): Coils processed at a time. None: what fits into the free memory.
            comm (None or Communicator): SigPy communicator; each process has the ``y`` and ``mps`` of its own coils.
                Wrapped in :class:`hggdp_plugin.processes.Processes`, an error in one process ends all.
            ndim (None or int): Axes of an image, 2 or 3; None: those of ``coord``, and 2 on the Cartesian grid.
            maps (int): Sets of maps; several on the Cartesian grid only.

        Returns:
            SenseProblem: The problem, on ``device``.

        Raises:
            ValueError: An argument does not fit; the message names it, its shape and what would fit.
        """
        comm = Processes.of(comm)
        y = as_array("y", y)
        mps, weights = optional_array("mps", mps), optional_array("weights", weights)
        coord = optional_array("coord", coord)
        check_counts(coil_batch_size=coil_batch_size, maps=maps)
        check_arguments(y, mps, noise_var, weights, coord, ndim, maps)
        if comm is not None:
            _check_same(comm, y, mps, noise_var, weights, coord, image_axes(coord, ndim), maps)
        device = sp.Device(device)
        with device:
            xp, is_cartesian, ndim = device.xp, coord is None, image_axes(coord, ndim)
            is_diagonal = is_cartesian and comm is None and maps == 1 and (mps is None or _is_unit(mps, ndim))
            y, mps, weights, coord = _place(y, mps, weights, coord, ndim, device, comm)
            batch = y.shape[: -ndim - 1 if coord is None else -coord.ndim]
            if coil_batch_size is None:
                coils, *shape = mps.shape[-ndim - 1 :]
                coil_batch_size = coils_at_a_time((maps, *batch, *shape), coils, is_cartesian, device, ndim)
            A = Sense(mps, batch, coord, weights, coil_batch_size, comm, ndim=ndim, maps=maps)
            y = y if weights is None else y * weights**0.5

            one = _axes_of_one(ndim, maps)
            x = _least_squares(A, y, 1 if is_diagonal else LEAST_SQUARES_ITERATIONS, one)
            scale = estimate_scale(combine_sets(x, ndim) if maps > 1 else x, ndim).reshape(*batch, *[1] * one)
            y = y / scale.reshape(*batch, *[1] * (y.ndim - len(batch)))
            if noise_var is not None:
                variance = (noise_var**0.5 / abs(scale)) ** 2
            elif is_diagonal:
                variance = 0.0
            else:
                variance = estimate_noise_var(y, coord, comm, ndim).reshape(scale.shape)
            return cls(
                A=A,
                y=y,
                scale=scale,
                noise_var=xp.asarray(variance, xp.float32),
                support=None if is_diagonal else _support(mps, comm, ndim),
                start=x / scale,
                solver=_closed_form(A, mps, weights) if is_diagonal else _iterative(A, mps, weights, coord, comm),
                is_cartesian=is_cartesian,
                ndim=ndim,
                maps=maps,
            )

    def consistency(self, solver: Solver | None = None) -> L2DataConsistency:
        """Return the data consistency.

        Args:
            solver (None or Solver): How to solve it; default: :attr:`solver`.
        """
        solver = solver or self.solver
        if isinstance(solver, Diagonal) and not self.noise_var.any():
            return KSpaceReplacement(self.A, self.y, solver)
        return L2DataConsistency(self.A, self.y, noise_var=self.noise_var, solver=solver, support=self.support)

    def likelihood(
        self, rng: RandomGenerator, solver: Solver | None = None, *, n_batch_axes: int = 0
    ) -> GaussianLikelihood:
        """Return the likelihood, to draw images from.

        Args:
            rng (Generator): NumPy or CuPy random generator, matching ``y``.
            solver (None or Solver): How to solve; default: the closed form where there is one, else
                :data:`LIKELIHOOD_ITERATIONS` conjugate gradient iterations.
            n_batch_axes (int): Leading axes along which the noise is the same.
        """
        return GaussianLikelihood(
            self.A,
            self.y,
            self.noise_var,
            rng,
            solver=solver or self.conjugate_gradient(LIKELIHOOD_ITERATIONS),
            support=self.support,
            n_batch_axes=n_batch_axes,
        )

    def resimulate(self, images: Array, noise_var: float | Array, rng: RandomGenerator) -> "SenseProblem":
        """Return the same scan of other images, with new noise.

        Args:
            images (array): n images of maximum magnitude about 1 for each of ours, complex (n, ..., H, W).
            noise_var (float or array): Noise variance E|n|^2 of a complex sample, as :attr:`noise_var`.
            rng (Generator): NumPy or CuPy random generator, matching ``images``. The slices of a batch get the same
                noise, so that none depends on the others.

        Returns:
            SenseProblem: The problem with a leading axis of n, and the scale and noise variance of this one.
        """
        n, one = len(images), _axes_of_one(self.ndim, self.maps)
        batch, ones = self.start.shape[: self.n_batch_axes], [1] * one
        A = Stacked(self.A, n)
        with sp.get_device(images):
            xp = sp.get_array_module(images)
            noise = complex_normal(rng, (n, *[1] * len(batch), *self.y.shape[len(batch) :]))
            std = xp.broadcast_to(xp.sqrt(xp.asarray(noise_var, np.float32) / 2), (*batch, *ones))
            y = A(images) + std.reshape(*batch, *[1] * (self.y.ndim - len(batch))) * noise
            is_diagonal = isinstance(self.solver, Diagonal)
            start = _least_squares(A, y, 1 if is_diagonal else LEAST_SQUARES_ITERATIONS, one)
        return replace(self, A=A, y=y, start=start, solver=_stack(self.solver, n))

    def conjugate_gradient(self, max_iter: int) -> Solver:
        """Return the solver with a number of conjugate gradient iterations, or the closed form where there is one."""
        if isinstance(self.solver, Diagonal):
            return self.solver
        approximation = getattr(self.solver, "approximation", None)
        return ConjugateGradient(max_iter, approximation, _axes_of_one(self.ndim, self.maps))


def _axes_of_one(ndim: int, maps: int) -> int:
    """Return the axes of one problem's images: those of an image, and that of several sets of maps."""
    return ndim + (maps > 1)


def _check_same(
    comm: Processes,
    y: Array,
    mps: Array | None,
    noise_var: float | None,
    weights: Array | None,
    coord: Array | None,
    ndim: int,
    maps: int,
) -> None:
    """Refuse arguments with which the processes would not take the same course."""
    kspace_axes = ndim if coord is None else coord.ndim - 1
    comm.check_same(
        y=(y.shape[: -kspace_axes - 1], y.shape[-kspace_axes:]),
        mps=None if mps is None else (mps.shape[-ndim:], maps),
        noise_var=noise_var,
        weights=weights is None or weights.size == 1,
        coord=None if coord is None else np.ascontiguousarray(sp.to_device(coord)).tobytes(),
    )


def _place(
    y: Array,
    mps: Array | None,
    weights: Array | None,
    coord: Array | None,
    ndim: int,
    device: sp.Device,
    comm: Processes | None,
) -> tuple[Array, Array, Array | None, Array | None]:
    """Return the arrays on a device, in single precision, with maps and Cartesian weights."""

    def place(array: Array) -> Array:
        array = sp.to_device(array, device)
        return array.astype(np.complex64 if np.iscomplexobj(array) else np.float32, copy=False)

    y = device.xp.ascontiguousarray(place(y))
    mps = device.xp.ones((1, *y.shape[-ndim:]), np.complex64) if mps is None else place(mps)
    weights = None if weights is None else place(weights)
    if coord is None and (weights is None or weights.size == 1):
        sampled = (y != 0).any(axis=-ndim - 1, keepdims=True).astype(np.float32)
        if comm is not None:
            comm.allreduce(sampled)
            sampled = (sampled > 0).astype(np.float32)
        weights = sampled if weights is None else weights * sampled
    return y, mps, weights, None if coord is None else device.xp.ascontiguousarray(place(coord))


def _stack(solver: Solver, n: int) -> Solver:
    """Return the solver for n problems, stacked along a new leading axis."""
    if isinstance(solver, Diagonal):
        return replace(solver, transform=Stacked(solver.transform, n))
    if isinstance(solver, ConjugateGradient) and (form := solver.approximation) is not None:
        return replace(solver, approximation=replace(form, transform=Stacked(form.transform, n)))
    return solver


def _least_squares(A: sp.linop.Linop, y: Array, max_iter: int, axes: int) -> Array:
    """Return the least-squares images, with so many axes in each problem."""
    xp = sp.get_array_module(y)
    b = xp.ascontiguousarray(A.H(y))  # whose layout can be that of the maps
    return run(BatchConjugateGradient(A.N, b, xp.zeros_like(b), axes, max_iter))


def estimate_noise_var(
    y: Array, coord: Array | None = None, comm: Processes | None = None, ndim: int | None = None
) -> Array:
    """Estimate the noise variance that data consistency uses, at the periphery of k-space.

    Args:
        y (array): k-space (..., coils, H, W), zero where not sampled, or (..., coils, *coord.shape[:-1]).
        coord (None or array): Non-Cartesian coordinates.
        comm (None or Processes): Processes that hold other coils; the estimate is that of all coils.
        ndim (None or int): Axes of an image, as in :meth:`SenseProblem.build`.

    Returns:
        array: Variance E|n|^2 of a complex sample, float32 (..., 1, 1).
    """
    ndim = image_axes(coord, ndim)
    xp, share = sp.get_array_module(y), NON_CARTESIAN_NOISE_SHARE
    if coord is None:
        share = CARTESIAN_NOISE_SHARE
        coord = xp.stack(
            xp.meshgrid(*[xp.linspace(-1, 1, n, dtype=xp.float32) for n in y.shape[-ndim:]], indexing="ij"), -1
        )
    variance = estimate_noise(y, (coord**2).sum(-1) ** 0.5, comm)
    return share * variance.reshape(*variance.shape[:-2], *[1] * ndim)


def _closed_form(A: Sense, mps: Array, weights: Array | None) -> Diagonal:
    """Return the solver for one coil of unit sensitivity, where W^(1/2) F S is diagonal in k-space."""
    xp, coil = sp.get_array_module(mps), -A.ndim - 1
    transform = FFT(A.ishape, A.ndim) * sp.linop.Multiply(A.ishape, mps.squeeze(coil))
    density = xp.broadcast_to(weights, A.oshape).squeeze(coil)
    return Diagonal(transform, xp.fft.ifftshift(density, axes=tuple(range(-A.ndim, 0))), A.ndim)


def _iterative(A: Sense, mps: Array, weights: Array | None, coord: Array | None, comm: Processes | None) -> Solver:
    """Return the default solver of several coils or non-Cartesian samples."""
    ndim = A.ndim
    if coord is None:
        top = sp.get_array_module(mps).broadcast_to(weights, A.oshape).max(axis=tuple(range(-ndim, 0)), keepdims=True)
        return Chebyshev(_max_eigenvalue(mps, top.max(axis=-ndim - 1), comm, ndim, A.maps), CARTESIAN_ITERATIONS)
    # Non-Cartesian samples are far denser at the center, where unpreconditioned CG spends its iterations. (With few
    # Cartesian lines the preconditioner hurts: it amplifies poorly determined components.)
    density = kspace_diagonal(mps, coord, weights)
    if comm is not None:
        comm.allreduce(density)
    return ConjugateGradient(NON_CARTESIAN_ITERATIONS, Diagonal(FFT(A.ishape, ndim), density, ndim), ndim)


def _support(mps: Array, comm: Processes | None, ndim: int) -> Array:
    """Return where any coil, of any process, has a signal; (..., H, W)."""
    support = (mps != 0).any(axis=-ndim - 1).astype(np.float32)
    if comm is not None:
        comm.allreduce(support)
    return support > 0


def _max_eigenvalue(mps: Array, max_weight: Array, comm: Processes | None, ndim: int, maps: int) -> Array:
    """Return an upper bound of the eigenvalues of a Cartesian A^H A: weight times sum of squares; (..., 1, 1).

    Several sets have a matrix of inner products in each pixel, whose eigenvalues its row sums bound (Gershgorin).
    """
    xp, coil = sp.get_array_module(mps), -ndim - 1
    if maps == 1:
        power = max_weight * (abs(mps) ** 2).sum(axis=coil)
    else:
        sets = xp.moveaxis(mps, coil - 1, 0)
        rows = [xp.stack([(one.conj() * other).sum(axis=coil) for other in sets]) for one in sets]
        power = max_weight * xp.stack(rows)
    if comm is not None:
        comm.allreduce(power)
    if maps > 1:
        power = abs(power).sum(axis=1).max(axis=0)
    top = power.max(axis=tuple(range(-ndim, 0)), keepdims=True)
    top = xp.where(top > 0, top, 1)
    return top.reshape(*top.shape[:-ndim], *[1] * _axes_of_one(ndim, maps))


def _is_unit(mps: Array, ndim: int) -> bool:
    """Return whether the maps are one coil of magnitude 1."""
    with sp.get_device(mps):
        return mps.shape[-ndim - 1] == 1 and bool((abs(abs(mps) - 1) < UNIT_MAP_TOLERANCE).all())

"""HGGDP reconstruction as a SigPy app."""

import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import sigpy as sp

from hggdp_plugin._deprecation import warn_deprecated
from hggdp_plugin._typing import Array, PathLike
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.interop import as_array, optional_array
from hggdp_plugin.prior import ScorePrior, load_prior
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.processes import Processes
from hggdp_plugin.sampling import build_sampler
from hggdp_plugin.schedule import HGGDP, Gibbs, NoiseSchedule
from hggdp_plugin.spikes import warn_of_spikes
from hggdp_plugin.validation import check_counts, check_reference_noise, warn_of_image

#: Seconds between updates of the progress bar's text. The residual costs an application of A and a wait for the device.
SUMMARY_INTERVAL = 0.5
#: The residual, which takes long for volumes, costs at most about one in so many seconds.
SUMMARY_SHARE = 20


#: Arguments after ``mps`` in the order in which they could once be given without their names.
OLD_ORDER = ("prior", "lamda", "weights", "coord", "device", "coil_batch_size", "comm", "seed", "schedule")
Constructor = TypeVar("Constructor", bound=Callable[..., None])


def _accept_old_arguments(init: Constructor) -> Constructor:
    """Let a constructor accept ``lamda`` and arguments after ``mps`` without names, with a DeprecationWarning.

    Raises:
        ValueError: The third argument is neither a prior nor named, such as the weight of SigPy's L1WaveletRecon.
    """

    @functools.wraps(init)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        self_y_mps, others = args[:3], args[3:]
        if others and not isinstance(others[0], str | Path | ScorePrior | None):
            raise ValueError(
                f"HGGDPRecon: the third argument is {type(others[0]).__name__}; give what follows mps by name. A "
                "regularization weight, as SigPy's lamda, has no counterpart: leave it out"
            )
        if others:
            warn_deprecated("HGGDPRecon: give what follows mps by name, such as prior=...")
        elif "lamda" in kwargs:
            warn_deprecated("HGGDPRecon: lamda is now called noise_var, the noise variance of y; it is not a weight")
        named: dict[str, Any] = {**dict(zip(OLD_ORDER, others, strict=False)), **kwargs}
        noise_var = named.pop("lamda", None)
        init(*self_y_mps, **(named if noise_var is None else {**named, "noise_var": noise_var}))

    return cast(Constructor, wrapper)


class HGGDPRecon(sp.app.App):
    r"""Reconstruction with a learned score prior (HGGDP).

    Alternates denoising by the learned prior with data consistency, from large noise levels to small; by default with
    one step per level. So it looks for an x for which both terms of

    .. math::
        -\log p(x \,|\, y) = \frac{1}{\nu} \| W^{1/2} (F S x - y) \|_2^2 - \log p(x) + \text{const.}

    are small, with the k-space weights W, the Fourier transform F, the coil sensitivity maps S, the noise variance
    :math:`\nu` and the prior p. A replacement for :class:`sigpy.mri.app.L1WaveletRecon`, but for its regularization
    weight ``lamda``: nothing here takes its place, and what follows ``mps`` is given by name. Leading axes of ``y`` are
    a batch (slices, frames), which goes through the network at once; the result of a slice does not depend on the
    others.

    Volumes (..., D, H, W) that do not fall apart into slices are reconstructed with ``coord`` (..., 3), or with
    ``ndim=3`` on the Cartesian grid: data consistency is that of the volume, and the prior sees its slices, across
    another of the three axes at every step. ``mps`` are then (coils, D, H, W), ``y`` on the Cartesian grid likewise.

    Where the object is larger than the field of view, several of its positions fall on one pixel, which one map for
    each coil cannot explain. With ``maps=2`` there are two, :math:`S x = S_1 x_1 + S_2 x_2` (soft-SENSE). The result is
    both images, (..., 2, H, W); :func:`hggdp_plugin.coil_maps.combine_sets` makes one of them.

    Args:
        y (array): k-space, complex (..., coils, H, W), zero where not sampled, or (..., coils, *coord.shape[:-1]).
        mps (None or array): Coil sensitivity maps (coils, H, W), or with the leading axes of ``y``; several sets
            (..., maps, coils, H, W). None: one coil of unit sensitivity, Cartesian.
        noise_var (None or float): Noise variance :math:`\nu = E|n|^2` of a complex sample of ``y`` of weight 1
            (prewhitened data: 1; half of it gives a higher PSNR on a Cartesian grid). 0: exact consistency.
            None: 0 for one coil of unit sensitivity on a Cartesian grid, else a part of the variance at the periphery
            of k-space: 0.3 on a Cartesian grid, 0.4 elsewhere.
        weights (None or array): k-space weights, of a shape that broadcasts to that of ``y``. A number, or None for 1,
            Cartesian: where ``y`` is not zero.
        coord (None or array): Non-Cartesian coordinates (..., 2), for volumes (..., 3), in units of 1 / field of view,
            +- half the matrix.
        device (Device): Where to reconstruct, and where the result is.
        coil_batch_size (None or int): Coils processed at a time; bounds the memory. None: what fits into the free
            memory.
        comm (None or Communicator): SigPy communicator; each process has the ``y`` and ``mps`` of its own coils, and
            gets the whole image. See the guide on several processes.
        prior (None, str, Path or ScorePrior): The prior, its name or its file; default: the bundled ``brain-t2``;
            ``"mri-any"`` has seen more kinds of images.
        schedule (None or NoiseSchedule): Noise levels and step rule; default: :meth:`NoiseSchedule.fast`. With the rule
            ``HGGDP(reference_noise=True)`` the data consistency is that of the authors' code too, whatever
            ``noise_var``; Cartesian only.
        seed (int): Seed of the noise; same seed, same image.
        max_cg_iter (None or int): Conjugate gradient iterations per step, where there is no closed form. None: 2
            iterations of Chebyshev, and 4 of conjugate gradients for non-Cartesian samples.
        show_pbar (bool): Show a progress bar with noise level and relative k-space residual.
        leave_pbar (bool): Leave the bar when finished.
        ndim (None or int): Axes of an image, 2 or 3; None: those of ``coord``, and 2 on the Cartesian grid.
        maps (int): Sets of maps, as in :func:`hggdp_plugin.coil_maps.espirit_maps`; several on the Cartesian grid only.
            1: no axis of sets.

    Attributes:
        problem (SenseProblem): Operator, scaled data and noise variance.
        prior (ScorePrior): The prior.
        schedule (NoiseSchedule): The noise schedule.
        processes (None or Processes): The processes that hold other coils.

    Raises:
        ValueError: An argument does not fit; the message names it, its shape and what would fit.
        ProcessError: Another process of ``comm`` failed.

    Example:
        >>> from hggdp_plugin.simulation import head_phantom
        >>> ksp = sp.fft(head_phantom((64, 64)), axes=(-2, -1))  # one coil: (1, 64, 64)
        >>> ksp[:, 1:24:2] = 0
        >>> image = HGGDPRecon(ksp, show_pbar=False).run()
        >>> image.shape, image.dtype
        ((64, 64), dtype('complex64'))

    References:
        Quan, C., Zhou, J., Zhu, Y., Chen, Y., Wang, S., Liang, D., & Liu, Q. (2021). Homotopic gradients of generative
        density priors for MR image reconstruction. IEEE TMI, 40(12), 3265-3278.
    """

    #: Whether to look at the values of y for signs that it is not k-space, and for spikes.
    _doubts_y = True

    @_accept_old_arguments
    def __init__(
        self,
        y: Array,
        mps: Array | None = None,
        *,
        noise_var: float | None = None,
        weights: Array | None = None,
        coord: Array | None = None,
        device: sp.Device = sp.cpu_device,
        coil_batch_size: int | None = None,
        comm: sp.Communicator | None = None,
        prior: PathLike | ScorePrior | None = None,
        schedule: NoiseSchedule | None = None,
        seed: int = 0,
        max_cg_iter: int | None = None,
        show_pbar: bool = True,
        leave_pbar: bool = True,
        ndim: int | None = None,
        maps: int = 1,
    ) -> None:
        if comm is not None and isinstance(schedule, NoiseSchedule) and isinstance(schedule.rule, Gibbs):
            raise ValueError("comm: drawing from the posterior needs all coils in one process; leave it out")
        self.noise_var, self.seed, self.max_cg_iter = noise_var, seed, max_cg_iter
        self.processes = Processes.of(comm)
        with self._together():
            self.device = _device(device)
            self.schedule, self.prior = _check_choices(schedule, prior, max_cg_iter, seed)
            if isinstance(self.schedule.rule, HGGDP) and self.schedule.rule.reference_noise:
                if maps > 1:
                    raise ValueError("maps: reference_noise is for one set of maps")
                check_reference_noise(optional_array("mps", mps), optional_array("weights", weights), coord)
            if self.processes is not None:
                self.processes.check_same(
                    schedule=self.schedule, seed=seed, max_cg_iter=max_cg_iter, prior=self.prior.weights_as_bytes()
                )
            self.problem = SenseProblem.build(
                y,
                mps,
                noise_var,
                weights,
                coord,
                device=self.device,
                coil_batch_size=coil_batch_size,
                comm=self.processes,
                ndim=ndim,
                maps=maps,
            )
            if coord is None and self.problem.ndim == 2 and self._doubts_y:
                warn_of_image(as_array("y", y))
                warn_of_spikes(sp.to_device(as_array("y", y), self.device), optional_array("weights", weights))
            with self.device:
                alg = build_sampler(self.prior, self.problem, self.schedule, seed, max_cg_iter)
        self._next_summary = 0.0
        super().__init__(alg, show_pbar and (comm is None or comm.rank == 0), leave_pbar)

    def run(self) -> Array:
        """Run to the end; if one of several processes fails, all fail.

        Returns:
            array: :attr:`image`.

        Raises:
            ProcessError: Another process failed.
        """
        with self._together():
            return super().run()

    def _together(self) -> AbstractContextManager[None]:
        return nullcontext() if self.processes is None else self.processes.together()

    @property
    def image(self) -> Array:
        """The current image, in the units of ``y``, zero where no coil has a signal; complex64 (..., H, W).

        With several sets of maps those of all sets, (..., maps, H, W).
        """
        with self.device:
            return self._mean(self.alg.x) * self.problem.scale

    def _mean(self, x: Array) -> Array:
        return x if x.ndim == self.problem.scale.ndim else x.mean(axis=-3)

    def _summarize(self) -> None:
        if not self.show_pbar or (time.monotonic() < self._next_summary and not self.alg.done()):
            return
        start, xp, problem = time.monotonic(), self.device.xp, self.problem
        with self.device:
            difference = problem.A(self._mean(self.alg.x)) - problem.y
            residual = float(xp.linalg.norm(difference) / xp.linalg.norm(problem.y))
        now = time.monotonic()
        self._next_summary = now + max(SUMMARY_INTERVAL, SUMMARY_SHARE * (now - start))
        level = min(self.alg.iter, self.alg.max_iter - 1) // self.schedule.steps + 1
        self.pbar.set_postfix(
            {
                "level": f"{level}/{len(self.schedule.sigmas)}",
                "sigma": f"{self.alg.sigma:.3g}",
                "residual": f"{residual:.2e}",
            }
        )

    def _output(self) -> Array:
        return self.image


def _check_choices(
    schedule: NoiseSchedule | None, prior: PathLike | ScorePrior | None, max_cg_iter: int | None, seed: int
) -> tuple[NoiseSchedule, ScorePrior]:
    """Return schedule and prior, or their defaults.

    Raises:
        ValueError: One of them, or one of the numbers, is of the wrong kind.
    """
    if not isinstance(prior, str | Path | ScorePrior | None):
        raise ValueError(f"prior: expected its name, its file or a ScorePrior, got {prior!r}")
    if not isinstance(schedule, NoiseSchedule | None):
        raise ValueError(f"schedule: expected a NoiseSchedule, such as NoiseSchedule.hggdp(), got {schedule!r}")
    check_counts(max_cg_iter=max_cg_iter)
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a whole number, 0 or more, got {seed!r}")
    prior = prior if isinstance(prior, ScorePrior) else load_prior(prior or DEFAULT_PRIOR)
    return schedule or NoiseSchedule.fast(), prior


def _device(device: sp.Device) -> sp.Device:
    try:
        return sp.Device(device)
    except ValueError as error:
        raise ValueError(f"device: expected a sigpy.Device, or -1 for the CPU, got {device!r} ({error})") from None

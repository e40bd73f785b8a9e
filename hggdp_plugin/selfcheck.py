"""Whether a prior fits a scan, from the measured data alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array, PathLike
from hggdp_plugin.alg import AnnealedLangevin
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.hold_out import hold_out
from hggdp_plugin.linops import Sense
from hggdp_plugin.prior import ScorePrior, load_prior
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.sampling import build_sampler
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.solvers import run
from hggdp_plugin.validation import check_arguments
from hggdp_plugin.wavelet import HaarDenoiser

#: Levels of the quick reconstructions with the prior and with wavelets, and conjugate gradient iterations per level of
#: non-Cartesian ones.
PRIOR_LEVELS, WAVELET_LEVELS, CG_ITERATIONS = 4, 6, 2
#: Largest prediction error of a prior that fits, and range of the residual of data that the maps, the noise variance
#: and the absence of motion explain.
MAX_PREDICTION_ERROR, RESIDUAL_RANGE = 0.8, (0.6, 1.6)
#: Smallest part of a prediction's squared error that counts as beyond the noise.
SMALLEST_EXCESS = 0.05


class SliceData(NamedTuple):
    """A slice as it was measured; arguments of :class:`hggdp_plugin.HGGDPRecon`.

    Attributes:
        y (array): k-space (coils, H, W), or (coils, *coord.shape[:-1]).
        mps (None or array): Coil sensitivity maps (coils, H, W).
        noise_var (None or float): Noise variance E|n|^2 of a complex sample.
        weights (None or array): k-space weights.
        coord (None or array): Non-Cartesian coordinates.
    """

    y: Array
    mps: Array | None = None
    noise_var: float | None = None
    weights: Array | None = None
    coord: Array | None = None


@dataclass(frozen=True, eq=False)
class SelfCheck:
    """What the held-out samples of each slice say.

    Attributes:
        prediction_error: Squared error of the prior's prediction of the held-out samples, beyond the noise, relative to
            that of a reconstruction with wavelets in place of the prior. Below 1 the prior knows more about this scan
            than that images have edges; at 1 and above it does not fit. NaN where nothing could be held out.
        residual: Mean squared difference of the image to the samples it was made of, relative to the noise variance.
            About 1, or somewhat less, if coil sensitivity maps and noise variance are right and nothing moved. NaN for
            one coil, which any image agrees with.
        noise_var: Noise variance E|n|^2 of a complex sample that was used.
        n_held_out: Number of samples, of all coils, that were held out.
    """

    prediction_error: Array
    residual: Array
    noise_var: Array
    n_held_out: Array

    @classmethod
    def stack(cls, checks: Sequence["SelfCheck"]) -> "SelfCheck":
        """Stack the checks of several slices along a new leading axis.

        Args:
            checks (sequence of SelfCheck): The checks, at least one.
        """
        return cls(*(np.stack([getattr(check, field.name) for check in checks]) for field in fields(cls)))

    @property
    def prior_fits(self) -> Array:
        """Whether the prior predicts clearly better than wavelets; true where nothing could be held out."""
        return ~(self.prediction_error > MAX_PREDICTION_ERROR)

    @property
    def data_consistent(self) -> Array:
        """Whether the residual is what noise explains; true for one coil."""
        low, high = RESIDUAL_RANGE
        return ~((self.residual < low) | (self.residual > high))

    @property
    def misfit(self) -> Array:
        """One number: 0 at the limit of what fits, negative below, positive above; natural logarithm of a ratio."""
        low, high = np.log(RESIDUAL_RANGE)
        prior = np.log(self.prediction_error / MAX_PREDICTION_ERROR)
        residual = np.log(np.maximum(self.residual, 1e-12))
        return np.fmax(prior, np.fmax(low - residual, residual - high))


def self_check(
    y: Array,
    mps: Array | None = None,
    noise_var: float | None = None,
    weights: Array | None = None,
    coord: Array | None = None,
    *,
    prior: PathLike | ScorePrior | None = None,
    seed: int = 0,
    device: sp.Device = sp.cpu_device,
    coil_batch_size: int | None = None,
) -> SelfCheck:
    r"""Check whether a prior fits measured data.

    A few per cent of the samples outside the calibration region, whole lines or shots where the sampling has them, are
    held out. The others are reconstructed with few noise levels, once with the prior and once with wavelets in its
    place, and both predict the held-out samples:

    .. math:: e = \frac{E|y_h - A_h x_{prior}|^2 - \nu}{E|y_h - A_h x_{wavelet}|^2 - \nu}

    Args:
        y (array): k-space, like the other arguments as in :class:`hggdp_plugin.HGGDPRecon`. Leading axes are slices.
        mps (None or array): Coil sensitivity maps.
        noise_var (None or float): Noise variance :math:`\nu`, all of it: 1 for prewhitened data. None: estimated at the
            periphery of k-space, roughly.
        weights (None or array): k-space weights.
        coord (None or array): Non-Cartesian coordinates (shots, ..., 2).
        prior (None, str, Path or ScorePrior): The prior, its name or its file; default: the bundled one.
        seed (int): Seed of the choice of samples and of the sampler.
        device (Device): Where to compute.
        coil_batch_size (None or int): Coils processed at a time. None: what fits into the free memory.

    Returns:
        SelfCheck: One number per slice, NumPy arrays of the shape of the leading axes of ``y``.

    Raises:
        ValueError: An argument does not fit; the message names it, its shape and what would fit.
    """
    if not isinstance(prior, ScorePrior):
        prior = load_prior(prior or DEFAULT_PRIOR)
    return _Experiment(y, mps, noise_var, weights, coord, seed, device, coil_batch_size).check(prior)


def choose_prior(
    y: Array,
    mps: Array | None = None,
    noise_var: float | None = None,
    weights: Array | None = None,
    coord: Array | None = None,
    *,
    priors: Mapping[str, ScorePrior],
    levels: int = PRIOR_LEVELS,
    seed: int = 0,
    device: sp.Device = sp.cpu_device,
    coil_batch_size: int | None = None,
) -> tuple[str, dict[str, SelfCheck]]:
    """Choose the prior that predicts held-out samples best.

    Args:
        y (array): As in :func:`self_check`, like the other arguments.
        mps (None or array): Coil sensitivity maps.
        noise_var (None or float): Noise variance.
        weights (None or array): k-space weights.
        coord (None or array): Non-Cartesian coordinates.
        priors (mapping): Priors to choose from, by name.
        levels (int): Noise levels of the reconstructions with the priors.
        seed (int): Seed.
        device (Device): Where to compute.
        coil_batch_size (None or int): Coils processed at a time.

    Returns:
        tuple: The name of the prior with the lowest prediction error, geometric mean over the slices, and the check of
        each prior. The first one if nothing could be held out.

    Raises:
        ValueError: There are no priors, or an argument does not fit.
    """
    if not priors:
        raise ValueError("priors: expected at least one")
    experiment = _Experiment(y, mps, noise_var, weights, coord, seed, device, coil_batch_size)
    checks = {name: experiment.check(prior, levels) for name, prior in priors.items()}
    return min(priors, key=lambda name: mean_prediction_error(checks[name])), checks


def mean_prediction_error(check: SelfCheck) -> float:
    """Return the geometric mean of the prediction error over the slices; 1 if nothing could be held out.

    Args:
        check (SelfCheck): The check.
    """
    errors = check.prediction_error[np.isfinite(check.prediction_error)]
    return float(np.exp(np.log(errors).mean())) if errors.size else 1.0


class _Experiment:
    """Data without the held-out samples, and the prediction of these by wavelets, which all priors are compared with.

    Arguments as in :func:`self_check`.
    """

    def __init__(
        self,
        y: Array,
        mps: Array | None,
        noise_var: float | None,
        weights: Array | None,
        coord: Array | None,
        seed: int,
        device: sp.Device,
        coil_batch_size: int | None,
    ) -> None:
        check_arguments(y, mps, noise_var, weights, coord, ndim=2)
        self.seed, self.device = seed, sp.Device(device)
        if mps is None:
            mps = np.ones((1, *y.shape[-2:]), np.complex64)
        y, mps = (sp.to_device(array, self.device) for array in (y, mps))
        self.n_coils = mps.shape[-3]
        self.max_cg_iter = None if coord is None else CG_ITERATIONS
        with self.device:
            split = hold_out(y, weights, coord, seed)
            self.kept, self.y, self.valid = (sp.to_device(a, self.device) for a in (split.kept, split.y, split.valid))
            self.problem = SenseProblem.build(
                y, mps, noise_var, self.kept, coord, device=self.device, coil_batch_size=coil_batch_size
            )
            batch = self.problem.start.shape[:-2]
            self.A = Sense(mps, batch, split.coord, coil_batch_size=coil_batch_size)
            self.axes = tuple(range(len(batch), y.ndim))
            self.n_held_out = self.n_coils * self.valid.sum(axis=self.axes)
            self.wavelet_error = self._excess(self._reconstruct(HaarDenoiser(seed=seed)))

    def check(self, prior: ScorePrior, levels: int = PRIOR_LEVELS) -> SelfCheck:
        """Reconstruct with a prior and compare."""
        xp, problem = self.device.xp, self.problem
        with self.device:
            schedule = NoiseSchedule.fast(levels)
            x = run(build_sampler(prior, problem, schedule, self.seed, self.max_cg_iter))
            known = (self.n_held_out > 0) & (self.wavelet_error > 0)
            error = xp.where(known, self._excess(x) / xp.where(known, self.wavelet_error, 1), xp.nan)
            n_kept = xp.broadcast_to(self.kept, problem.y.shape).sum(axis=self.axes)
            residual = (abs(problem.A(x) - problem.y) ** 2).sum(axis=self.axes) / n_kept
            noise_var = xp.broadcast_to(problem.noise_var, problem.scale.shape)[..., 0, 0]
            known = (noise_var > 0) & (self.n_coils > 1)
            residual = xp.where(known, residual / xp.where(known, noise_var, 1), xp.nan)
            noise_var = noise_var * abs(problem.scale[..., 0, 0]) ** 2
            arrays = (error, residual, noise_var, self.n_held_out)
            return SelfCheck(*(np.asarray(sp.to_device(array)) for array in arrays))

    def _reconstruct(self, denoise: HaarDenoiser) -> Array:
        problem, schedule = self.problem, NoiseSchedule(NoiseSchedule.fast(WAVELET_LEVELS).sigmas)
        consistency = problem.consistency(problem.conjugate_gradient(self.max_cg_iter) if self.max_cg_iter else None)
        rng = self.device.xp.random.default_rng(self.seed)
        return run(AnnealedLangevin(denoise, consistency, problem.start.copy(), schedule, rng))

    def _excess(self, x: Array) -> Array:
        """Return the mean squared error of the prediction of the held-out samples, less the noise; (...)."""
        xp, scale = self.device.xp, self.problem.scale
        error = (abs((self.A(x * scale) - self.y) * self.valid) ** 2).sum(axis=self.axes)
        error /= xp.maximum(self.n_held_out, 1)
        noise = (self.problem.noise_var * abs(scale) ** 2)[..., 0, 0]
        return xp.maximum(error - noise, SMALLEST_EXCESS * error)

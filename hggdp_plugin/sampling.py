"""From a noise schedule to the sampler that follows it, on a prior and data consistency."""

from collections.abc import Callable
from itertools import cycle

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array, RandomGenerator
from hggdp_plugin.alg import AnnealedLangevin, HGGDPSampler
from hggdp_plugin.linops import Replicate, flips, slice_stacks
from hggdp_plugin.posterior import SplitGibbs
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.prox import DataConsistency, GradientConsistency
from hggdp_plugin.random import complex_uniform
from hggdp_plugin.schedule import HGGDP, Gibbs, Langevin, NoiseSchedule, StepRule
from hggdp_plugin.solvers import Solver


def build_sampler(
    prior: ScorePrior,
    problem: SenseProblem,
    schedule: NoiseSchedule,
    seed: int = 0,
    max_cg_iter: int | None = None,
) -> AnnealedLangevin | HGGDPSampler | SplitGibbs:
    """Build the sampler that a schedule asks for.

    Args:
        prior (ScorePrior): The prior.
        problem (SenseProblem): The problem. The images of a batch get the same noise, so that none depends on the
            others. In volumes the prior sees slices, across another axis at every step.
        schedule (NoiseSchedule): Noise levels and step rule.
        seed (int): Seed of the noise.
        max_cg_iter (None or int): Conjugate gradient iterations per step, where there is no closed form; None: what the
            problem chooses.

    Returns:
        Alg: The sampler. Its ``x`` are images (..., H, W) or, for HGGDP and for Langevin dynamics with a prior of
        several views, views (..., K, H, W).

    Raises:
        ValueError: The levels of a schedule with the rule :class:`Gibbs` fall too fast, or the rule does not go with
            volumes.

    References:
        Lee, S., Chung, H., Park, M., Park, J., Ryu, W.-S., & Ye, J. C. (2023). Improving 3D imaging with pre-trained
        perpendicular 2D diffusion models. ICCV. Slices across alternating axes.
    """
    rule = schedule.rule
    if problem.ndim == 3:
        check_rule_for_volumes(rule, prior)
    solver = problem.conjugate_gradient(max_cg_iter) if max_cg_iter else None
    rng = sp.get_array_module(problem.start).random.default_rng(seed)
    if isinstance(rule, Gibbs):
        return _gibbs(prior, problem, schedule, rule, rng, solver)
    if isinstance(rule, HGGDP) and rule.reference_noise:
        consistency: DataConsistency = GradientConsistency(problem.A, problem.y, support=problem.support)
    else:
        consistency = problem.consistency(solver)
    n_batch_axes, K = problem.n_batch_axes, prior.views
    start, R = problem.start.copy(), Replicate(problem.start.shape, K)
    if isinstance(rule, HGGDP):
        views = start_image(R(start), schedule, rng, n_batch_axes)
        return HGGDPSampler(prior.denoise_views, consistency, views, schedule, rng, n_batch_axes)
    start = start_image(start, schedule, rng, n_batch_axes)
    if isinstance(rule, Langevin) and K > 1:
        prox = _on_views(consistency, R, K)
        return AnnealedLangevin(prior.denoise_views, prox, R(start), schedule, rng, n_batch_axes)
    slices = slice_stacks(start.shape) if problem.ndim == 3 else [sp.linop.Identity(start.shape)]
    orientations = cycle([[T * S for T in flips(S.oshape)] if rule.random_flips else [S] for S in slices])
    order = np.random.default_rng(seed)

    def denoise(x: Array, sigma: float) -> Array:
        possible = next(orientations)
        T = possible[order.integers(len(possible))]
        return T.H(prior.denoise(T(x), sigma, rng))

    return AnnealedLangevin(denoise, consistency, start, schedule, rng, n_batch_axes)


def check_rule_for_volumes(rule: StepRule, prior: ScorePrior) -> None:
    """Refuse step rules that need one prior for all steps, or views, which slices across alternating axes are not.

    Args:
        rule (StepRule): The step rule.
        prior (ScorePrior): The prior.

    Raises:
        ValueError: Names the rule and what would fit.
    """
    if isinstance(rule, HGGDP | Gibbs) or (isinstance(rule, Langevin) and prior.views > 1):
        name = type(rule).__name__
        raise ValueError(f"schedule: the rule {name} is for slices; for volumes use NoiseSchedule.fast()")


def _gibbs(
    prior: ScorePrior,
    problem: SenseProblem,
    schedule: NoiseSchedule,
    rule: Gibbs,
    rng: RandomGenerator,
    solver: Solver | None,
) -> SplitGibbs:
    """Build the sampler that draws from the posterior."""
    return SplitGibbs(
        lambda x, sigma: prior.denoise(x, sigma, rng),
        problem.likelihood(rng, solver, n_batch_axes=problem.n_batch_axes),
        problem.start.copy(),
        [schedule.sigma(i) for i in range(len(schedule))],
        rng,
        ratio=rule.ratio,
        n_batch_axes=problem.n_batch_axes,
    )


def start_image(x: Array, schedule: NoiseSchedule, rng: RandomGenerator, n_batch_axes: int = 0) -> Array:
    """Overwrite images or views with what the schedule starts from: uniform noise, or themselves.

    Args:
        x (array): Least-squares images or views, with leading batch axes.
        schedule (NoiseSchedule): Its ``from_data`` decides.
        rng (Generator): NumPy or CuPy random generator, matching ``x``.
        n_batch_axes (int): Leading axes along which the noise is the same.

    Returns:
        array: ``x``.
    """
    if not schedule.from_data:
        x[...] = 2 * complex_uniform(rng, x.shape[n_batch_axes:]) - (1 + 1j)
    return x


def _on_views(
    consistency: Callable[[float, Array], Array], R: sp.linop.Linop, K: int
) -> Callable[[float, Array], Array]:
    """Return the data consistency of K views: that of their mean."""

    def on_views(alpha: float, views: Array) -> Array:
        mean = views.mean(axis=-3)
        # Shifting the mean by d shifts all K views, so its squared distance counts K times.
        return views + R(consistency(alpha / K, mean) - mean)

    return on_views

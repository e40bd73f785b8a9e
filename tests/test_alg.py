"""The sampler against posteriors known in closed form."""

from dataclasses import dataclass

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array, random_hermitian

from hggdp_plugin.alg import AnnealedLangevin, HGGDPSampler
from hggdp_plugin.prox import L2DataConsistency
from hggdp_plugin.random import complex_normal
from hggdp_plugin.schedule import FewStep, Langevin, NoiseSchedule, StepRule, geometric
from hggdp_plugin.solvers import Diagonal

SHAPE = (4, 4)
N = 16
CHAINS = 1000


@dataclass
class Gaussian:
    """A normal distribution of images; covariances are per real channel, so that E|x - mean|^2 = 2 tr(covariance)."""

    mean: np.ndarray
    covariance: np.ndarray

    def smoothed(self, sigma: float) -> "Gaussian":
        return Gaussian(self.mean, self.covariance + sigma**2 * np.eye(N))

    def denoise(self, x: np.ndarray, sigma: float) -> np.ndarray:
        gain = self.covariance @ np.linalg.inv(self.smoothed(sigma).covariance)
        moved = (x.reshape(-1, N) - self.mean) @ gain.T.astype(np.complex64) + self.mean
        return moved.reshape(x.shape).astype(np.complex64)

    def posterior(self, A: np.ndarray, y: np.ndarray, noise_var: float) -> "Gaussian":
        """The distribution given y = A x + noise of this variance per complex sample."""
        noise = 0.5 * noise_var * np.eye(len(y))
        gain = self.covariance @ A.conj().T @ np.linalg.inv(A @ self.covariance @ A.conj().T + noise)
        return Gaussian(self.mean + gain @ (y - A @ self.mean), self.covariance - gain @ A @ self.covariance)

    def along(self, basis: np.ndarray) -> "Gaussian":
        """The distribution of the coefficients basis x."""
        return Gaussian(basis @ self.mean, basis @ self.covariance @ basis.conj().T)


@dataclass
class Problem:
    prior: Gaussian
    mask: np.ndarray
    y: np.ndarray

    def prox(self, chains: int, noise_var: float) -> L2DataConsistency:
        F = sp.linop.FFT((chains, *SHAPE), axes=(-2, -1))
        A = sp.linop.Multiply(F.oshape, self.mask) * F
        y = np.broadcast_to(self.y, (chains, *SHAPE)).copy()
        return L2DataConsistency(A, y, noise_var=noise_var, solver=Diagonal(F, self.mask))


@pytest.fixture
def problem() -> Problem:
    """Few k-space samples of an image whose prior ties the others to them: not diagonal in k-space."""
    mask = (np.random.default_rng(0).permutation(N) < 6).astype(np.float32).reshape(SHAPE)
    prior = Gaussian(complex_array(N, seed=1), random_hermitian(N, 0.1, 1.0, seed=2))
    return Problem(prior, mask, mask * complex_array(*SHAPE, seed=3) * 1.5)


def fourier() -> np.ndarray:
    """The centered orthonormal transform as a matrix."""
    return sp.fft(np.eye(N).reshape(N, *SHAPE), axes=(-2, -1)).reshape(N, N).T


def run(denoise, prox, schedule, chains, seed=5):
    rng = np.random.default_rng(seed)
    alg = AnnealedLangevin(denoise, prox, complex_normal(rng, (chains, *SHAPE)), schedule, rng)
    while not alg.done():
        alg.update()
    return alg.x


def assert_distributed(samples: np.ndarray, target: Gaussian, bias: float) -> None:
    """Mean and covariance of the samples (chains, d) are the target's within 5 standard errors.

    The samples are whitened: their mean is then 0 and their covariance 1, with standard errors that depend on the
    numbers of chains n and dimensions d alone. ``bias`` bounds what the step size adds to the covariance.
    """
    n, d = samples.shape
    white = np.linalg.solve(np.linalg.cholesky(target.covariance), (samples - target.mean).T).T
    mean = white.mean(0)
    assert abs(mean.real).max() < 5 / n**0.5
    assert abs(mean.imag).max() < 5 / n**0.5
    covariance = white.T @ white.conj() / (2 * n)
    assert abs(covariance - np.eye(d)).max() < 5 / n**0.5 + bias
    assert abs(np.trace(covariance).real / d - 1) < 5 / (n * d) ** 0.5 + bias


LANGEVIN = NoiseSchedule(geometric(1.0, 0.5, 3), steps=300, rule=Langevin(eps=0.06))


def test_exact_replacement_samples_the_conditional(problem):
    x = run(problem.prior.denoise, problem.prox(CHAINS, 0.0), LANGEVIN, CHAINS)
    k = sp.fft(x, axes=(-2, -1)).reshape(CHAINS, N)
    measured = problem.mask.ravel() > 0
    np.testing.assert_allclose(k[:, measured], np.tile(problem.y.ravel()[measured], (CHAINS, 1)), atol=1e-5)

    sigma = LANGEVIN.sigmas[-1]
    F = fourier()
    posterior = problem.prior.smoothed(sigma).posterior(F[measured], problem.y.ravel()[measured], 0.0)
    target = posterior.along(F[~measured])
    unconditional = problem.prior.along(F[~measured]).mean
    assert np.linalg.norm(target.mean - unconditional) > 1  # the samples have something to say about the others
    # Euler steps of size h widen a variance v by h / (2 v); here v >= sigma^2.
    assert_distributed(k[:, ~measured], target, bias=LANGEVIN.rule.eps / 2)


def test_the_proximal_step_samples_the_posterior_of_noisy_data(problem):
    noise_var = 0.6
    x = run(problem.prior.denoise, problem.prox(CHAINS, noise_var), LANGEVIN, CHAINS).reshape(CHAINS, N)
    sigma = LANGEVIN.sigmas[-1]
    measured = problem.mask.ravel() > 0
    target = problem.prior.smoothed(sigma).posterior(fourier()[measured], problem.y.ravel()[measured], noise_var)
    # Implicit steps along the data narrow it by at most h over the noise variance per real channel.
    assert_distributed(x, target, bias=LANGEVIN.rule.eps * (0.5 + sigma**2 / (0.5 * noise_var)))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"eta": 0.3}, {"eta": 0.3, "momentum": 0.5}])
@pytest.mark.parametrize("noise_var", [0.0, 0.6])
def test_one_step_per_level_ends_at_the_posterior_mean(problem, noise_var, options):
    schedule = NoiseSchedule(geometric(2.0, 0.1, 150), rule=FewStep(**options))
    chains = 400 if "eta" in options else 1
    x = run(problem.prior.denoise, problem.prox(chains, noise_var), schedule, chains).reshape(chains, N)
    measured = problem.mask.ravel() > 0
    target = problem.prior.posterior(fourier()[measured], problem.y.ravel()[measured], noise_var)
    # The noise of a level cannot be forgotten faster than levels follow: 4 % of the way from prior to posterior.
    tolerance = 0.04 * np.linalg.norm(target.mean - problem.prior.mean)
    if chains > 1:
        tolerance += 5 * np.linalg.norm(x.std(0)) / chains**0.5
    assert np.linalg.norm(x.mean(0) - target.mean) < tolerance


class HalfStep(StepRule):
    eps = 0.5


def test_the_image_is_updated_in_place_and_the_state_is_public(device):
    with device:
        x = device.xp.ones((2, 3, 3), np.complex64)
    seen = []

    def denoise(x, sigma):
        seen.append(sigma)
        return 0 * x

    schedule = NoiseSchedule((0.5, 0.25), steps=2, rule=HalfStep())
    alg = AnnealedLangevin(denoise, lambda alpha, u: u + alpha, x, schedule, None)
    alg.update()
    assert alg.x is x
    np.testing.assert_allclose(sp.to_device(x), 0.5 + 0.5 * 0.25)
    assert alg.sigma == 0.5
    while not alg.done():
        alg.update()
    assert seen == [0.5, 0.5, 0.25, 0.25]
    assert alg.sigma == 0.25
    assert not alg.denoised.any()


def test_shared_noise_makes_the_items_of_a_batch_the_same():
    schedule = NoiseSchedule((0.5,), steps=3, rule=Langevin(eps=0.5))
    for n_batch_axes in (0, 1):
        alg = AnnealedLangevin(
            lambda x, sigma: 0.5 * x,
            lambda alpha, x: x,
            np.zeros((2, 4, 4), np.complex64),
            schedule,
            np.random.default_rng(1),
            n_batch_axes,
        )
        while not alg.done():
            alg.update()
        assert (alg.x[0] == alg.x[1]).all() == bool(n_batch_axes)


def test_the_old_name_of_n_batch_axes_still_works():
    x, schedule = np.zeros((2, 4, 4), np.complex64), NoiseSchedule((0.5,))
    with pytest.warns(DeprecationWarning, match="shared is now called n_batch_axes"):
        alg = AnnealedLangevin(lambda x, sigma: x, lambda alpha, x: x, x, schedule, None, shared=1)
    assert alg.n_batch_axes == 1


def test_the_hggdp_sampler_refuses_other_rules():
    with pytest.raises(ValueError, match=r"^schedule: .*needs the rule HGGDP"):
        HGGDPSampler(None, None, np.zeros((1, 4, 4), np.complex64), NoiseSchedule((0.5,)), None)

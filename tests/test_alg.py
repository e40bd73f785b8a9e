"""The sampler against posteriors known in closed form; solvers of batches against SigPy's and the theory."""

from dataclasses import dataclass

import numpy as np
import pytest
import sigpy as sp
from sigpy.alg import ConjugateGradient

from hggdp_plugin.alg import AnnealedLangevin
from hggdp_plugin.prox import L2DataConsistency
from hggdp_plugin.random import complex_normal
from hggdp_plugin.schedule import NoiseSchedule, geometric
from hggdp_plugin.solvers import BatchConjugateGradient, ChebyshevIteration

SHAPE = (4, 4)
N = 16
CHAINS = 1000


def complex_array(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def random_hermitian(rng, n, low, high):
    """A Hermitian n x n matrix with eigenvalues between low and high."""
    q, _ = np.linalg.qr(complex_array(rng, n, n))
    return (q * np.linspace(low, high, n)) @ q.conj().T


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

    def posterior(self, A: np.ndarray, y: np.ndarray, lamda: float) -> "Gaussian":
        """The distribution given y = A x + noise of variance lamda per real channel."""
        gain = self.covariance @ A.conj().T @ np.linalg.inv(A @ self.covariance @ A.conj().T + lamda * np.eye(len(y)))
        return Gaussian(self.mean + gain @ (y - A @ self.mean), self.covariance - gain @ A @ self.covariance)

    def along(self, basis: np.ndarray) -> "Gaussian":
        """The distribution of the coefficients basis x."""
        return Gaussian(basis @ self.mean, basis @ self.covariance @ basis.conj().T)


@dataclass
class Problem:
    prior: Gaussian
    mask: np.ndarray
    y: np.ndarray

    def prox(self, chains: int, lamda: float) -> L2DataConsistency:
        F = sp.linop.FFT((chains, *SHAPE), axes=(-2, -1))
        y = np.broadcast_to(self.y, (chains, *SHAPE)).copy()
        return L2DataConsistency(sp.linop.Multiply(F.oshape, self.mask) * F, y, lamda, F, self.mask, max_iter=0)


@pytest.fixture
def problem() -> Problem:
    """Few k-space samples of an image whose prior ties the others to them: not diagonal in k-space."""
    rng = np.random.default_rng(0)
    mask = (rng.permutation(N) < 6).astype(np.float32).reshape(SHAPE)
    prior = Gaussian(complex_array(rng, N), random_hermitian(rng, N, 0.1, 1.0))
    return Problem(prior, mask, mask * complex_array(rng, *SHAPE) * 1.5)


def fourier() -> np.ndarray:
    """The centred orthonormal transform as a matrix."""
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


LANGEVIN = NoiseSchedule(geometric(1.0, 0.5, 3), steps=300, eps=0.06, langevin=True)


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
    assert_distributed(k[:, ~measured], target, bias=LANGEVIN.eps / 2)


def test_the_proximal_step_samples_the_posterior_of_noisy_data(problem):
    lamda = 0.3
    x = run(problem.prior.denoise, problem.prox(CHAINS, lamda), LANGEVIN, CHAINS).reshape(CHAINS, N)
    sigma = LANGEVIN.sigmas[-1]
    measured = problem.mask.ravel() > 0
    target = problem.prior.smoothed(sigma).posterior(fourier()[measured], problem.y.ravel()[measured], lamda)
    # Implicit steps along the data narrow it by at most h / lamda.
    assert_distributed(x, target, bias=LANGEVIN.eps * (0.5 + sigma**2 / lamda))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"eta": 0.3}, {"eta": 0.3, "momentum": 0.5}])
@pytest.mark.parametrize("lamda", [0.0, 0.3])
def test_one_step_per_level_ends_at_the_posterior_mean(problem, lamda, options):
    schedule = NoiseSchedule(geometric(2.0, 0.1, 150), **options)
    chains = 400 if "eta" in options else 1
    x = run(problem.prior.denoise, problem.prox(chains, lamda), schedule, chains).reshape(chains, N)
    measured = problem.mask.ravel() > 0
    target = problem.prior.posterior(fourier()[measured], problem.y.ravel()[measured], lamda)
    # The noise of a level cannot be forgotten faster than levels follow: 4 % of the way from prior to posterior.
    tolerance = 0.04 * np.linalg.norm(target.mean - problem.prior.mean)
    if chains > 1:
        tolerance += 5 * np.linalg.norm(x.std(0)) / chains**0.5
    assert np.linalg.norm(x.mean(0) - target.mean) < tolerance


def test_the_image_is_updated_in_place_and_the_state_is_told(device):
    with device:
        x = device.xp.ones((2, 3, 3), np.complex64)
    seen = []

    def denoise(x, sigma):
        seen.append(sigma)
        return 0 * x

    schedule = NoiseSchedule((0.5, 0.25), steps=2, eps=0.5)
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
    schedule = NoiseSchedule((0.5,), steps=3, eps=0.5, eta=0.5, langevin=True)
    for shared in (0, 1):
        alg = AnnealedLangevin(
            lambda x, sigma: 0.5 * x,
            lambda alpha, x: x,
            np.zeros((2, 4, 4), np.complex64),
            schedule,
            np.random.default_rng(1),
            shared,
        )
        while not alg.done():
            alg.update()
        assert (alg.x[0] == alg.x[1]).all() == bool(shared)


def test_noise_has_unit_variance_per_real_channel(device):
    with device:
        z = sp.to_device(complex_normal(device.xp.random.default_rng(0), (100, 200)))
    assert z.dtype == np.complex64
    n = z.size
    for channel in (z.real, z.imag):
        assert abs(channel.mean()) < 5 / n**0.5
        assert abs(channel.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((z.real * z.imag).mean()) < 5 / n**0.5


@pytest.fixture
def systems(device):
    """Three independent positive definite systems of 4 x 5 unknowns, of very different scale."""
    rng = np.random.default_rng(0)
    matrices = [random_hermitian(rng, 20, 0.2, 1.0) * c for c in (1, 100, 0.01)]
    H = sp.to_device(np.stack(matrices).astype(np.complex64), device)
    b = sp.to_device(complex_array(rng, 3, 4, 5), device)
    return H, b


def solve(H, b, max_iter):
    xp = sp.get_array_module(b)
    with sp.get_device(b):
        x = xp.zeros_like(b)
        alg = BatchConjugateGradient(lambda u: (H @ u.reshape(-1, 20, 1)).reshape(u.shape), b, x, max_iter=max_iter)
        while not alg.done():
            alg.update()
    assert alg.x is x
    return sp.to_device(x)


def test_one_system_is_solved_as_in_sigpy(systems, device):
    H, b = systems
    with device:
        x = device.xp.zeros_like(b[0])
        alg = ConjugateGradient(lambda u: (H[0] @ u.reshape(20, 1)).reshape(4, 5), b[0], x, max_iter=6)
        while not alg.done():
            alg.update()
    np.testing.assert_allclose(solve(H[:1], b[:1], 6)[0], sp.to_device(x), rtol=1e-4, atol=1e-5)


def test_systems_are_solved_independently(systems):
    H, b = systems
    together = solve(H, b, 7)
    for i in range(3):
        np.testing.assert_allclose(together[i], solve(H[i : i + 1], b[i : i + 1], 7)[0], rtol=1e-4)


def test_a_preconditioner_is_used_as_in_sigpy(systems):
    H, b = systems[0][0], systems[1][0]
    P = np.linspace(0.5, 2, b.size).reshape(b.shape).astype(np.float32)

    def A(u):
        return (H @ u.reshape(-1, 1)).reshape(u.shape)

    x, expected = np.zeros_like(b), np.zeros_like(b)
    for alg in (
        BatchConjugateGradient(A, b, x, max_iter=4, P=lambda r: P * r),
        ConjugateGradient(A, b, expected, P=lambda r: P * r, max_iter=4),
    ):
        while not alg.done():
            alg.update()
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)


def test_systems_are_solved(systems):
    H, b = systems
    x = solve(H, b, 40)
    exact = np.linalg.solve(sp.to_device(H), sp.to_device(b).reshape(3, 20, 1)).reshape(3, 4, 5)
    size = abs(exact).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(x / size, exact / size, atol=1e-4)


def chebyshev(H, b, max_iter):
    scale = sp.to_device(np.array([1, 100, 0.01], np.float32)[: len(b), None, None], sp.get_device(b))
    applied = []
    before = b.copy()

    def A(u):
        applied.append(1)
        return (H @ u.reshape(-1, 20, 1)).reshape(u.shape)

    with sp.get_device(b):
        alg = ChebyshevIteration(A, b, 0.2 * scale, scale, max_iter)
        while not alg.done():
            alg.update()
    assert len(applied) == max_iter - 1
    assert (b == before).all()
    return sp.to_device(alg.x)


def test_chebyshev_solves_systems_independently(systems):
    H, b = systems
    x = chebyshev(H, b, 30)
    exact = np.linalg.solve(sp.to_device(H), sp.to_device(b).reshape(3, 20, 1)).reshape(3, 4, 5)
    size = abs(exact).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(x / size, exact / size, atol=1e-4)
    np.testing.assert_allclose(chebyshev(H[:1], b[:1], 4)[0], chebyshev(H, b, 4)[0], rtol=1e-5)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_error_of_chebyshev_is_that_of_his_polynomial(iterations):
    """T_n((high + low - 2 lambda) / (high - low)) / T_n((high + low) / (high - low)), below the interval too."""
    low, high = 0.2, 1.0
    eigenvalues = np.linspace(0.05, 1, 20).reshape(4, 5)
    alg = ChebyshevIteration(lambda u: eigenvalues * u, np.ones((4, 5), np.complex64), low, high, iterations)
    while not alg.done():
        alg.update()
    T = np.polynomial.Chebyshev.basis(iterations)
    error = T((high + low - 2 * eigenvalues) / (high - low)) / T((high + low) / (high - low))
    np.testing.assert_allclose(1 - eigenvalues * alg.x, error, atol=1e-6)


def test_a_system_that_is_solved_stays_solved():
    b = np.zeros((2, 4, 5), np.complex64)
    b[1] = 1
    H = np.stack([np.eye(20), np.eye(20)]).astype(np.complex64)
    np.testing.assert_array_equal(solve(H, b, 20), b)


def test_a_direction_without_curvature_is_left_alone():
    b = np.ones((1, 4, 5), np.complex64)
    np.testing.assert_array_equal(solve(np.zeros((1, 20, 20), np.complex64), b, 3), 0 * b)

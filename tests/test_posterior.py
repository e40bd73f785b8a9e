"""Split Gibbs against posteriors known in closed form: Gaussian and two-mode priors, coils, on and off the grid.

Tolerances are two standard errors, which one in twenty checks of a perfect sampler exceeds; the seeds are ones where
none does.
"""

import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.io.cfl import read_cfl, write_cfl
from hggdp_plugin.linops import FFT2, Sense, kspace_diagonal
from hggdp_plugin.posterior import GaussianLikelihood, SplitGibbs, check_levels
from hggdp_plugin.schedule import NoiseSchedule, geometric
from hggdp_plugin.solvers import ConjugateGradient, Diagonal, run

SHAPE = (8, 8)
N = 64
#: E|n|^2 of a k-space sample.
NOISE_VAR = 0.05
#: Noise levels of the sampler. Closed forms are those of the prior smoothed by the last.
SIGMA_MAX, SIGMA_MIN = 1.0, 0.03
#: From this number of updates on the bias is below the standard errors of the tests.
UPDATES = 200
CHAINS = 100


def complex_array(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def random_covariance(rng, low, high):
    q, _ = np.linalg.qr(complex_array(rng, N, N))
    return (q * np.geomspace(low, high, N)) @ q.conj().T


@dataclass
class Mixture:
    """Mixture of normal distributions; covariances are per real channel, so that E|x - mean|^2 = 2 tr(covariance)."""

    weights: np.ndarray
    means: list[np.ndarray]
    covariances: list[np.ndarray]

    def __post_init__(self):
        self.eigen = [np.linalg.eigh(C) for C in self.covariances]

    def responsibilities(self, x, sigma=0.0):
        """Probability of each component (components, chains) given images with noise sigma."""
        logs = []
        for weight, mean, (values, vectors) in zip(self.weights, self.means, self.eigen, strict=True):
            d, v = (x.reshape(-1, N) - mean) @ vectors.conj(), values + sigma**2
            logs.append(np.log(weight) - 0.5 * (abs(d) ** 2 / v).sum(-1) - np.log(v).sum())
        r = np.exp(logs - np.max(logs, axis=0))
        return r / r.sum(0)

    def denoise(self, x, sigma):
        """The exact posterior mean of the image given x."""
        out = 0
        for r, mean, (values, vectors) in zip(self.responsibilities(x, sigma), self.means, self.eigen, strict=True):
            d = (x.reshape(-1, N) - mean) @ vectors.conj()
            out = out + r[:, None] * ((d * (values / (values + sigma**2))) @ vectors.T + mean)
        return out.reshape(x.shape).astype(np.complex64)

    def smoothed(self, sigma):
        return Mixture(self.weights, self.means, [C + sigma**2 * np.eye(N) for C in self.covariances])

    def posterior(self, A, y, noise_var):
        """The distribution given y = A x + noise with E|n|^2 = noise_var."""
        logs, means, covariances = [], [], []
        for weight, mean, C in zip(self.weights, self.means, self.covariances, strict=True):
            S, d = A @ C @ A.conj().T + noise_var / 2 * np.eye(len(A)), y - A @ mean
            gain = C @ A.conj().T @ np.linalg.inv(S)
            logs.append(np.log(weight) - 0.5 * (d.conj() @ np.linalg.solve(S, d)).real - np.linalg.slogdet(S)[1])
            means.append(mean + gain @ d)
            C = C - gain @ A @ C
            covariances.append((C + C.conj().T) / 2)
        weights = np.exp(logs - np.max(logs))
        return Mixture(weights / weights.sum(), means, covariances)


def sampling(coils, cartesian):
    """Maps, coordinates and weights of a scan that leaves about half of the image open."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    mps = (1.2 + np.cos(angles) * x + np.sin(angles) * y) * np.exp(1j * (angles + 0.5 * x))
    mps = np.ones((1, *SHAPE)) if coils == 1 else mps / np.sqrt((abs(mps) ** 2).sum(0))
    mps = mps.astype(np.complex64)
    if cartesian:
        mask = np.random.default_rng(1).random((1, *SHAPE)) < 0.4
        mask[:, 3:5, 3:5] = True
        return mps, None, mask.astype(np.float32)
    angles, radius = 1.94 * np.arange(4)[:, None], np.linspace(-4, 4, 10, endpoint=False)
    coord = np.stack([radius * np.sin(angles), radius * np.cos(angles)], axis=-1)
    return mps, coord.astype(np.float32), None


@dataclass
class Problem:
    mps: np.ndarray
    coord: np.ndarray | None
    weights: np.ndarray | None
    prior: Mixture
    y: np.ndarray
    posterior: Mixture

    @classmethod
    def make(cls, coils, cartesian, modes):
        rng = np.random.default_rng(0)
        mps, coord, weights = sampling(coils, cartesian)
        A = Sense(mps, (), coord, weights)
        matrix = cls(mps, coord, weights, None, None, None).matrix()
        mean = 0.5 * complex_array(rng, N)
        if modes == 1:
            prior = Mixture(np.ones(1), [mean], [random_covariance(rng, 0.02, 1.0)])
        else:
            # The modes differ where the data say little, so that both remain.
            direction = np.linalg.svd(matrix)[2][-6:].conj().sum(0) / 6**0.5
            covariances = 2 * [random_covariance(rng, 0.01, 0.05)]
            prior = Mixture(np.array([0.4, 0.6]), [mean, mean + 1.5 * direction], covariances)
        truth = np.mean(prior.means, axis=0) + 0.2 * complex_array(rng, N)
        y = A(truth.astype(np.complex64).reshape(SHAPE))
        y = y + (NOISE_VAR / 2) ** 0.5 * complex_array(rng, *y.shape)
        sampled = np.ones(y.shape, bool) if weights is None else np.broadcast_to(weights > 0, y.shape)
        y = y * sampled
        problem = cls(mps, coord, weights, prior, y, prior)
        return replace(problem, posterior=problem.condition(prior.smoothed(SIGMA_MIN)))

    def condition(self, prior):
        """The posterior in closed form."""
        A = self.matrix()
        sampled = np.ones(len(A), bool)
        if self.weights is not None:
            sampled = np.broadcast_to(self.weights > 0, self.y.shape).ravel()
        return prior.posterior(A[sampled], self.y.ravel()[sampled], NOISE_VAR)

    def matrix(self):
        A = Sense(self.mps, (), self.coord, self.weights)
        return np.stack([A(e.reshape(SHAPE)).ravel() for e in np.eye(N, dtype=np.complex64)], axis=1)

    def likelihood(self, rng, batch=None, noise_var=NOISE_VAR, max_iter=12, **options):
        A = Sense(self.mps, (CHAINS,) if batch is None else batch, self.coord, self.weights)
        form = Diagonal(FFT2(A.ishape), kspace_diagonal(self.mps, self.coord, self.weights))
        y = np.broadcast_to(self.y, A.oshape).copy()
        return GaussianLikelihood(A, y, noise_var, rng, solver=ConjugateGradient(max_iter, form), **options)

    def sample(self, updates, seed=3, **options):
        rng = np.random.default_rng(seed)
        x = np.zeros((CHAINS, *SHAPE), np.complex64)
        sigmas = geometric(SIGMA_MAX, SIGMA_MIN, updates)
        return run(SplitGibbs(self.prior.denoise, self.likelihood(rng), x, sigmas, rng, **options)).reshape(-1, N)


def assert_distributed(samples, mean, covariance):
    """Assert that mean and covariance of the samples (n, N) are within two standard errors.

    The samples are whitened with the covariance. Then n |mean|^2 is chi-square with 2 N degrees of freedom, and the
    sample covariance S is that of standard normal noise: its trace has the standard error sqrt(N / n), and
    |S - 1|^2 has the mean N^2 / n and the standard error sqrt(2) N / n.
    """
    n = len(samples)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (samples - mean).T).T
    assert abs(n * (abs(white.mean(0)) ** 2).sum() - 2 * N) < 2 * (4 * N) ** 0.5
    S = white.T @ white.conj() / (2 * n)
    error = 2 * (N / n) ** 0.5
    assert abs(np.trace(S).real - N) < error
    # A trace that is off by its error changes the distance by twice that over n.
    assert abs((abs(S - np.eye(N)) ** 2).sum() - N**2 / n) < 2 * 2**0.5 * N / n + 2 * N * error / n


def assert_two_modes(samples, posterior):
    """Assert that the samples are in the modes of the posterior as often as they should, and distributed as there."""
    r = posterior.responsibilities(samples)
    assert r.max(0).min() > 0.99  # the modes do not overlap
    mode, n, share = r.argmax(0), len(samples), posterior.weights[0]
    assert abs((mode == 0).mean() - share) < 2 * (share * (1 - share) / n) ** 0.5
    for j in range(2):
        assert_distributed(samples[mode == j], posterior.means[j], posterior.covariances[j])


scans = pytest.mark.parametrize(
    ("coils", "cartesian"),
    [(1, True), (3, True), (1, False), (3, False)],
    ids=["one coil", "three coils", "one coil, radial", "three coils, radial"],
)


@scans
def test_gaussian_prior(coils, cartesian):
    problem = Problem.make(coils, cartesian, modes=1)
    posterior = problem.posterior
    # The data determine some components of the image, and leave others open.
    shrinkage = np.linalg.eigvals(np.linalg.solve(problem.prior.covariances[0], posterior.covariances[0])).real
    assert shrinkage.min() < 0.1
    assert shrinkage.max() > 0.9
    assert_distributed(problem.sample(UPDATES), posterior.means[0], posterior.covariances[0])


@scans
def test_two_mode_prior(coils, cartesian):
    problem = Problem.make(coils, cartesian, modes=2)
    assert 0.3 < problem.posterior.weights[0] < 0.7
    assert_two_modes(problem.sample(UPDATES), problem.posterior)


@pytest.mark.parametrize("modes", [1, 2])
def test_more_updates_give_the_same_distribution(modes):
    problem = Problem.make(1, True, modes)
    samples, posterior = problem.sample(2 * UPDATES, seed=1), problem.posterior
    if modes == 2:
        assert_two_modes(samples, posterior)
    else:
        assert_distributed(samples, posterior.means[0], posterior.covariances[0])


def test_too_few_updates_are_noticed():
    problem = Problem.make(1, True, modes=1)
    with pytest.raises(AssertionError):
        assert_distributed(problem.sample(UPDATES // 10), problem.posterior.means[0], problem.posterior.covariances[0])


@pytest.mark.parametrize("variance", [0.0, 1.0, np.inf], ids=["point", "as the noise", "flat"])
def test_reverse_diffusion_is_exact_for_these_prior_variances(variance):
    """Prior variance relative to that of the noise that is left; x_rho = 1, one update without data."""
    rho, ratio = 0.5, 0.65
    variance *= (ratio * rho) ** 2

    def denoise(x, sigma):
        return x if variance == np.inf else x * np.float32(variance / (variance + sigma**2))

    x = np.ones((200, 200), np.complex64)
    alg = SplitGibbs(denoise, lambda variance, x: x, x, (rho,), np.random.default_rng(0), ratio=ratio)
    alg.update()
    left = (ratio * rho) ** 2
    if variance == np.inf:
        mean, expected = 1.0, rho**2 - left
    else:
        mean = (variance + left) / (variance + rho**2)
        expected = (variance + left) * (1 - mean)
    n = x.size
    # The second evaluation's weight is exact for the variance; the mean of a finite step is so to a few percent.
    assert abs(x.real.mean() - mean) < 0.06 * mean
    assert abs(x.imag.mean()) < 3 * (expected / n) ** 0.5
    for channel in (x.real, x.imag):
        assert abs(channel.var() / expected - 1) < 3 * (2 / n) ** 0.5


@scans
def test_gaussian_likelihood_is_drawn_exactly(coils, cartesian):
    problem = Problem.make(coils, cartesian, modes=1)
    variance, center = 0.3, complex_array(np.random.default_rng(5), N)
    target = problem.condition(Mixture(np.ones(1), [center], [variance * np.eye(N)]))
    draw = problem.likelihood(np.random.default_rng(13), max_iter=40)
    x = draw(variance, np.broadcast_to(center.reshape(SHAPE), (CHAINS, *SHAPE)).copy())
    assert_distributed(x.reshape(-1, N), target.means[0], target.covariances[0])


def test_data_without_noise_are_kept():
    problem = Problem.make(1, True, modes=1)
    variance, center = 0.3, complex_array(np.random.default_rng(5), N)
    draw = problem.likelihood(np.random.default_rng(13), noise_var=0.0)
    x = draw(variance, np.broadcast_to(center.reshape(SHAPE), (CHAINS, *SHAPE)).copy())
    k = sp.fft(x, axes=(-2, -1))
    measured = problem.weights[0] > 0
    np.testing.assert_allclose(k[:, measured], np.tile(problem.y[0, measured], (CHAINS, 1)), atol=1e-5)
    others = (k - sp.fft(center.reshape(SHAPE)))[:, ~measured]
    assert abs(others.mean()) < 3 * (2 * variance / others.size) ** 0.5
    assert abs((abs(others) ** 2).mean() / (2 * variance) - 1) < 3 / others.size**0.5


def test_state_and_arguments_of_the_callables(device):
    with device:
        x = device.xp.ones((2, 4, 4), np.complex64)
    calls = []

    def denoise(x, sigma):
        calls.append(("denoise", sigma))
        return x

    def draw(variance, x):
        calls.append(("draw", variance))
        return x

    with device:
        rng = device.xp.random.default_rng(0)
    alg = SplitGibbs(denoise, draw, x, (1.0, 0.8), rng, ratio=0.6)
    alg.update()
    assert alg.x is x
    assert alg.sigma == 1.0
    assert not alg.done()
    alg.update()
    assert alg.sigma == 0.8
    assert alg.done()
    first, *rest = calls
    assert first == ("draw", 1.0)
    names, values = zip(*rest, strict=True)
    assert names == 2 * ("denoise", "denoise", "draw")
    np.testing.assert_allclose(values, (1.0, 0.6, 0.8**2 - 0.6**2, 0.8, 0.48, 0.8**2 - 0.48**2))
    assert x.dtype == np.complex64


@pytest.mark.parametrize("n_batch_axes", [0, 1])
def test_items_of_a_batch_share_their_noise(n_batch_axes):
    problem = Problem.make(3, True, modes=1)
    rng = np.random.default_rng(0)
    draw = problem.likelihood(rng, (2,), n_batch_axes=n_batch_axes)
    x = np.zeros((2, *SHAPE), np.complex64)
    run(SplitGibbs(problem.prior.denoise, draw, x, (1.0, 0.7, 0.5), rng, n_batch_axes=n_batch_axes))
    assert (x[0] == x[1]).all() == bool(n_batch_axes)


def test_nothing_is_drawn_outside_the_support():
    problem = Problem.make(3, True, modes=1)
    support = np.ones(SHAPE, bool)
    support[:2] = False
    x = problem.likelihood(np.random.default_rng(0), (2,), support=support)(0.1, np.ones((2, *SHAPE), np.complex64))
    assert not x[:, :2].any()
    assert x[:, 2:].all()


@pytest.mark.parametrize(
    ("sigmas", "ratio", "message"),
    [
        ((), 0.65, "one positive noise level"),
        ((1.0, 0.0), 0.65, "one positive noise level"),
        ((0.5, 1.0), 0.65, "at most the same"),
        ((1.0, 0.6), 0.65, "use more levels"),
        ((1.0,), 0.5, "ratio"),
        ((1.0,), 1.0, "ratio"),
    ],
)
def test_levels_that_do_not_work_are_refused(sigmas, ratio, message):
    with pytest.raises(ValueError, match=message):
        check_levels(sigmas, ratio)


SHORT = NoiseSchedule.posterior(levels=6, sigma_max=0.1, sigma_min=0.02)


def test_posterior_schedule_draws_images_with_the_app(measurement, prior):
    m = measurement

    def draw(scale=1.0, seed=0):
        app = HGGDPRecon(scale * m.y, m.mps, noise_var=2e-4, prior=prior, schedule=SHORT, seed=seed, show_pbar=False)
        assert isinstance(app.alg, SplitGibbs)
        return app.run()

    image = draw()
    assert image.dtype == np.complex64
    np.testing.assert_array_equal(draw(), image)
    assert np.linalg.norm(draw(seed=1) - image) > 1e-3 * np.linalg.norm(image)
    c = 2 * np.exp(0.7j)
    scaled = HGGDPRecon(
        (c * m.y).astype(np.complex64), m.mps, noise_var=4 * 2e-4, prior=prior, schedule=SHORT, show_pbar=False
    ).run()
    np.testing.assert_allclose(scaled, c * image, atol=2e-3 * abs(image).max())


def test_slices_drawn_together_are_those_drawn_alone(measurement, prior):
    m = measurement
    options = {"noise_var": 2e-4, "prior": prior, "schedule": SHORT, "show_pbar": False}
    together = HGGDPRecon(np.stack([m.y, 0.5 * m.y[:, ::-1]]), m.mps, **options).run()
    alone = HGGDPRecon(m.y, m.mps, **options).run()
    np.testing.assert_allclose(together[0], alone, atol=1e-3 * abs(alone).max())


def test_draws_of_the_app_keep_exact_data(make_measurement, prior):
    m = make_measurement(coils=1)
    image = HGGDPRecon(m.y, prior=prior, schedule=SHORT, show_pbar=False).run()
    k = sp.fft(image, axes=(-2, -1))
    np.testing.assert_allclose(k[m.mask], m.y[0, m.mask], atol=1e-4 * abs(k).max())


def test_unsuitable_arguments_of_the_app_are_refused(measurement, prior):
    m = measurement
    with pytest.raises(ValueError, match="comm"):
        HGGDPRecon(m.y, m.mps, comm=object(), prior=prior, schedule=SHORT, show_pbar=False)
    with pytest.raises(ValueError, match="use more levels"):
        HGGDPRecon(m.y, m.mps, prior=prior, schedule=NoiseSchedule.posterior(levels=3), show_pbar=False)


def bart_samples(problem, folder, samples):
    """Samples (n, N) by BART's preconditioned Langevin dynamics, for components of equal, isotropic covariance."""
    # BART's noise has E|n|^2 = 1, and so have its variances.
    unit = NOISE_VAR**-0.5
    files = {
        "mean": np.stack(problem.prior.means).reshape(2, 1, *SHAPE),
        "var": np.full((2, 1, 1, 1), 2 * problem.prior.covariances[0][0, 0].real),
        "w": problem.prior.weights.reshape(2, 1, 1, 1),
        "k": unit * problem.y[:, None],
        "s": unit * problem.mps[:, None],
        "p": problem.weights[:, None],
        "out": np.zeros((samples, *14 * (1,))),  # it must exist
    }
    for name, array in files.items():
        write_cfl(folder / f"{name}.cfl", array.astype(np.complex64))
    options = (
        f"--dims 8:8:1 --sigma max=2,min={2**0.5 * SIGMA_MIN} -S{samples} -N40 -K6 --gamma=0.5"
        " --gmm mean=mean,var=var,w=w --posterior k=k,s=s,p=p,precond=6"
    )
    command = [Path(sys.executable).parent / "bartorch", "sample", *options.split(), "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read_cfl(folder / "out.cfl").reshape(samples, N)


@pytest.mark.skipif(find_spec("bartorch") is None, reason="needs BART: pip install bartorch")
def test_bart_draws_from_the_same_distribution(tmp_path):
    problem = Problem.make(3, True, modes=2)
    prior = replace(problem.prior, covariances=2 * [0.03 * np.eye(N)])
    posterior = problem.condition(prior.smoothed(SIGMA_MIN))
    problem = replace(problem, prior=prior, posterior=posterior)
    ours, theirs = problem.sample(UPDATES), bart_samples(problem, tmp_path, 32)
    modes = [posterior.responsibilities(x).argmax(0) for x in (ours, theirs)]
    share, other = (mode.mean() for mode in modes)
    assert abs(share - other) < 2 * (0.25 / len(ours) + 0.25 / len(theirs)) ** 0.5
    for j in range(2):
        a, b = (
            np.linalg.solve(np.linalg.cholesky(posterior.covariances[j]), x[mode == j].T)
            for x, mode in zip((ours, theirs), modes, strict=True)
        )
        distance = (abs(a.mean(1) - b.mean(1)) ** 2).sum() / (1 / a.shape[1] + 1 / b.shape[1])
        assert abs(distance - 2 * N) < 3 * (4 * N) ** 0.5
        spreads = [np.log(x.var(1, ddof=1).sum()) for x in (a, b)]
        # A few per cent more: BART's steps have a finite size.
        assert abs(spreads[0] - spreads[1]) < 2 * (1 / a.size + 1 / b.size) ** 0.5 + 0.05

"""Samplers on real problems: steps by hand in plain NumPy, with and without the quirks of the authors' code."""

import h5py
import numpy as np
import pytest
import sigpy as sp
import torch
from helpers import relative_error as error

from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.random import complex_normal
from hggdp_plugin.schedule import HGGDP, Langevin, NoiseSchedule
from hggdp_plugin.simulation import head_phantom

SHAPE = (12, 10)
REFERENCE = NoiseSchedule.hggdp(levels=2, steps=2, reference_noise=True)
SEED = 4


def score(xp, x, sigma):
    """A score that ties the channels (2K, H, W) and the pixels together and is not linear."""
    return (xp.tanh(xp.roll(x, (1, 1), (-3, -1))) - x) / (0.2 + sigma**2)


class Network(torch.nn.Module):
    stride, sigma_min, sigma_max = 1, 0.001, 10.0

    def __init__(self, views):
        super().__init__()
        self.views = views

    def forward(self, x, sigma):
        s = sigma[:, None, None, None]
        return x + s**2 * score(torch, x, s)


@pytest.fixture
def problem(make_measurement):
    def make(coils, views, schedule, noise_var=None):
        m = make_measurement(coils=coils, shape=SHAPE)
        prior = ScorePrior(Network(views), autocast=False)
        options = {"prior": prior, "seed": SEED, "schedule": schedule, "max_cg_iter": 60, "show_pbar": False}
        app = HGGDPRecon(m.y, m.mps if coils > 1 else None, noise_var=noise_var, **options)
        return app, app.problem.y.astype(complex), m.mps.astype(complex), m.mask

    return make


def fourier(x):
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes), norm="ortho"), axes)


def inverse(k):
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k, axes), norm="ortho"), axes)


def normal_pairs(rng, shape):
    """The package's normal noise as real numbers (*shape, 2)."""
    return complex_normal(rng, shape)[..., None].view(np.float32)


def channels(pairs):
    """Numbers (..., K, H, W, 2) as real channels (..., 2K, H, W): re1, im1, re2, im2, ..."""
    planes = np.moveaxis(pairs.astype(float), -1, -3)
    return planes.reshape(*planes.shape[:-4], -1, *planes.shape[-2:])


def image(x):
    """The mean of the views in channels (2K, H, W), complex."""
    return x[0::2].mean(0) + 1j * x[1::2].mean(0)


def copies(z, views):
    return np.stack([z.real, z.imag] * views)


def replaced(x, y, mask):
    """F^-1 (y + (1 - M) F x): exact data consistency of one coil."""
    return inverse(y[0] + (1 - mask) * fourier(x))


def likely(x, y, mps, mask, ratio):
    """argmin_u |M F S u - y|^2 + ratio |u - x|^2, by the matrix."""
    pixels = np.eye(x.size).reshape(-1, *SHAPE)
    A = (mask * fourier(mps * pixels[:, None])).reshape(len(pixels), -1).T
    normal = A.conj().T @ A + ratio * np.eye(len(pixels))
    return np.linalg.solve(normal, A.conj().T @ y.ravel() + ratio * x.ravel()).reshape(SHAPE)


@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize("noises", [1, 3])
@pytest.mark.parametrize("views", [1, 3, 5])
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("quirks", [True, False])
def test_steps_are_those_of_the_paper(quirks, coils, views, noises, updates, problem):
    """A third step is at the second noise level. With the quirks, noise_var changes nothing."""
    schedule = NoiseSchedule.hggdp(levels=2, steps=2, reference_noise=quirks, n_noise_samples=noises)
    noise_var = 0.1 if quirks or coils > 1 else 0
    app, y, mps, mask = problem(coils, views, schedule, noise_var)
    for _ in range(updates):
        app.alg.update()

    rng = np.random.default_rng(SEED)
    x0 = 2 * channels(rng.random((views, *SHAPE, 2), dtype=np.float32)) - 1
    x01 = [x0] * noises
    for sigma in (1.0, 1.0, 0.01)[:updates]:
        a = 0.05 * 3e-5 * (sigma / 0.01) ** 2
        x0 = x0 + a * sum(score(np, x, sigma) for x in x01) / noises
        shape = (noises, views, *SHAPE)
        u = channels(rng.random((*shape, 2), dtype=np.float32) if quirks else normal_pairs(rng, shape))
        before, x = x0, image(x0)
        if coils == 1:
            x = replaced(x, y, mask)
        elif quirks:
            x = x + (mps.conj() * inverse(y - mask * fourier(mps * x))).sum(0)
        else:
            x = likely(x, y, mps, mask, 0.5 * noise_var / abs(app.problem.scale[0, 0]) ** 2 / (a / views))
        x0 = copies(x, views)
        x01 = [(before if quirks else x0) + np.sqrt(2 * a) * noise for noise in u]

    np.testing.assert_allclose(app.alg.x, np.broadcast_to(x, (views, *SHAPE)), atol=1e-5 if quirks else 5e-5)
    np.testing.assert_allclose(app.image, x * app.problem.scale, rtol=1e-4, atol=1e-5 * abs(app.problem.scale).max())


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("coils", [1, 4])
def test_langevin_dynamics_of_views(coils, views, updates, problem):
    """The views keep their noise, and their deviations from the mean."""
    noise_var = 0.05
    schedule = NoiseSchedule((1.0, 0.01), steps=2, rule=Langevin(0.015), from_data=False)
    app, y, mps, mask = problem(coils, views, schedule, noise_var=noise_var if coils > 1 else 0)
    for _ in range(updates):
        app.alg.update()

    rng = np.random.default_rng(SEED)
    x = np.tile(2 * channels(rng.random((1, *SHAPE, 2), dtype=np.float32)) - 1, (views, 1, 1))
    for _ in range(updates):
        a = 0.05 * 3e-5 * (1 / 0.01) ** 2
        n = channels(normal_pairs(rng, (views, *SHAPE)))
        x = x + a * score(np, x, 1.0) + np.sqrt(2 * a) * n
        mean = image(x)
        if coils == 1:
            z = replaced(mean, y, mask)
        else:
            z = likely(mean, y, mps, mask, 0.5 * noise_var / abs(app.problem.scale[0, 0]) ** 2 / (a / views))
        x = x + copies(z - mean, views)

    expected = x[0::2] + 1j * x[1::2]
    np.testing.assert_allclose(app.alg.x.reshape(expected.shape), expected, atol=2e-4)


def recon(y, mps, prior, schedule=REFERENCE, **options):
    return HGGDPRecon(y, mps, prior=prior, schedule=schedule, show_pbar=False, **options).run()


@pytest.mark.parametrize("noises", [1, 2])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("quirks", [True, False])
def test_same_seed_same_image_and_a_batch_is_its_slices(quirks, coils, views, noises, make_measurement, make_network):
    m = make_measurement(coils=coils)
    prior = ScorePrior(make_network(views), autocast=False)
    schedule = NoiseSchedule.hggdp(levels=2, steps=2, reference_noise=quirks, n_noise_samples=noises)
    batch = np.stack([m.y, 3j * m.y, 0 * m.y, 1e-3 * m.y[:, ::-1]]).reshape(2, 2, *m.y.shape)
    together = recon(batch, m.mps, prior, schedule, seed=1)
    np.testing.assert_array_equal(recon(batch, m.mps, prior, schedule, seed=1), together)
    assert error(recon(batch, m.mps, prior, schedule, seed=2), together) > 1e-3
    for i in ((0, 0), (0, 1), (1, 1)):
        assert error(together[i], recon(batch[i], m.mps, prior, schedule, seed=1)) < 1e-4


def test_it_may_start_at_the_least_squares_image(measurement, prior):
    m = measurement
    schedule = NoiseSchedule((0.01,), rule=HGGDP(eps=1e-9, reference_noise=True))
    assert error(recon(m.y, m.mps, prior, schedule), m.image) < 0.5


def test_zero_where_no_coil_sees(measurement, prior):
    mps = measurement.mps.copy()
    mps[:, :4] = 0
    assert not recon(measurement.y, mps, prior)[:4].any()


def test_data_for_which_the_quirks_fail_are_refused_by_name(measurement, prior):
    m = measurement
    coord = np.zeros((5, 2), np.float32)
    for name, change in {
        "coord": {"coord": coord, "y": m.y[:, 0, :5]},
        "mps": {"mps": 2 * m.mps},
        "weights": {"weights": 2.0 * m.mask},
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: reference_noise"):
            recon(**({"y": m.y, "mps": m.mps, "prior": prior} | change))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file as the authors' code writes it, of a narrow network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RefineNet(views=3, width=4)
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint_100000.pth"
    optimizer = torch.optim.Adam(network.parameters())
    torch.save([{f"module.{k}": v for k, v in network.state_dict().items()}, optimizer.state_dict()], path)
    return path


@pytest.mark.parametrize("coils", [1, 4])
def test_a_checkpoint_of_the_authors_code_reconstructs(coils, checkpoint, make_measurement):
    m = make_measurement(coils=coils, shape=(21, 16))
    result = recon(m.y, m.mps, str(checkpoint))
    assert result.shape == m.image.shape
    assert result.dtype == np.complex64
    assert np.isfinite(result).all()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    np.save(folder / "phantom.npy", head_phantom((48, 40)))
    options = ["--mask", "random", "-R", "2", "--calib", "16", "--coils", "4"]
    assert hggdp(["simulate", str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), *options]) == 0
    return folder / "raw.h5"


def test_on_the_command_line(checkpoint, raw, tmp_path):
    output = tmp_path / "image.npy"
    options = ["--prior", str(checkpoint), "--schedule", "hggdp", "--reference-noise", "-N", "2", "-K", "2", "-q"]
    assert hggdp(["recon", str(raw), "-o", str(output), *options]) == 0
    with h5py.File(raw) as file:
        reference = file["reference/image"][()]
    result = np.load(output)
    assert result.shape[-2:] == reference.shape[-2:]
    assert np.isfinite(result).all()


@pytest.mark.parametrize("schedule", ["fast", "hggdp"])
def test_options_that_do_not_fit_are_one_line(schedule, checkpoint, raw, tmp_path, capsys):
    """The fast schedule; maps with which the data consistency of the paper would diverge."""
    np.save(tmp_path / "maps.npy", np.ones((4, 48, 40), np.complex64))
    options = ["--schedule", schedule, "--reference-noise", "--prior", str(checkpoint), "-q"]
    maps = ["--mps", str(tmp_path / "maps.npy")]
    assert hggdp(["recon", str(raw), "-o", str(tmp_path / "no.npy"), *options, *maps]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("requires --schedule hggdp" if schedule == "fast" else "mps: ") in said


@pytest.mark.cuda
@pytest.mark.parametrize("views", [1, 3])
def test_on_a_gpu(views, measurement, make_network):
    m, prior = measurement, ScorePrior(make_network(views), autocast=False)
    app = HGGDPRecon(m.y, m.mps, prior=prior, device=sp.Device(0), schedule=REFERENCE, show_pbar=False)
    result = app.run()
    assert sp.get_device(result) == sp.Device(0)
    assert result.dtype == np.complex64
    assert np.isfinite(sp.to_device(result)).all()
    again = recon(m.y, m.mps, prior, device=sp.Device(0))
    assert error(sp.to_device(again), sp.to_device(result)) < 1e-5

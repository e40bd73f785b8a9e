"""HGGDPRecon: its images, on which data, and what it refuses."""

import threading

import h5py
import numpy as np
import pytest
import sigpy as sp
import torch
from helpers import radial
from helpers import relative_error as error

from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.prior import ScorePrior, has_bfloat16
from hggdp_plugin.schedule import FewStep, Langevin, NoiseSchedule, geometric
from hggdp_plugin.simulation import coil_maps, head_phantom

FAST = NoiseSchedule(geometric(0.2, 0.02, 6), rule=FewStep(eta=0.3, momentum=0.3))
LANGEVIN = NoiseSchedule((0.2, 0.1), steps=3, rule=Langevin(eps=0.1), from_data=False)
HGGDP = NoiseSchedule.hggdp(levels=2, steps=3)
SCHEDULES = pytest.mark.parametrize("schedule", [FAST, LANGEVIN, HGGDP], ids=["fast", "langevin", "hggdp"])


def recon(y, mps, prior, schedule=FAST, **options):
    return HGGDPRecon(y, mps, prior=prior, schedule=schedule, show_pbar=False, **options).run()


def case(name, m):
    """A measurement as arguments y, mps and options."""
    if name == "cartesian":
        return m.y, m.mps, {}
    if name == "single coil":
        return m.mask * sp.fft(m.image, axes=(-2, -1))[None], None, {}
    if name == "weights":
        return m.y, m.mps, {"weights": m.mask * np.float32(0.5)}
    coord = radial(m.image.shape, 24, 40)
    return sp.nufft(m.mps * m.image, coord), m.mps, {"coord": coord}


CASES = ["cartesian", "single coil", "weights", "radial"]


@pytest.mark.parametrize("name", CASES)
@SCHEDULES
def test_same_seed_same_image(name, schedule, measurement, prior):
    y, mps, options = case(name, measurement)
    first = recon(y, mps, prior, schedule, seed=1, **options)
    assert first.shape == measurement.image.shape
    assert first.dtype == np.complex64
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(recon(y, mps, prior, schedule, seed=1, **options), first)
    assert error(recon(y, mps, prior, schedule, seed=2, **options), first) > 1e-5


@SCHEDULES
def test_same_seed_same_image_with_views(schedule, measurement, make_network):
    m, prior = measurement, ScorePrior(make_network(3), autocast=False)
    first = recon(m.y, m.mps, prior, schedule)
    np.testing.assert_array_equal(recon(m.y, m.mps, prior, schedule), first)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("factor", [1, 1e-6, 1e6, np.exp(2j)], ids=["1", "1e-6", "1e6", "phase"])
def test_the_image_follows_the_units_and_the_phase_of_the_data(name, factor, measurement, prior):
    y, mps, options = case(name, measurement)
    expected = recon(y, mps, prior, **options)
    scaled = recon((factor * y).astype(np.complex64), mps, prior, **options)
    assert error(scaled / factor, expected) < 3e-4


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="needs a processor with bfloat16")
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("factor", [1e-6, 1e6, np.exp(2j)], ids=["1e-6", "1e6", "phase"])
def test_the_image_follows_the_data_in_bfloat16(views, factor, measurement, make_network):
    """Up to rounding, of which the network makes more: an eighth of its precision, 2^-8."""
    m, prior = measurement, ScorePrior(make_network(views))
    expected = recon(m.y, m.mps, prior)
    assert error(recon((factor * m.y).astype(np.complex64), m.mps, prior) / factor, expected) < 2**-11


@SCHEDULES
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_its_slices(name, views, schedule, measurement, make_network):
    y, mps, options = case(name, measurement)
    prior = ScorePrior(make_network(views), autocast=False)
    batch = np.stack([y, 3j * y[:, ::-1], 0 * y, 1e-3 * y]).reshape(2, 2, *y.shape)
    together = recon(batch, mps, prior, schedule, **options)
    assert together.shape == (2, 2, *measurement.image.shape)
    for i in (0, 1, 3):
        single = recon(batch.reshape(4, *y.shape)[i], mps, prior, schedule, **options)
        assert error(together.reshape(4, *single.shape)[i], single) < 3e-4


def test_weights_of_each_slice(measurement, prior):
    m = measurement
    weights = np.float32([1, 0.04])[:, None, None, None] * m.mask
    together = recon(np.stack([m.y, m.y]), m.mps, prior, weights=weights)
    for i in range(2):
        assert error(together[i], recon(m.y, m.mps, prior, weights=weights[i])) < 1e-4


def test_maps_of_each_slice(measurement, prior):
    m = measurement
    mps = np.stack([m.mps, m.mps[::-1]])
    together = recon(np.stack([m.y, m.y]), mps, prior)
    for i in range(2):
        assert error(together[i], recon(m.y, mps[i], prior)) < 1e-4


@pytest.mark.parametrize("name", ["cartesian", "weights", "radial"])
def test_coils_in_parts_give_the_same_image(name, measurement, prior):
    y, mps, options = case(name, measurement)
    assert error(recon(y, mps, prior, coil_batch_size=3, **options), recon(y, mps, prior, **options)) < 1e-4


@pytest.mark.parametrize("shape", [(21, 17), (33, 12)])
def test_odd_sizes(shape, make_measurement, prior):
    m = make_measurement(shape=shape)
    image = recon(m.y, m.mps, prior)
    assert image.shape == shape
    assert error(image, m.image) < error((m.mps.conj() * sp.ifft(m.y, axes=(-2, -1))).sum(0), m.image)


@SCHEDULES
@pytest.mark.parametrize("views", [1, 3])
def test_a_single_coil_keeps_its_samples(views, schedule, make_measurement, make_network):
    """Without noise_var they are exact, in several slices with a mask of their own."""
    m = make_measurement(coils=1)
    y = np.stack([m.y, m.y * (np.arange(18) % 3 > 0)])
    image = recon(y, None, ScorePrior(make_network(views), autocast=False), schedule)
    k = sp.fft(image, axes=(-2, -1))
    np.testing.assert_allclose(k[y[:, 0] != 0], y[y != 0], atol=1e-5 * abs(y).max())


def test_maps_of_ones_are_the_same_as_no_maps(make_measurement, prior):
    m = make_measurement(coils=1)
    np.testing.assert_array_equal(recon(m.y, m.mps, prior), recon(m.y, None, prior))


def test_the_noise_variance_decides_how_close_the_data_are(measurement, prior):
    m = measurement
    residual = []
    for noise_var in (1e-6, 1e-2, 1e2):
        app = HGGDPRecon(m.y, m.mps, noise_var=noise_var, prior=prior, schedule=FAST, show_pbar=False)
        app.run()
        residual.append(np.linalg.norm(app.problem.A(app.alg.x) - app.problem.y))
    assert residual[0] < residual[1] < residual[2]


def test_arguments_are_left_as_they_were(measurement, prior):
    m = measurement
    arrays = [m.y.copy(), m.mps.copy(), m.mask.astype(np.float32)]
    for array in arrays:
        array.flags.writeable = False
    recon(arrays[0], arrays[1], prior, weights=arrays[2])
    np.testing.assert_array_equal(arrays[0], m.y)
    np.testing.assert_array_equal(arrays[1], m.mps)


def test_other_precisions_and_byte_orders_are_accepted(measurement, prior):
    m = measurement
    expected = recon(m.y, m.mps, prior)
    for dtype in (np.complex128, ">c8"):
        image = recon(m.y.astype(dtype), m.mps.astype(dtype), prior)
        assert image.dtype == np.complex64
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
        lambda a: np.ascontiguousarray(a[..., ::-1, :])[..., ::-1, :],
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    ],
    ids=["Fortran", "moveaxis", "negative strides", "steps"],
)
@pytest.mark.parametrize("name", CASES)
def test_memory_layouts_do_not_matter(name, layout, measurement, prior):
    y, mps, options = case(name, measurement)
    expected = recon(y, mps, prior, **options)
    image = recon(
        layout(y), None if mps is None else layout(mps), prior, **{key: layout(a) for key, a in options.items()}
    )
    # The order of sums follows the layout; NUFFT and conjugate gradients amplify its rounding.
    rounding = 3e-4 if name == "radial" else 1e-5
    np.testing.assert_allclose(image, expected, atol=rounding * abs(expected).max())


def test_arrays_of_other_libraries_are_taken(measurement, prior, tmp_path):
    y, mps = measurement.y, measurement.mps
    expected = recon(y, mps, prior)
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        file["y"], file["mps"] = y, mps
        for arrays in (
            (file["y"], file["mps"]),
            (torch.from_numpy(y), torch.from_numpy(mps).requires_grad_()),
            (y.tolist(), mps.tolist()),
            (list(y), list(mps)),
        ):
            np.testing.assert_array_equal(recon(*arrays, prior), expected)


def test_a_number_is_a_weight(measurement, prior):
    expected = recon(measurement.y, measurement.mps, prior)
    np.testing.assert_array_equal(recon(measurement.y, measurement.mps, prior, weights=1), expected)


def test_weights_of_what_was_not_sampled_are_logged(measurement, prior, caplog):
    recon(measurement.y, measurement.mps, prior, weights=measurement.mask)
    assert caplog.text == ""
    recon(measurement.y, measurement.mps, prior, weights=np.ones_like(measurement.mask))
    assert "counts as measured" in caplog.text


def test_the_image_is_zero_where_no_coil_sees(measurement, prior):
    mps = measurement.mps.copy()
    mps[:, :4] = 0
    image = recon(measurement.y, mps, prior)
    assert not image[:4].any()
    assert image[4:].any()


class Normal(torch.nn.Module):
    """The denoiser of images of independent normal pixels of variance c per real channel, from K views."""

    stride, sigma_min, sigma_max, c = 1, 0.01, 10.0, 0.08

    def __init__(self, views: int) -> None:
        super().__init__()
        self.views = views

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        mean = x.unflatten(1, (self.views, 2)).mean(1).repeat(1, self.views, 1, 1)
        return mean * (self.c / (self.c + sigma**2 / self.views))[:, None, None, None]


@pytest.mark.parametrize("views", [1, 3])
def test_it_samples_the_posterior(views):
    """Normal pixels, one coil, noise: every k-space sample is known in closed form, in mean and variance.

    The pixels are the samples of the statistics. The views' mean carries the noise sigma^2 / K of the last level.
    """
    rng = np.random.default_rng(0)
    shape, c, eps, sigma = (64, 64), Normal.c, 0.06, 0.3
    mask = rng.random(shape) < 0.5
    y = mask * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    schedule = NoiseSchedule((0.5, sigma), steps=200, rule=Langevin(eps))
    prior = ScorePrior(Normal(views), autocast=False)
    app = HGGDPRecon(y[None], noise_var=0.5, prior=prior, schedule=schedule, show_pbar=False)
    app.run()
    x = app.alg.x if views == 1 else app.alg.x.mean(0)
    k = sp.fft(x, axes=(-2, -1))
    variance = c + sigma**2 / views
    noise_var = float(0.5 * 0.5 / abs(app.problem.scale[0, 0]) ** 2)  # per real channel
    gain = variance / (variance + noise_var)

    n = 2 * int(mask.sum())
    unmeasured = k[~mask]
    measured = k[mask] - gain * app.problem.y[0][mask]
    # The step of the views' mean widens by step / (2 variance) and narrows by step / noise_var at most.
    step = eps * sigma**2 / views
    for deviation, expected, bias in (
        (unmeasured, variance, step / variance),
        (measured, gain * noise_var, step * (1 / variance + 1 / noise_var)),
    ):
        channels = np.stack([deviation.real, deviation.imag])
        assert abs(channels.mean()) < 5 * (expected / n) ** 0.5
        assert abs(channels.var() / expected - 1) < 5 * (2 / n) ** 0.5 + bias
    # The measured samples are where the data draw them: the slope of k on y is the gain.
    data = app.problem.y[0][mask]
    slope = np.vdot(data, k[mask]).real / np.vdot(data, data).real
    assert abs(slope - gain) < 5 * (gain * noise_var / np.vdot(data, data).real) ** 0.5


class Ranks:
    """Processes that hold different coils, as threads."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.sent = size, threading.Barrier(size, timeout=30), {}

    def run(self, work):
        """Results of work(comm), one for each rank."""
        results = {}

        def target(rank):
            results[rank] = work(Rank(self, rank))

        threads = [threading.Thread(target=target, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[rank] for rank in range(self.size)]


class Rank:
    """One of them, as a SigPy communicator."""

    def __init__(self, ranks: Ranks, rank: int) -> None:
        self.ranks, self.size, self.rank = ranks, ranks.size, rank

    def allreduce(self, array):
        self.ranks.sent[self.rank] = array.copy()
        self.ranks.barrier.wait()
        total = sum(self.ranks.sent[rank] for rank in range(self.size))
        self.ranks.barrier.wait()
        array[...] = total


@pytest.mark.parametrize("noise_var", [1e-4, None])
def test_coils_split_among_processes_give_the_image_of_all(noise_var, measurement, prior):
    m = measurement
    mps = m.mps.copy()
    mps[:2, :5] = 0  # where the first process sees nothing
    mps[:, :2] = 0
    weights = m.mask.astype(np.float32)

    def work(comm):
        mine = slice(2 * comm.rank, 2 * comm.rank + 2)
        return recon(m.y[mine], mps[mine], prior, noise_var=noise_var, weights=weights, comm=comm)

    first, second = Ranks(2).run(work)
    np.testing.assert_array_equal(first, second)
    whole = recon(m.y, mps, prior, noise_var=noise_var, weights=weights)
    assert error(first, whole) < 1e-4


def test_the_bar_shows_level_sigma_and_residual(measurement, prior, capsys):
    HGGDPRecon(measurement.y, measurement.mps, prior=prior, schedule=FAST).run()
    bar = capsys.readouterr().err.split("\r")[-1]
    assert "HGGDPRecon: 100%" in bar
    assert "level=6/6, sigma=0.02, residual=" in bar


def test_the_bar_can_be_switched_off(measurement, prior, capsys):
    recon(measurement.y, measurement.mps, prior)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def bad(m):
    y, mps = m.y, m.mps
    nan = np.full(y.shape, np.nan, np.complex64)
    coord = radial(m.image.shape, 24, 40)
    return {
        "y": [
            {"y": y[0]},
            {"y": abs(y)},
            {"y": nan},
            {"y": 0 * y},
            {"y": y, "coord": coord},
            {"y": None},
            {"y": [[1, 2], [3]]},
            {"y": sp.fft(np.stack([y] * 16, axis=1), axes=(1,)), "mps": np.stack([mps] * 16, axis=1)},
        ],
        "mps": [
            {"mps": None},
            {"mps": mps[:3]},
            {"mps": mps[0]},
            {"mps": mps[:, 1:]},
            {"mps": np.stack([mps, mps])},
            {"mps": nan},
            {"mps": 0 * mps},
            {"mps": np.stack([mps, mps], axis=1), "y": np.stack([y, y], axis=1)},
            {"mps": "maps.npy"},
            {"mps": None, "y": y[:1, 0, :1].repeat(960).reshape(1, 24, 40), "coord": coord},
        ],
        "weights": [
            {"weights": m.mask[1:]},
            {"weights": -1.0 * m.mask},
            {"weights": np.nan * m.mask},
            {"weights": np.stack([y, y])},
            {"weights": m.mask * 1j},
            {"weights": 0 * m.mask},
        ],
        "coord": [
            {"coord": coord[..., :1]},
            {"coord": coord[0, 0]},
            {"y": sp.nufft(mps * m.image, coord), "coord": coord / max(m.image.shape)},
        ],
        "schedule": [{"schedule": "hggdp"}],
        "noise_var": [
            {"noise_var": [0.1]},
            {"noise_var": -1.0},
            {"noise_var": float("nan")},
            {"noise_var": float("inf")},
        ],
        "coil_batch_size": [{"coil_batch_size": 0}, {"coil_batch_size": -2}],
        "max_cg_iter": [{"max_cg_iter": 0}],
        "prior": [{"prior": "no-such-prior"}, {"prior": 0.01}, {"prior": 0}],
        "device": [{"device": "cpu"}, {"device": torch.device("cpu")}],
        "seed": [{"seed": "a"}, {"seed": -1}, {"seed": 0.5}, {"seed": None}],
    }


def test_the_unit_of_coordinates_is_doubted(measurement, prior, caplog):
    matrix = measurement.image.shape
    coord = radial(matrix, 24, 40)
    y = sp.nufft(measurement.mps * measurement.image, coord)
    HGGDPRecon(y, measurement.mps, coord=coord, prior=prior)
    assert not caplog.records
    HGGDPRecon(y, measurement.mps, coord=coord * 0.3, prior=prior)
    (record,) = caplog.records
    assert f"largest coordinate is {0.3 * abs(coord).max():.4g}" in record.message
    assert f"expected about {max(matrix) / 2:g}" in record.message


def test_images_and_corners_in_place_of_kspace_are_warned_of(prior, caplog):
    mps = coil_maps(2, (64, 64))
    images = (mps * head_phantom((64, 64))[0]).astype(np.complex64)
    ksp = sp.fft(images, axes=(1, 2))
    for y, says in ((images, "Is it an image?"), (np.fft.ifftshift(ksp, axes=(1, 2)), "fftshift")):
        caplog.clear()
        HGGDPRecon(y, mps, prior=prior)
        (record,) = caplog.records
        assert says in record.message
    caplog.clear()
    noise = np.random.default_rng(0).standard_normal((*images.shape, 2)) @ np.array([1, 1j])
    for y in (ksp, noise):  # a slice beside the object is no mistake
        HGGDPRecon(y.astype(np.complex64), mps, prior=prior)
    assert not caplog.records


@pytest.mark.parametrize(
    "name",
    [
        "y",
        "mps",
        "weights",
        "coord",
        "noise_var",
        "coil_batch_size",
        "max_cg_iter",
        "prior",
        "schedule",
        "device",
        "seed",
    ],
)
def test_bad_arguments_are_refused_by_name(name, measurement, prior):
    good = {"y": measurement.y, "mps": measurement.mps, "prior": prior, "schedule": FAST, "show_pbar": False}
    for change in bad(measurement)[name]:
        with pytest.raises(ValueError, match=rf"^{name}\b") as refusal:
            HGGDPRecon(**(good | change))
        assert "\n" not in str(refusal.value)


def test_a_device_that_is_not_there_is_refused(measurement, prior):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="device"):
        recon(measurement.y, measurement.mps, prior, device=sp.Device(0))


@pytest.mark.cuda
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name, measurement, prior):
    """Without random noise it gives the image of the CPU, from arrays on either, and the result stays there."""
    y, mps, options = case(name, measurement)
    schedule = NoiseSchedule(geometric(0.2, 0.02, 6))
    expected = recon(y, mps, prior, schedule, **options)
    for arrays in ((y, mps), (sp.to_device(y, 0), None if mps is None else sp.to_device(mps, 0))):
        image = recon(*arrays, prior, schedule, device=sp.Device(0), **options)
        assert sp.get_device(image) == sp.Device(0)
        assert image.dtype == np.complex64
        assert error(sp.to_device(image), expected) < 1e-3


@pytest.mark.cuda
@SCHEDULES
@pytest.mark.parametrize("views", [1, 3])
def test_same_seed_same_image_on_a_gpu(views, schedule, measurement, make_network):
    m, prior = measurement, ScorePrior(make_network(views), autocast=False)
    first = sp.to_device(recon(m.y, m.mps, prior, schedule, device=sp.Device(0)))
    assert error(sp.to_device(recon(m.y, m.mps, prior, schedule, device=sp.Device(0))), first) < 1e-5


def test_lamda_is_the_old_name_of_the_noise_variance(measurement, prior):
    m = measurement
    expected = recon(m.y, m.mps, prior, noise_var=1e-3)
    with pytest.warns(DeprecationWarning, match="lamda is now called noise_var"):
        np.testing.assert_array_equal(recon(m.y, m.mps, prior, lamda=1e-3), expected)


@pytest.mark.parametrize(("lamda", "named"), [((), {}), ((1e-3,), {}), ((None,), {}), ((), {"lamda": 1e-3})])
def test_the_old_order_of_arguments_still_works(lamda, named, measurement, prior):
    m, noise_var = measurement, named.get("lamda", *lamda or (None,))
    with pytest.warns(DeprecationWarning, match="give what follows mps by name"):
        app = HGGDPRecon(m.y, m.mps, prior, *lamda, **named, schedule=FAST, show_pbar=False)
    np.testing.assert_array_equal(app.run(), recon(m.y, m.mps, prior, noise_var=noise_var))


def test_weights_may_be_named_beside_a_prior_in_the_old_place(measurement, prior):
    m, weights = measurement, measurement.mask * np.float32(0.5)
    with pytest.warns(DeprecationWarning, match="give what follows mps by name"):
        app = HGGDPRecon(m.y, m.mps, prior, weights=weights, schedule=FAST, show_pbar=False)
    np.testing.assert_array_equal(app.run(), recon(m.y, m.mps, prior, weights=weights))


@pytest.mark.parametrize("weight", [0.005, np.float32(1), 1])
def test_a_regularization_weight_in_the_place_of_sigpys_is_refused(weight, measurement):
    with pytest.raises(ValueError, match=r"third argument is \w+; give what follows mps by name.*lamda"):
        HGGDPRecon(measurement.y, measurement.mps, weight)

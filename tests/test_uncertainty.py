"""Error maps: the bootstrap where its result is known, and the app around it."""

from types import SimpleNamespace

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.conformal import Calibration, ConformalFactor, describe_method, fingerprint, write_calibration
from hggdp_plugin.prior import ScorePrior, load_prior
from hggdp_plugin.processes import Processes
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.solvers import run
from hggdp_plugin.uncertainty import (
    QUICK,
    EquivariantBootstrap,
    UncertaintyMap,
    object_mask,
    random_transforms,
    smooth,
    summarize,
)

FEW = NoiseSchedule.fast(levels=3)


def complex_array(*shape: int, seed: int = 0) -> np.ndarray:
    pairs = np.random.default_rng(seed).standard_normal((2, *shape))
    return (pairs[0] + 1j * pairs[1]).astype(np.complex64)


@pytest.mark.parametrize("shape", [(16, 16), (3, 12, 20)])
def test_transforms_are_unitary_and_differ(shape: tuple[int, ...]) -> None:
    transforms = random_transforms(shape, 8, np.random.default_rng(0))
    x = complex_array(*shape)
    moved = [T(x) for T in transforms]
    for T, one in zip(transforms, moved, strict=True):
        np.testing.assert_array_equal(T.H(one), x)
    assert len({one.tobytes() for one in moved}) == 8


def test_a_method_that_only_adds_noise() -> None:
    rng = np.random.default_rng(1)
    x = complex_array(10, 10)
    transforms = random_transforms(x.shape, 400, rng)

    def rescan(images: np.ndarray) -> np.ndarray:
        return images + complex_array(*images.shape, seed=2) / 2**0.5

    variance = run(EquivariantBootstrap(rescan, x, transforms))
    assert variance.mean() == pytest.approx(1, rel=0.02)
    assert abs(variance - 1).max() < 5 * 400**-0.5


def test_a_method_that_loses_part_of_the_image_loses_it_where_it_is() -> None:
    """R(x) = x M with a fixed M: each copy shows the loss at another place of the image."""
    x, loss = complex_array(12, 12), np.zeros((12, 12))
    loss[3, 5] = 1
    transforms = random_transforms(x.shape, 8, np.random.default_rng(0))
    variance = run(EquivariantBootstrap(lambda images: images * (1 - loss), x, transforms, batch_size=3))
    expected = np.mean([abs(x) ** 2 * T.H(loss.astype(np.complex64)).real for T in transforms], axis=0)
    np.testing.assert_allclose(variance, expected, rtol=1e-5, atol=1e-6)


def test_what_moves_out_of_the_support_does_not_count() -> None:
    x, support = np.ones((8, 8), np.complex64), np.zeros((8, 8), bool)
    support[:, :4] = True
    shift = sp.linop.Circshift((8, 8), (0, 2), axes=(-2, -1))
    alg = EquivariantBootstrap(lambda images: 0.5 * images, x * support, [shift], support=support)
    variance = run(alg)
    np.testing.assert_allclose(variance[:, :2], 0.25)
    np.testing.assert_array_equal(variance[:, 2:4], 0)  # moved out
    np.testing.assert_array_equal(alg.count[:, 2:4], 0)


def test_a_fully_sampled_coil_has_the_error_of_its_noise() -> None:
    """Exact data consistency leaves the noise as it is."""
    y, std = 10 * complex_array(32, 32)[None] + 50, 0.3
    app = UncertaintyMap(recon := HGGDPRecon(y, show_pbar=False, schedule=FEW), noise_var=std**2, show_pbar=False)
    found = app.run()
    np.testing.assert_allclose(recon.image, sp.ifft(y, axes=(-2, -1))[0], rtol=1e-3, atol=1e-3)
    assert found.dtype == np.float32
    assert found.mean() == pytest.approx(std, rel=0.05)
    assert app.result.family == "lines, one coil"


@pytest.fixture
def recon(measurement, prior) -> HGGDPRecon:
    app = HGGDPRecon(measurement.y, measurement.mps, prior=prior, schedule=FEW, show_pbar=False)
    app.run()
    return app


def error_map(recon: HGGDPRecon, **options) -> np.ndarray:
    return UncertaintyMap(recon, copies=4, schedule=FEW, show_pbar=False, **options).run()


def test_same_seed_same_map_however_many_copies_at_a_time(recon) -> None:
    first = error_map(recon)
    np.testing.assert_array_equal(first, error_map(recon))
    assert first.shape == recon.image.shape
    assert (first > 0).all()
    # other draws of the noise, but not another size
    assert error_map(recon, copies_at_a_time=2).mean() == pytest.approx(first.mean(), rel=0.2)


def test_the_map_has_the_units_of_the_data(recon, measurement, prior) -> None:
    y = 1e4 * np.exp(2j) * measurement.y
    scaled = HGGDPRecon(y.astype(np.complex64), measurement.mps, prior=prior, schedule=FEW, show_pbar=False)
    np.testing.assert_allclose(error_map(scaled), 1e4 * error_map(recon), rtol=1e-3)


def test_a_slice_does_not_depend_on_the_others(measurement, prior) -> None:
    y = np.stack([measurement.y, 3 * measurement.y[:, ::-1]])
    both = error_map(HGGDPRecon(y, measurement.mps, prior=prior, schedule=FEW, show_pbar=False))
    for one, expected in zip(y, both, strict=True):
        alone = error_map(HGGDPRecon(one, measurement.mps, prior=prior, schedule=FEW, show_pbar=False))
        np.testing.assert_allclose(alone, expected, rtol=1e-2)


def test_noise_and_other_priors_add_to_the_error(recon, make_network) -> None:
    plain = error_map(recon)
    assert (error_map(recon, noise_var=1.0) > plain).mean() > 0.95
    other = ScorePrior(make_network(), autocast=False, seed=3)
    for parameter in other.model.parameters():
        parameter.data *= 1.5
    assert (error_map(recon, priors=[other]) >= plain).all()
    np.testing.assert_allclose(error_map(recon, priors=[recon.prior]), plain, rtol=1e-3)


def test_the_noise_that_nobody_measured(recon, measurement) -> None:
    left_out = 1 - measurement.mask.mean()
    expected = np.sqrt(error_map(recon, noise_var=0.09) ** 2 + left_out * 0.09)
    np.testing.assert_allclose(error_map(recon, noise_var=0.09, noisy_reference=True), expected, rtol=1e-4)


def test_off_the_grid(measurement, prior) -> None:
    coord = (np.random.default_rng(0).random((40, 20, 2)).astype(np.float32) - 0.5) * 18
    y = sp.nufft(measurement.mps * measurement.image, coord)
    recon = HGGDPRecon(y, measurement.mps, coord=coord, prior=prior, schedule=FEW, show_pbar=False)
    app = UncertaintyMap(recon, copies=2, schedule=FEW, show_pbar=False)
    assert np.isfinite(app.run()).all()
    assert app.result.family == "non-Cartesian, coils"


def test_several_views(measurement, make_network) -> None:
    prior = ScorePrior(make_network(views=2), autocast=False)
    for schedule in (FEW, NoiseSchedule.hggdp(levels=2, steps=2)):
        recon = HGGDPRecon(measurement.y, measurement.mps, prior=prior, schedule=schedule, show_pbar=False)
        found = UncertaintyMap(recon, copies=2, schedule=schedule, show_pbar=False).run()
        assert found.shape == measurement.image.shape


def test_the_stored_factor_is_applied(tmp_path, measurement, make_network) -> None:
    path = tmp_path / "mine.safetensors"
    save_model(path, make_network(), {})
    prior = load_prior(path, autocast=False)
    recon = HGGDPRecon(measurement.y, measurement.mps, prior=prior, schedule=FEW, show_pbar=False)
    app = UncertaintyMap(recon, copies=2, show_pbar=False)
    raw = app.run()
    assert app.result.factor is None
    assert np.isnan(app.result.psnr_bound)
    factor = ConformalFactor(2.0, {"50": 0.8, "80": 1.3, "95": 1.8}, 1.25, 3, ("a",))
    method = describe_method(FEW, QUICK)
    write_calibration(path, Calibration(fingerprint(path), method, {"points, coils": factor}))
    app = UncertaintyMap(recon, copies=2, show_pbar=False)
    np.testing.assert_allclose(app.run(), 2 * raw, rtol=1e-6)
    assert app.result.factor == factor
    assert app.result.psnr_bound == pytest.approx(float(app.result.psnr) - 20 * np.log10(1.25))


def test_the_summary() -> None:
    image = np.zeros((32, 32), np.complex64)
    image[4:28, 4:28] = 2j
    std = np.full((32, 32), 0.02, np.float32)
    std[:, :16] = 0.5
    found = summarize(std, image, "lines, coils", None)
    assert found.psnr == pytest.approx(20 * np.log10(2 / np.sqrt((0.5**2 + 0.02**2) / 2)))
    assert found.large_share == pytest.approx(0.5, abs=0.02)
    empty = summarize(np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), np.complex64), "", None)
    assert (empty.psnr == np.inf).all()
    assert (empty.large_share == 0).all()


def test_smoothing_keeps_slices_apart() -> None:
    values = np.zeros((2, 16, 16))
    values[0, 8, 8] = 1
    smoothed = smooth(values)
    assert smoothed[0].sum() == pytest.approx(1, rel=1e-3)
    assert not smoothed[1].any()
    assert not object_mask(np.zeros((8, 8))).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"copies": 0}, "copies"), ({"copies_at_a_time": 0}, "copies_at_a_time"), ({"image": np.ones((3, 3))}, "image")],
)
def test_arguments_that_do_not_fit(recon, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        UncertaintyMap(recon, show_pbar=False, **options)


def test_coils_in_several_processes_are_refused(measurement, prior):
    recon = HGGDPRecon(measurement.y, measurement.mps, prior=prior, schedule=FEW, show_pbar=False)
    recon.processes = Processes(SimpleNamespace(size=2, rank=0))
    with pytest.raises(ValueError, match="all coils in one process"):
        UncertaintyMap(recon)

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin._typing import Array, RandomGenerator
from hggdp_plugin.linops import Sense, flips
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.selfcheck import SelfCheck, choose_prior, self_check
from hggdp_plugin.simulation.masks import radial_trajectory

SHAPE, COILS, NOISE = (96, 80), 4, 0.02


class Knowing(ScorePrior):
    """A prior that knows one image, up to its scale, flips and transposition, and takes everything for it."""

    def __init__(self, network: UNet, image: np.ndarray) -> None:
        super().__init__(network, autocast=False)
        self.image = image

    def denoise(self, x: Array, sigma: float, rng: RandomGenerator | None = None) -> Array:
        candidates = [T(self.image) for T in flips(self.image.shape)]
        slices = x.reshape(-1, *x.shape[-2:])

        def nearest(one: Array) -> Array:
            fits = [c * (np.vdot(c, one) / np.vdot(c, c)) for c in candidates if c.shape == one.shape]
            return min(fits, key=lambda fit: float(np.linalg.norm(fit - one)))

        return np.stack([nearest(one) for one in slices]).reshape(x.shape).astype(np.complex64)


@dataclass
class Scan:
    image: np.ndarray
    mps: np.ndarray
    y: np.ndarray
    coord: np.ndarray | None = None
    noise_var: float = NOISE**2


def phantom(seed: int = 0) -> np.ndarray:
    """An object with more structure than wavelets find in few samples."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    image = np.where(np.hypot(y, x) < 0.8, 0.6, 0)
    for _ in range(40):
        center, radius = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.03, 0.15)
        image = np.where(np.hypot(y - center[0], x - center[1]) < radius, rng.uniform(0.2, 1), image)
    return (image * np.exp(1j * (x + 0.5 * y))).astype(np.complex64)


@pytest.fixture
def make_scan(make_measurement: Callable) -> Callable[..., Scan]:
    def make(sampling: str = "points", coils: int = COILS, image: np.ndarray | None = None) -> Scan:
        image = phantom() if image is None else image
        mps = make_measurement(coils=coils, shape=SHAPE).mps
        rng = np.random.default_rng(1)
        coord = None
        if sampling == "radial":
            coord = np.ascontiguousarray(radial_trajectory(24, 96)[..., ::-1] * np.array(SHAPE, np.float32))
        y = Sense(mps, coord=coord)(image)
        pairs = rng.standard_normal((*y.shape, 2), dtype=np.float32)
        y = y + np.float32(NOISE / 2**0.5) * pairs.view(np.complex64)[..., 0]
        if coord is None:
            mask = rng.random(SHAPE) < 0.25
            if sampling == "lines":
                mask = np.repeat(rng.random(SHAPE[0])[:, None] < 0.3, SHAPE[1], axis=1)
                mask[38:58] = True
            mask[38:58, 30:50] = True
            y = y * mask
        return Scan(image, mps, y.astype(np.complex64), coord)

    return make


@pytest.fixture
def check(make_network: Callable[..., UNet]) -> Callable[..., SelfCheck]:
    def run(scan: Scan, known: np.ndarray | None = None, **changes: object) -> SelfCheck:
        options = {"mps": scan.mps, "noise_var": scan.noise_var, "coord": scan.coord, **changes}
        return self_check(scan.y, prior=Knowing(make_network(), scan.image if known is None else known), **options)

    return run


@pytest.mark.parametrize("sampling", ["points", "lines", "radial"])
@pytest.mark.parametrize("coils", [1, COILS])
def test_a_prior_that_knows_the_image_fits_and_one_that_knows_another_does_not(
    make_scan: Callable[..., Scan], check: Callable[..., SelfCheck], sampling: str, coils: int
) -> None:
    scan = make_scan(sampling, coils)
    right, wrong = check(scan), check(scan, phantom(seed=5))
    assert right.prediction_error < 0.5
    assert wrong.prediction_error > 1
    assert right.prior_fits
    assert not wrong.prior_fits
    assert right.misfit < 0 < wrong.misfit
    assert right.n_held_out > 50
    if coils == 1:
        assert np.isnan(right.residual)
        assert right.data_consistent
    else:
        assert right.residual == pytest.approx(1, abs=0.3)


def test_a_wrong_noise_variance_and_wrong_maps_show_in_the_residual(
    make_scan: Callable[..., Scan], check: Callable[..., SelfCheck]
) -> None:
    scan = make_scan()
    right = check(scan)
    for factor in (16, 1 / 16):
        wrong = check(scan, noise_var=factor * scan.noise_var)
        assert wrong.residual == pytest.approx(right.residual / factor, rel=0.3)
        assert not wrong.data_consistent
        assert wrong.misfit > 0
    rng = np.random.default_rng(0)
    slope = np.linspace(-1, 1, SHAPE[1]) * rng.standard_normal((COILS, 1, 1))
    maps = check(scan, mps=(scan.mps * np.exp(0.8j * slope)).astype(np.complex64))
    assert maps.residual > 2 * right.residual


@pytest.mark.parametrize("sampling", ["points", "radial"])
def test_a_slice_is_checked_as_it_is_alone_whatever_its_units(
    make_scan: Callable[..., Scan], check: Callable[..., SelfCheck], sampling: str
) -> None:
    scan = make_scan(sampling)
    other = make_scan(sampling, image=np.roll(scan.image[::-1], 7, axis=0))
    alone = check(scan)
    batch = Scan(scan.image, scan.mps, np.stack([scan.y, other.y]), scan.coord)
    together = check(batch)
    assert together.prediction_error.shape == together.residual.shape == together.n_held_out.shape == (2,)
    np.testing.assert_allclose(together.prediction_error[0], alone.prediction_error, rtol=1e-2)
    np.testing.assert_allclose(together.residual[0], alone.residual, rtol=1e-3)
    scaled = check(Scan(scan.image, scan.mps, 1e-5 * scan.y, scan.coord), noise_var=1e-10 * scan.noise_var)
    np.testing.assert_allclose(scaled.prediction_error, alone.prediction_error, rtol=1e-2)
    np.testing.assert_allclose(scaled.noise_var, 1e-10 * alone.noise_var, rtol=1e-3)


def test_weights_say_what_was_measured(make_scan: Callable[..., Scan], check: Callable[..., SelfCheck]) -> None:
    scan = make_scan()
    mask = (scan.y != 0).any(axis=0).astype(np.float32)
    alone, weighted = check(scan), check(scan, weights=mask)
    assert weighted.n_held_out == alone.n_held_out
    np.testing.assert_allclose(weighted.prediction_error, alone.prediction_error, rtol=1e-5)
    half = check(scan, weights=0.5 * mask)
    np.testing.assert_allclose(half.residual, alone.residual, rtol=0.3)


def test_where_nothing_lies_outside_the_calibration_region_nothing_is_said(
    make_scan: Callable[..., Scan], check: Callable[..., SelfCheck]
) -> None:
    scan = make_scan()
    scan.y[:, :40] = scan.y[:, 56:] = 0
    scan.y[..., :32] = scan.y[..., 48:] = 0
    nothing = check(scan)
    assert nothing.n_held_out == 0
    assert np.isnan(nothing.prediction_error)
    assert nothing.prior_fits


def test_the_prior_that_knows_the_image_is_chosen(
    make_scan: Callable[..., Scan], make_network: Callable[..., UNet]
) -> None:
    scan = make_scan()
    priors = {"wrong": Knowing(make_network(), phantom(5)), "right": Knowing(make_network(), scan.image)}
    name, checks = choose_prior(scan.y, scan.mps, scan.noise_var, priors=priors)
    assert name == "right"
    assert checks["right"].prediction_error < checks["wrong"].prediction_error
    with pytest.raises(ValueError, match="priors: expected at least one"):
        choose_prior(scan.y, scan.mps, priors={})


def test_arguments_that_do_not_fit_are_refused(make_scan: Callable[..., Scan], prior: ScorePrior) -> None:
    scan = make_scan()
    with pytest.raises(ValueError, match="mps: expected shape"):
        self_check(scan.y, scan.mps[:2], prior=prior)


@pytest.mark.cuda
@pytest.mark.parametrize("sampling", ["points", "radial"])
def test_a_gpu_says_what_the_cpu_says(make_scan: Callable[..., Scan], prior: ScorePrior, sampling: str) -> None:
    scan = make_scan(sampling)
    options = {"mps": scan.mps, "noise_var": scan.noise_var, "coord": scan.coord, "prior": prior}
    cpu, gpu = (self_check(scan.y, device=sp.Device(i), **options) for i in (-1, 0))
    assert gpu.n_held_out == cpu.n_held_out
    np.testing.assert_allclose(gpu.residual, cpu.residual, rtol=0.05)

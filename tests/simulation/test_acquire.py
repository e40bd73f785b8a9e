import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin.simulation import ScanProtocol, acquire, coil_maps, combine, head_phantom
from hggdp_plugin.simulation import make_source as source_of


@pytest.fixture(scope="module")
def source():
    return source_of(head_phantom((48, 40), num_slices=2), "image", num_coils=4)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_coil_maps_are_smooth_and_have_unit_norm():
    maps = coil_maps(6, (48, 40))
    assert maps.dtype == np.complex64
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, atol=1e-5)
    assert np.abs(np.diff(maps, axis=-1))[:, 8:-8, 8:-8].max() < 0.1
    np.testing.assert_allclose(coil_maps(1, (48, 40)), 1, atol=1e-6)
    with pytest.raises(ValueError, match="at least one coil"):
        coil_maps(0, (8, 8))


def test_an_image_becomes_coil_kspace_that_combines_back(source):
    assert source.ksp.shape == (2, 4, 48, 40)
    assert source.combination == "true maps"
    images = sp.ifft(source.ksp, axes=(-2, -1))
    assert relative(np.sum(coil_maps(4, (48, 40)).conj() * images, axis=1), source.image) < 1e-5


def test_espirit_combination_agrees_with_the_true_maps_in_phase_too(source):
    image, name = combine(source.ksp[0], calib=20)
    seen = (image != 0) & (np.abs(source.image[0]) > 0.1)
    assert name == "espirit"
    assert np.isfinite(image).all()
    assert relative(image[seen], source.image[0][seen]) < 0.1


def test_kspace_becomes_slices_of_coils(source):
    for array, shape in ((source.ksp, (2, 4)), (source.ksp[0], (1, 4)), (source.ksp[0, 0], (1, 1))):
        made = source_of(array, "kspace", calib=16)
        assert made.ksp.shape[:2] == shape
        assert made.image.shape == (shape[0], 48, 40)
    assert made.combination == "single coil"
    assert relative(made.image[0], sp.ifft(source.ksp[0, 0])) < 1e-5


@pytest.mark.parametrize(
    ("array", "kind", "told"),
    [
        (np.ones((2, 3, 20, 20)), "image", "expected an image"),
        (np.ones(20), "image", "axes"),
        (np.ones((8, 20)), "image", "at least"),
        (np.ones((0, 20, 20)), "kspace", "axes"),
        (np.zeros((20, 20)), "image", "zero everywhere"),
        (np.full((20, 20), np.nan), "image", "NaN"),
    ],
)
def test_unusable_arrays_are_refused(array, kind, told):
    with pytest.raises(ValueError, match=told):
        source_of(array, kind)


def test_full_measurement_without_noise_is_the_source(source):
    full = acquire(source.ksp, source.image, ScanProtocol("full"))
    assert (full.data == source.ksp).all()
    assert full.accel == 1
    assert not full.is_calib.any()


@pytest.mark.parametrize("mask", ["uniform", "random", "poisson"])
def test_unsampled_points_are_exact_zeros_and_the_others_untouched(source, mask):
    got = acquire(source.ksp, source.image, ScanProtocol(mask, accel=3, calib=10, seed=4))
    full = source.ksp[:, :, got.ky]
    measured = got.data != 0
    assert (got.data[measured] == full[measured]).all()
    assert got.accel == pytest.approx(48 * 40 / measured[0, 0].sum())
    assert got.is_calib.sum() == 10
    assert (got.ky[got.is_calib] == np.arange(19, 29)).all()
    assert measured[:, :, got.is_calib, 15:25].all()
    if mask != "uniform":
        assert got.accel == pytest.approx(3, abs=0.11)
    if mask != "poisson":
        assert measured.all()


def test_noise_has_the_snr_asked_for_in_every_slice_and_coil(source):
    protocol = ScanProtocol("full", snr=20, noise_scan=True, seed=2)
    got = acquire(source.ksp, source.image, protocol)
    magnitude = np.abs(source.image)
    std = magnitude[magnitude > 0.1].mean() / 20
    noise = got.data - source.ksp
    for part in (noise.real, noise.imag, got.noise.real, got.noise.imag):
        assert part.std() == pytest.approx(std, rel=0.03)
    combined = np.sum(coil_maps(4, (48, 40)).conj() * sp.ifft(got.data, axes=(-2, -1)), axis=1) - source.image
    assert combined.real.std() == pytest.approx(std, rel=0.05)
    covariance = got.noise @ got.noise.conj().T / got.noise.shape[1]
    np.testing.assert_allclose(covariance / (2 * std**2), np.eye(4), atol=0.1)
    assert (acquire(source.ksp, source.image, protocol).data == got.data).all()


def test_oversampling_doubles_the_readout_and_keeps_the_image(source):
    got = acquire(source.ksp, source.image, ScanProtocol("full", oversampling=2))
    assert got.encoded_matrix == (48, 80)
    assert got.matrix == (48, 40)
    assert got.center_sample == 40
    images = sp.resize(sp.ifft(got.data, axes=(-2, -1)), source.ksp.shape)
    assert relative(images, sp.ifft(source.ksp, axes=(-2, -1))) < 1e-5
    assert got.accel == 1


def test_partial_fourier_and_asymmetric_echo_leave_the_beginning_out(source):
    got = acquire(source.ksp, source.image, ScanProtocol("full", partial_fourier=0.75, partial_echo=0.8))
    assert got.data.shape == (2, 4, 36, 32)
    assert (got.data == source.ksp[:, :, 12:, 8:]).all()
    assert (got.center_ky, got.center_sample) == (24 - 12, 20 - 8)
    assert (got.ky == np.arange(36)).all()


@pytest.mark.parametrize("oversampling", [1, 2])
def test_spokes_are_the_nufft_of_the_coil_images(source, oversampling):
    got = acquire(source.ksp, source.image, ScanProtocol("radial", spokes=9, oversampling=oversampling))
    assert got.data.shape == (2, 4, 9, 48 * oversampling)
    assert got.matrix == got.encoded_matrix == (48, 40)
    # By definition, for one sample: sum of image times exp(-2 pi i k r), orthonormal.
    kx, ky = got.trajectory[5, 7].astype(float)
    y, x = np.mgrid[:48, :40] - np.array([24, 20])[:, None, None]
    kernel = np.exp(-2j * np.pi * (kx * x + ky * y)) / np.sqrt(48 * 40)
    expected = np.sum(sp.ifft(source.ksp, axes=(-2, -1)) * kernel, axis=(-2, -1))
    np.testing.assert_allclose(got.data[:, :, 5, 7], expected, atol=2e-3 * np.abs(got.data).max())
    center = got.data[..., got.center_sample]
    assert np.abs(center - center[..., :1]).max() < 1e-3 * np.abs(center).max()


def test_number_of_spokes_follows_from_the_acceleration(source):
    got = acquire(source.ksp, source.image, ScanProtocol("radial", accel=2.5))
    assert len(got.ky) == round(np.pi / 2 * 48 / 2.5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mask": "spiral"}, "unknown mask"),
        ({"snr": 0}, "SNR"),
        ({"snr": np.nan}, "SNR"),
        ({"noise_scan": True}, "give an SNR"),
        ({"partial_fourier": 0.5}, "above 0.5"),
        ({"partial_echo": 1.2}, "above 0.5"),
        ({"mask": "radial", "partial_fourier": 0.8}, "spokes"),
        ({"mask": "poisson", "oversampling": 2}, "Poisson"),
        ({"mask": "radial", "volume": True}, "Cartesian"),
        ({"spokes": 3}, "radial"),
        ({"partial_fourier": 0.6}, "calibration"),
        ({"calib": 50}, "do not fit"),
    ],
)
def test_contradictions_are_refused(source, options, told):
    with pytest.raises(ValueError, match=told):
        acquire(source.ksp, source.image, ScanProtocol(**{"mask": "uniform", "accel": 2, "calib": 20} | options))


def test_a_volume_is_read_out_through_its_slices(source):
    protocol = ScanProtocol("poisson", accel=3, calib=10, seed=4, oversampling=2, volume=True)
    got = acquire(source.ksp, source.image, protocol)
    assert got.data.shape == (1, 4, len(got.ky), 4)
    assert (got.encoded_matrix, got.matrix) == ((48, 40, 4), (48, 40, 2))
    assert got.accel == pytest.approx(3, abs=0.11)
    assert got.is_calib.sum() == 100
    slices = sp.resize(sp.ifft(got.data[0], axes=(-1,)), (4, len(got.ky), 2))
    expected = source.ksp[:, :, got.kz, got.ky]
    np.testing.assert_allclose(slices.transpose(2, 0, 1), expected, atol=1e-5)

"""Prewhitening: unit noise variance, E|n|^2 = 1, and no correlation between coils."""

import numpy as np
import pytest
from mrd_files import acquisition, coil_images, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io

COILS = 4


@pytest.fixture
def mixing():
    """Correlates the coils' noise, at very different gains."""
    rng = np.random.default_rng(5)
    return (np.eye(COILS) + 0.4 * rng.standard_normal((COILS, COILS))) * np.logspace(-6, -4, COILS)[:, None]


def noise(rng, *shape):
    return (rng.standard_normal((*shape, 2)) @ [1, 1j]) / np.sqrt(2)


def measure(path, mixing, *, noise_dwell=5.0, dwell=5.0, bandwidth=1.0, ratio=1.0, averages=1, os=1, signal=0.0):
    """Image lines of noise, whose variance is ``ratio`` times that of the noise scan."""
    rng = np.random.default_rng(0)
    lines = [
        acquisition(mixing @ noise(rng, COILS, 128), flags=[19], sample_time_us=noise_dwell, center_sample=0)
        for _ in range(40)
    ]
    for _ in range(averages):
        ksp = np.sqrt(ratio) * np.einsum("ij,jyx->iyx", mixing, noise(rng, COILS, 64, 64 * os)) + signal
        lines += image_acqs(ksp, sample_time_us=dwell)
    return write(path, header(encoding((64 * os, 64, 1), (64, 64, 1)), bandwidth=bandwidth), lines)


def assert_white(raw):
    assert raw.whitened
    samples = raw.ksp[0, 0, 0, 0, 0].reshape(COILS, -1)
    cov = samples @ samples.conj().T / samples.shape[1]
    np.testing.assert_allclose(cov, np.eye(COILS), atol=0.07)


def test_unit_variance(tmp_path, mixing):
    raw = io.read_raw(measure(tmp_path / "a.h5", mixing))
    assert_white(raw)
    expected = mixing @ mixing.T
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(raw.noise_cov / scale, expected / scale, atol=0.05)


def test_oversampling_keeps_unit_variance(tmp_path, mixing):
    assert_white(io.read_raw(measure(tmp_path / "a.h5", mixing, os=2)))


def test_averaging_keeps_unit_variance(tmp_path, mixing):
    assert_white(io.read_raw(measure(tmp_path / "a.h5", mixing, averages=3)))


def test_dwell_time_and_bandwidth(tmp_path, mixing):
    raw = io.read_raw(measure(tmp_path / "a.h5", mixing, noise_dwell=4.0, dwell=10.0, bandwidth=0.8, ratio=0.5))
    assert_white(raw)  # the variance is that of the noise scan times 4 / (10 * 0.8)


def test_default_bandwidth(tmp_path, mixing, caplog):
    raw = io.read_raw(measure(tmp_path / "a.h5", mixing, bandwidth=None, ratio=1 / 0.793))
    assert_white(raw)
    assert any("0.793" in message for message in caplog.messages)


@pytest.mark.parametrize("dwell", [{"noise_dwell": 0.0}, {"dwell": 0.0}, {"noise_dwell": np.nan}])
def test_unknown_dwell_time(tmp_path, mixing, dwell, caplog):
    raw = io.read_raw(measure(tmp_path / "a.h5", mixing, **dwell))
    assert_white(raw)
    assert any("noise scale is 1" in message for message in caplog.messages)


def test_singular_covariance(tmp_path, mixing, caplog):
    mixing[1] = mixing[0]
    raw = io.read_raw(measure(tmp_path / "a.h5", mixing))
    assert not raw.whitened
    assert raw.noise_cov is not None
    assert any("singular" in message for message in caplog.messages)


def test_noise_scan_of_other_channels(tmp_path, caplog):
    ksp = kspace(coil_images((24, 16)))
    lines = [acquisition(np.ones((2, 64)), flags=[19]), *image_acqs(ksp)]
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((16, 24, 1))), lines))
    assert not raw.whitened
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 0], ksp, atol=1e-5)
    assert any("noise acquisitions" in message and "left out" in message for message in caplog.messages)


def test_too_short_noise_scan(tmp_path, mixing):
    lines = [
        acquisition(np.ones((COILS, 2)), flags=[19]),
        *image_acqs(kspace(coil_images((24, 16), COILS))),
    ]
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((16, 24, 1))), lines))
    assert not raw.whitened

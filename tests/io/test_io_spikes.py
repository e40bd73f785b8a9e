"""Raw files with spikes are read as if these samples had not been measured."""

import logging

import numpy as np
import pytest
from helpers import complex_array, smooth_maps
from mrd_files import encoding, header, image_acqs, kspace, write

from hggdp_plugin import io
from hggdp_plugin.simulation import head_phantom

SHAPE = (64, 60)
PLACES = [(10, 50), (50, 10), (55, 45)]


@pytest.fixture(scope="module")
def ksp():
    y = kspace(smooth_maps(3, SHAPE) * head_phantom(SHAPE)[0])
    return y + 0.02 * complex_array(*y.shape)


def read(path, ksp, spikes=(), lines=None):
    ksp = ksp.copy()
    for row, column in spikes:
        ksp[:, row, column] += 0.2 * abs(ksp).max()
    xml = header(encoding((SHAPE[1], SHAPE[0], 1)))
    return io.read_raw(write(path, xml, image_acqs(ksp, lines)))


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_spikes_are_left_out(ksp, tmp_path, caplog):
    lines = [*range(0, 26, 2), *range(26, 38), *range(38, 64, 2), 55]
    clean = read(tmp_path / "clean.h5", ksp, (), lines)
    assert not warnings(caplog)
    raw = read(tmp_path / "spikes.h5", ksp, PLACES, lines)
    (text,) = warnings(caplog)
    assert "spikes.h5" in text
    assert "3 samples of k-space are spikes, far above all others around (all coils)" in text
    (left_out,) = np.nonzero((clean.mask & ~raw.mask).reshape(-1))
    assert left_out.tolist() == sorted(row * SHAPE[1] + column for row, column in PLACES)
    np.testing.assert_array_equal(raw.ksp, clean.ksp * raw.mask[..., None, :, :])
    np.testing.assert_array_equal(raw.calib, raw.ksp[0, 0, 0, 0])


def test_the_calibration_region_remains_whole(ksp, tmp_path):
    spike = (SHAPE[0] // 2 + 9, SHAPE[1] // 2 - 8)
    raw = read(tmp_path / "spike.h5", ksp, [spike])
    assert not raw.mask[(0, 0, 0, 0, 0, *spike)]
    assert not raw.calib[(0, slice(None), *spike)].any()
    assert raw.calib_shape == SHAPE


@pytest.mark.parametrize("column", [20, 21, 100])
def test_spikes_of_oversampled_readouts_are_interpolated(column, tmp_path, caplog):
    image = np.pad(smooth_maps(3, SHAPE) * head_phantom(SHAPE)[0], [(0, 0), (0, 0), (30, 30)])
    noise = 0.02 * complex_array(3, 64, 120)
    clean = kspace(image) + noise
    spiked = clean.copy()
    spiked[:, [9, 40], column] += 0.2 * abs(clean).max()
    xml = header(encoding((120, 64, 1), (60, 64, 1), ef=(120, 64, 1), rf=(60, 64, 1)))
    raws = [io.read_raw(write(tmp_path / f"{n}.h5", xml, image_acqs(y))) for n, y in enumerate((clean, spiked))]
    (text,) = warnings(caplog)
    assert "2 samples of readouts are spikes, far above all others around (in 1 slice)" in text
    assert raws[1].mask.all()
    assert np.linalg.norm(raws[1].ksp - raws[0].ksp) < 4 * np.linalg.norm(noise[:, :2, 0])

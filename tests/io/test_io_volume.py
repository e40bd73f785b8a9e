"""3D Cartesian raw data: 2D problems along the readout, and back to a volume."""

import numpy as np
import pytest
import sigpy as sp
from mrd_files import acquisition, coil_images, encoding, header, kspace, write

from hggdp_plugin import io

SHAPE = (6, 12, 16)  # z, y, x


@pytest.fixture
def images():
    return coil_images(SHAPE)


def volume_acqs(ksp, keep=None, **fields):
    lines = []
    for z, y in np.ndindex(ksp.shape[1:3]):
        if keep is None or keep[z, y]:
            idx = {"kspace_encode_step_1": y, "kspace_encode_step_2": z}
            lines.append(acquisition(ksp[:, z, y], idx=idx, **fields))
    return lines


def test_volume(tmp_path, images):
    big = sp.resize(images, (3, 6, 12, 32))
    xml = header(encoding((32, 12, 6), (16, 12, 6), ef=(32, 12, 12), rf=(16, 12, 12), ky_center=6, kz_center=3))
    path = write(tmp_path / "a.h5", xml, volume_acqs(kspace(big), position=(10, 20, 30)))
    raw = io.read_raw(path)
    assert raw.is_3d
    assert raw.ksp.shape == (1, 1, 1, 1, 16, 3, 6, 12)
    expected = sp.fft(images, axes=(1, 2)).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0], expected, atol=1e-5)
    assert raw.calib_shape == raw.grid == (6, 12)
    assert raw.image_shape == SHAPE
    assert raw.fov == (12, 12, 16)
    recon = sp.ifft(raw.ksp, axes=(-1, -2))[..., 0, :, :]
    image = raw.to_image(recon)
    assert image.shape == (1, 1, 1, 1, *SHAPE)
    np.testing.assert_allclose(image[0, 0, 0, 0], images[0], atol=1e-5)
    np.testing.assert_allclose(raw.geometry.position, [[10, 20, 30 + 2 * (z - 3)] for z in range(6)])
    assert "3D" in raw.summary()


def test_undersampled_volume_with_calibration(tmp_path, images):
    keep = np.zeros(SHAPE[:2], bool)
    keep[::2, ::3] = True
    keep[2:4, 4:8] = True
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding(SHAPE[::-1])), volume_acqs(kspace(images), keep)))
    np.testing.assert_array_equal(raw.ksp[0, 0, 0, 0].any(axis=(0, 1)), keep)
    assert raw.calib_shape == (2, 4)


def test_slice_oversampling_and_slabs(tmp_path, images):
    ksp = kspace(sp.resize(images, (3, 8, 12, 16)))
    xml = header(encoding((16, 12, 8), (16, 12, 6)))
    lines = volume_acqs(ksp) + volume_acqs(2 * ksp, position=(0, 0, 50))
    for acq in lines[len(lines) // 2 :]:
        acq.idx.slice = 1
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert raw.ksp.shape[4:] == (32, 3, 8, 12)
    assert raw.image_shape == (12, 12, 16)
    image = raw.to_image(sp.ifft(raw.ksp, axes=(-1, -2))[..., 0, :, :])[0, 0, 0, 0]
    np.testing.assert_allclose(image[:6], images[0], atol=1e-5)
    np.testing.assert_allclose(image[6:], 2 * images[0], atol=1e-5)
    np.testing.assert_allclose(raw.geometry.position[:, 2], [*range(-3, 3), *range(47, 53)])


def test_partitions_without_encoding_are_2d(tmp_path):
    ksp = kspace(coil_images((12, 16)))
    lines = [acquisition(ksp[:, y], idx={"kspace_encode_step_1": y}) for y in range(12)]
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((16, 12, 6))), lines))
    assert not raw.is_3d
    assert raw.image_shape == (1, 12, 16)

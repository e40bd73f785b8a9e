"""2D Cartesian raw data: placing, cropping, averaging, flags."""

import numpy as np
import pytest
import sigpy as sp
from io_rawfile import cartesian_lines, coil_images, encoding, header, kspace, line, write

from hggdp_plugin import io

SHAPE = (24, 16)


def oversampled(images):
    """K-space of images with twice the field of view along x."""
    return kspace(sp.resize(images, (*images.shape[:-1], 2 * images.shape[-1])))


@pytest.fixture
def xml():
    return header(encoding((32, 24, 1), (16, 24, 1), centre_1=12))


def close(a, b):
    np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max())


def test_fully_sampled(tmp_path, xml):
    images = coil_images(SHAPE)
    raw = io.read_raw(write(tmp_path / "a.h5", xml, cartesian_lines(oversampled(images))))
    assert raw.ksp.shape == (1, 1, 1, 1, 1, 3, 24, 16)
    assert raw.ksp.dtype == raw.calib.dtype == np.complex64
    close(raw.ksp[0, 0, 0, 0, 0], kspace(images))
    assert raw.calib_shape == SHAPE
    assert (raw.coord, raw.whitened, raw.noise_cov, raw.is_3d) == (None, False, None, False)
    assert raw.image_shape == (1, 24, 16)
    assert raw.fov == (16, 24, 1)
    close(raw.to_image(sp.ifft(raw.ksp[..., 0, :, :], axes=(-1, -2)))[0, 0, 0, 0, 0], images[0])
    assert "3 coils" in raw.summary()

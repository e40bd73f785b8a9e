"""Coil sensitivity maps: known ones are recovered."""

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import coil_maps
from hggdp_plugin.simulation import coil_maps as ring_maps
from hggdp_plugin.simulation import head_phantom

SHAPE = (64, 56)


@pytest.fixture(scope="module")
def truth():
    """Maps (coils, H, W), image (H, W) and its k-space (coils, H, W)."""
    maps, image = ring_maps(6, SHAPE), head_phantom(SHAPE, num_slices=1)[0]
    return maps, image, sp.fft(maps * image, axes=(-2, -1)).astype(np.complex64)


def test_calibration_region_is_limited_by_the_matrix_and_the_constant():
    assert coil_maps.calibration_shape(200, (64, 16)) == (coil_maps.CALIB_WIDTH, 16)
    assert coil_maps.calibration_shape((8, 200), (64, 64)) == (8, coil_maps.CALIB_WIDTH)


def test_combined_coils_are_the_image_in_magnitude(truth):
    _, image, kspace = truth
    combined = coil_maps.combine_coils(np.stack([kspace, 2 * kspace]), kspace)
    assert combined.shape == (2, *SHAPE)
    assert combined.dtype == np.complex64
    inside = (abs(image) > 0.1 * abs(image).max()) & (combined[0] != 0)
    np.testing.assert_allclose(abs(combined[0])[inside], abs(image)[inside], rtol=0.05)
    np.testing.assert_allclose(combined[1], 2 * combined[0], rtol=1e-5)


def test_one_coil_is_not_changed(truth):
    kspace = truth[2][:1]
    np.testing.assert_array_equal(coil_maps.combine_coils(kspace), sp.ifft(kspace[0]))

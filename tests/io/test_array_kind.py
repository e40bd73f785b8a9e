import numpy as np
import sigpy as sp

from hggdp_plugin.io.array_kind import guess_kind
from hggdp_plugin.simulation import coil_maps, head_phantom


def test_kind_follows_from_axes_numbers_and_energy():
    image = head_phantom((48, 40), num_slices=2)
    ksp = sp.fft(coil_maps(4, (48, 40)) * image[:, None], axes=(-2, -1))
    assert [guess_kind(a) for a in (image, image[0], np.abs(image), image[:, None])] == ["image"] * 4
    assert [guess_kind(a) for a in (ksp, ksp[0], ksp[0, 0], ksp[:, :1])] == ["kspace"] * 4


def test_an_array_with_half_its_energy_in_the_center_is_neither():
    array = np.zeros((48, 40), complex)
    array[24, 20], array[0, 0] = 0.5, 0.9
    assert guess_kind(array) is None

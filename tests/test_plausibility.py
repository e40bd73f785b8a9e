import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.plausibility import coils_look_like_phase_encodings, guess_kind, looks_like_readouts
from hggdp_plugin.simulation import coil_maps, head_phantom
from hggdp_plugin.simulation.masks import radial_trajectory


@pytest.fixture(scope="module")
def image():
    return head_phantom((48, 40), num_slices=2)


@pytest.fixture(scope="module")
def ksp(image):
    return sp.fft(coil_maps(4, (48, 40)) * image[:, None], axes=(-2, -1))


def test_kind_follows_from_axes_numbers_and_energy(image, ksp):
    assert [guess_kind(a) for a in (image, image[0], np.abs(image), image[:, None])] == ["image"] * 4
    assert [guess_kind(a) for a in (ksp, ksp[0], ksp[0, 0], ksp[:, :1])] == ["kspace"] * 4


def test_an_array_with_half_its_energy_in_the_center_is_neither():
    array = np.zeros((48, 40), complex)
    array[24, 20], array[0, 0] = 0.5, 0.9
    assert guess_kind(array) is None


@pytest.mark.parametrize("lines", [slice(None), slice(None, None, 2), slice(20, 28)])
def test_kspace_passes_however_it_is_undersampled(ksp, lines):
    undersampled = np.zeros_like(ksp)
    undersampled[..., lines, :] = ksp[..., lines, :]
    for array in (undersampled, undersampled.swapaxes(-2, -1)):
        assert not looks_like_readouts(array)
        assert not coils_look_like_phase_encodings(array)


def test_many_coils_of_a_small_matrix_pass():
    ksp = sp.fft(coil_maps(64, (24, 24)) * head_phantom((24, 24)), axes=(-2, -1))
    assert not looks_like_readouts(ksp)
    assert not coils_look_like_phase_encodings(ksp)


def test_coils_along_another_axis_are_noticed(ksp):
    assert coils_look_like_phase_encodings(np.moveaxis(ksp[0], 0, -1))
    volume = sp.fft(np.stack([ksp[0]] * 16, axis=1), axes=(1,))  # (coils, kz, ky, kx)
    assert coils_look_like_phase_encodings(volume)


@pytest.mark.parametrize("golden", [True, False])
def test_spokes_are_noticed(image, golden):
    coord = radial_trajectory(30, 48, golden)[..., ::-1] * np.array([48, 40])
    spokes = sp.nufft(coil_maps(4, (48, 40)) * image[0], coord)
    assert looks_like_readouts(spokes)
    assert looks_like_readouts(spokes.swapaxes(-2, -1))


def test_readers_refuse_what_is_not_cartesian_kspace_and_log_doubts(ksp, image, tmp_path, caplog):
    def read(array):
        np.save(tmp_path / "ksp.npy", array)
        return io.read_kspace(tmp_path / "ksp.npy")

    with pytest.raises(io.InputError, match=r"48 coils, 40 x 4 k-space: .*\(coils, ky, kx\)"):
        read(np.moveaxis(ksp[0], 0, -1))
    with pytest.raises(io.InputError, match="give the trajectory with -t"):
        read(sp.nufft(coil_maps(4, (48, 40)) * image[0], radial_trajectory(30, 48)[..., ::-1] * np.array([48, 40])))
    assert "center" not in caplog.text
    read(np.fft.ifftshift(ksp, axes=(-2, -1)))
    assert "zero frequency in the corner" in caplog.text

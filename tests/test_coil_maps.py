"""Coil sensitivity maps: known ones are recovered, up to a phase, whatever the calibration region."""

import logging

import numpy as np
import pytest
import sigpy as sp
import sigpy.mri as mr
from helpers import complex_array, relative_error
from threadpoolctl import threadpool_info

from hggdp_plugin import coil_maps, espirit
from hggdp_plugin.simulation import coil_maps as ring_maps
from hggdp_plugin.simulation import head_phantom, masks

SHAPE, COILS = (80, 72), 6


@pytest.fixture(scope="module")
def truth():
    """Maps (coils, H, W), image (H, W) and its k-space (coils, H, W) with a little noise."""
    maps, image = ring_maps(COILS, SHAPE), head_phantom(SHAPE, num_slices=1)[0]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, COILS, *SHAPE)) * abs(image).max() / 200
    kspace = sp.fft(maps * image, axes=(-2, -1)) + noise[0] + 1j * noise[1]
    return maps, image, kspace.astype(np.complex64)


@pytest.fixture(scope="module")
def inside(truth):
    image = truth[1]
    return abs(image) > 0.1 * abs(image).max()


def angle(mps, truth, where):
    """Root mean square of the sine of the angle between maps in some pixels; 1 where there are none."""
    product = abs((truth.conj() * mps).sum(axis=0))[where].astype(float) ** 2
    norms = (norm(truth, axis=0) * norm(mps, axis=0))[where].astype(float) ** 2
    return np.sqrt(np.mean(np.clip(1 - product / np.where(norms > 0, norms, 1), 0, 1)))


def norm(mps, axis=-3):
    return np.sqrt((abs(mps) ** 2).sum(axis=axis))


def test_calibration_region_is_limited_by_the_matrix_and_the_constant():
    assert coil_maps.calibration_shape(200, (64, 16)) == (coil_maps.CALIB_WIDTH, 16)
    assert coil_maps.calibration_shape((8, 200), (64, 64)) == (8, coil_maps.CALIB_WIDTH)


@pytest.mark.parametrize(
    ("region", "bound"), [(24, 0.015), ((24, 7), 0.04), ((8, 24), 0.04), (7, 0.05), (5, 0.08), (4, 0.15)]
)
def test_known_maps_are_recovered_from_regions_of_every_size(truth, inside, region, bound, device):
    maps, _, kspace = truth
    got = coil_maps.espirit_maps(kspace, region, device)
    assert sp.get_device(got) == device
    got = sp.to_device(got)
    assert got.dtype == np.complex64
    assert got.shape == kspace.shape
    assert angle(got, maps, inside) < bound
    assert norm(got)[inside].min() > 0.5
    assert np.quantile(norm(got)[inside], 0.05) == pytest.approx(1, abs=1e-4)
    assert norm(got).max() < 1 + 1e-4


def test_maps_agree_with_sigpys(truth, inside):
    kspace = truth[2]
    expected = mr.app.EspiritCalib(kspace / abs(kspace).max(), show_pbar=False).run()
    got = coil_maps.espirit_maps(kspace, 24)
    assert angle(got, expected, inside & (norm(expected) > 0)) < 0.003
    assert ((norm(got) > 0) >= (norm(expected) > 0)).mean() > 0.999


def test_maps_do_not_depend_on_the_scale_and_phase_of_the_data(truth):
    kspace = truth[2]
    expected = coil_maps.espirit_maps(kspace, 24)
    for factor in (1e-12, 1e9j):
        np.testing.assert_allclose(coil_maps.espirit_maps(factor * kspace, 24), expected, atol=1e-3)


def test_a_phase_of_a_coil_is_that_of_its_map(truth):
    kspace = truth[2]
    phases = np.exp(1j * np.arange(COILS))[:, None, None].astype(np.complex64)
    got = coil_maps.espirit_maps(kspace * phases, 24)
    np.testing.assert_allclose(got, coil_maps.espirit_maps(kspace, 24) * phases, atol=1e-3)


@pytest.mark.parametrize("dead", [0, 3])
def test_a_dead_coil_has_a_map_of_zero(truth, dead):
    kspace = truth[2].copy()
    kspace[dead] = 0
    got = coil_maps.espirit_maps(kspace, 24)
    np.testing.assert_allclose(got[dead], 0, atol=1e-5)
    others = coil_maps.espirit_maps(np.delete(kspace, dead, axis=0), 24)
    np.testing.assert_allclose(abs(np.delete(got, dead, axis=0)), abs(others), atol=1e-3)


def test_a_batch_is_its_slices_and_empty_ones_are_zero(truth, device):
    kspace = truth[2]
    batch = np.stack([kspace, 0 * kspace, kspace[..., ::-1]])[:, None]
    got = sp.to_device(coil_maps.espirit_maps(batch, (12, 24), device))
    assert got.shape == batch.shape
    assert not got[1].any()
    for slice_ in (0, 2):
        single = sp.to_device(coil_maps.espirit_maps(batch[slice_, 0], (12, 24), device))
        np.testing.assert_allclose(got[slice_, 0], single, atol=1e-4)


@pytest.mark.cuda
def test_a_gpu_gives_the_maps_of_a_cpu(truth, inside):
    kspace = truth[2]
    for maps in (1, 2):
        cpu = coil_maps.espirit_maps(kspace, 24, maps=maps)
        gpu = sp.to_device(coil_maps.espirit_maps(kspace, 24, sp.Device(0), maps=maps))
        np.testing.assert_allclose(gpu[..., inside], cpu[..., inside], atol=1e-3)


def test_numpy_computes_in_one_thread(truth, monkeypatch):
    def blas_threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen, estimate = [], espirit.coarse_maps
    monkeypatch.setattr(espirit, "coarse_maps", lambda *args: seen.append(blas_threads()) or estimate(*args))
    before = blas_threads()
    coil_maps.espirit_maps(truth[2], 24)
    assert seen == [{1}]
    assert blas_threads() == before


def test_one_coil_has_sensitivity_one(truth):
    kspace = truth[2][:1]
    np.testing.assert_array_equal(coil_maps.espirit_maps(kspace, 24), np.ones((1, *SHAPE)))
    np.testing.assert_array_equal(
        coil_maps.espirit_maps(kspace[None], 24, maps=2), [[np.ones((1, *SHAPE)), np.zeros((1, *SHAPE))]]
    )
    np.testing.assert_array_equal(coil_maps.combine_coils(kspace), sp.ifft(kspace[0]))


def test_phases_are_smooth_though_those_of_every_coil_wind(inside):
    """Each coil has a phase singularity inside the object, so that none can be the reference."""
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    places = [(0.3, 0.3), (-0.3, 0.3), (0.3, -0.3), (-0.3, -0.3)]
    maps = np.stack([(rows - y) + 1j * (columns - x) * (-1) ** i for i, (y, x) in enumerate(places)])
    maps = (maps / norm(maps)).astype(np.complex64)
    got = coil_maps.smooth_phase(maps)
    assert angle(got, maps, inside) < 1e-3

    def steps(mps):
        return sum(np.linalg.norm(np.diff(mps, axis=axis)) ** 2 for axis in (-2, -1)) ** 0.5

    by_coil = [steps(maps * np.exp(-1j * np.angle(coil))) for coil in maps]
    assert steps(got) < 0.8 * min(by_coil)


def test_two_sets_explain_a_small_field_of_view(truth):
    """Half the field of view: the object is aliased, and one map per coil cannot explain both layers."""
    kspace = truth[2]
    folded = kspace[:, ::2]
    images = sp.ifft(folded, axes=(-2, -1))
    got = coil_maps.espirit_maps(folded, 24, maps=2)
    assert got.shape == (2, *folded.shape)
    left = []
    for n_sets in (1, 2):
        basis = np.moveaxis(got[:n_sets], 0, -1).reshape(COILS, -1, n_sets).swapaxes(0, 1)
        basis = np.linalg.qr(basis + 1e-9)[0]
        x = np.moveaxis(images, 0, -1).reshape(-1, COILS, 1)
        left.append(np.linalg.norm(x - basis @ (basis.conj().swapaxes(1, 2) @ x)) / np.linalg.norm(x))
    assert left[1] < 0.6 * left[0]


def test_a_second_set_is_zero_where_one_map_explains_the_object(truth, inside):
    one, two = (coil_maps.espirit_maps(truth[2], 24, maps=n) for n in (1, 2))
    np.testing.assert_allclose(two[0][:, inside], one[:, inside], atol=1e-3)
    assert norm(two[1])[inside].max() < 0.1


def test_a_calibration_that_fails_gives_way_to_the_next_method(truth, inside, monkeypatch, caplog):
    """Kernels as large as the region leave one patch, which explains nothing."""
    maps, _, kspace = truth
    monkeypatch.setattr(coil_maps, "_kernels", lambda region, coils: [(8, 8), (3, 3), None])
    got = coil_maps.espirit_maps(np.stack([kspace, 0 * kspace]), 8)
    assert angle(got[0], maps, inside) < 0.06
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "1 of 2 slices; using a kernel of 3 x 3" in caplog.text
    caplog.clear()
    monkeypatch.setattr(coil_maps, "_kernels", lambda region, coils: [(8, 8), (8, 8), None])
    got = coil_maps.espirit_maps(kspace, 8)
    assert angle(got, maps, inside) < 0.2
    assert caplog.text.count("\n") == 2
    assert "low-resolution coil images" in caplog.text


def test_two_sets_of_a_volume():
    kspace = complex_array(4, 10, 9, 8)
    one, two = (coil_maps.VolumeMaps(kspace, (12, 14, 16), maps=maps) for maps in (1, 2))
    assert two.volume().shape == (2, 4, 12, 14, 16)
    np.testing.assert_allclose(two.volume()[0], one.volume(), atol=1e-5)
    np.testing.assert_array_equal(two.volume()[:, :, 3], two[3])
    hybrid = sp.ifft(kspace, axes=(1,)).swapaxes(0, 1)
    assert coil_maps.VolumeMaps.along_readout(hybrid, 6, maps=2)[3].shape == (2, 4, 9, 8)


@pytest.mark.parametrize("region", [(20, 20, 20), (20, 8, 20), (2, 20, 20)], ids=str)
def test_maps_of_a_volume(region, device):
    """Sections across the first axis, from one region; for the readout, that region is in image space along it."""
    shape = (24, 32, 28)
    volume = head_phantom(shape[1:], num_slices=24)
    volume[:4] = volume[-4:] = 0
    grids = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    places = np.random.default_rng(1).uniform(-1, 1, (5, 3))
    maps = np.stack(
        [
            np.exp(-0.3 * sum((g - p) ** 2 for g, p in zip(grids, place, strict=True)) + 1j * place[0] * grids[1])
            for place in places
        ]
    )
    maps /= norm(maps, axis=0)
    kspace = sp.fft(maps * volume, axes=(-3, -2, -1)).astype(np.complex64)
    if region[0] == 20:
        hybrid = sp.ifft(kspace, axes=(1,)).swapaxes(0, 1)
        sections = coil_maps.VolumeMaps.along_readout(hybrid, region[1:], device)
    else:
        sections = coil_maps.VolumeMaps(sp.resize(kspace, (5, *region)), shape, device)
    assert len(sections) == 24
    got = np.stack([sp.to_device(section) for section in sections], axis=1)
    assert got.dtype == np.complex64
    inside = abs(volume) > 0.1 * abs(volume).max()
    assert angle(got, maps, inside) < (0.03 if min(region) > 2 else 0.3)
    assert norm(got, axis=0)[inside].min() > 0.5
    assert norm(np.diff(got, axis=1), axis=0)[inside[:-1] & inside[1:]].max() < 0.3


def test_low_resolution_maps(truth, inside):
    maps, _, kspace = truth
    got = coil_maps.low_resolution_maps(np.stack([kspace, 0 * kspace]))
    assert angle(got[0], maps, inside) < 0.2
    np.testing.assert_allclose(norm(got[0]), 1, atol=1e-4)
    assert not got[1].any()


def test_maps_of_a_regularly_undersampled_center_alias():
    regular = np.zeros((96, 60), bool)
    regular[::3] = True
    assert coil_maps.low_resolution_maps_alias(regular)
    checkerboard = np.add.outer(np.arange(96), np.arange(60)) % 2 == 0
    assert coil_maps.low_resolution_maps_alias(checkerboard)
    regular[40:56] = True
    for fine in (regular, np.ones_like(regular), np.zeros_like(regular), masks.poisson_disc((96, 60), 4)):
        assert not coil_maps.low_resolution_maps_alias(fine)


def test_combined_coils_are_the_image(truth, inside):
    _, image, kspace = truth
    combined = coil_maps.combine_coils(np.stack([kspace, 2 * kspace]), kspace)
    assert combined.shape == (2, *SHAPE)
    assert combined.dtype == np.complex64
    np.testing.assert_allclose(abs(combined[0])[inside], abs(image)[inside], atol=0.05 * abs(image).max())
    np.testing.assert_allclose(combined[1], 2 * combined[0], rtol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_center_of_noncartesian_kspace_is_cartesian(ndim, device):
    """The field of view is that of the coordinates; the image is smooth, so that few pixels show all of it."""
    width, shape = 12, (24,) * ndim
    image = np.zeros((2, *shape), np.complex64)
    image[0][(slice(8, 16),) * ndim], image[1][(slice(10, 18),) * ndim] = 1, 1j
    kspace = sp.resize(sp.fft(image, axes=range(-ndim, 0)), (2, *[8] * ndim))
    image = sp.ifft(sp.resize(kspace, image.shape), axes=range(-ndim, 0))
    coord = np.random.default_rng(0).uniform(-6, 6, (3 * width**ndim, ndim)).astype(np.float32)
    got = coil_maps.calibration_from_noncartesian(sp.nufft(image, coord), coord, width, device)
    assert sp.get_device(got) == device
    assert got.shape == (2, *[width] * ndim)
    got = sp.resize(sp.to_device(got), kspace.shape)
    scale = np.vdot(got, kspace) / np.vdot(got, got)
    assert relative_error(scale * got, kspace) < 0.1

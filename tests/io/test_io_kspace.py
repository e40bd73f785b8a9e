"""K-space, trajectories and maps from BART's and NumPy's files."""

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.io.cfl import DIMS, write_cfl


def _noise(*shape):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def _dims(array, *names):
    """Puts an array, its axes named, into BART's dimensions, reversed."""
    sizes = dict(zip(names, array.shape, strict=True))
    order = sorted(range(array.ndim), key=lambda axis: -DIMS.index(names[axis]))
    return array.transpose(order).reshape([sizes.get(name, 1) for name in DIMS[::-1]])


@pytest.fixture
def cfl(tmp_path):
    def write(array, *names):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.cfl"
        write_cfl(path, _dims(array, *names))
        return path

    return write


@pytest.fixture
def npy(tmp_path):
    def write(array):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, array)
        return path

    return write


def test_frames_and_slices_of_cfl_have_their_axes(cfl):
    ksp = _noise(2, 3, 4, 8, 6)
    raw = io.read_kspace(cfl(ksp, "TIME", "SLICE", "COIL", "PHS1", "READ"))
    np.testing.assert_array_equal(raw.ksp, ksp.reshape(2, 1, 1, 1, 3, 4, 8, 6))
    assert (raw.grid, raw.image_shape, raw.calib_shape, raw.is_3d) == ((8, 6), (3, 8, 6), (8, 6), False)
    assert "4 coils" in raw.summary()


def test_volumes_are_split_along_the_readout(cfl, tmp_path):
    image = _noise(3, 6, 4)  # z, y, x
    ksp = sp.fft(image)
    raw = io.read_kspace(cfl(ksp[None] * [[[[1]]], [[[2]]]], "COIL", "PHS2", "PHS1", "READ"))
    assert (raw.ksp.shape, raw.grid, raw.is_3d) == ((1, 1, 1, 1, 4, 2, 3, 6), (3, 6), True)
    back = raw.to_image(sp.ifft(raw.ksp[:, :, :, :, :, 0], axes=(-2, -1)))
    np.testing.assert_allclose(back[0, 0, 0, 0], image, atol=1e-5)
    io.write_image(tmp_path / "image.cfl", back, raw=raw, complex_=True)
    np.testing.assert_array_equal(io.read_array(tmp_path / "image.cfl").squeeze(), back.squeeze())
    maps = io.read_maps(cfl(_noise(2, 3, 6, 4), "COIL", "PHS2", "PHS1", "READ"), slice_axis="x")
    np.testing.assert_array_equal(maps, np.moveaxis(_noise(2, 3, 6, 4), -1, 0))


def test_npy_slices_and_maps(npy):
    ksp = _noise(2, 4, 8, 6).astype(np.complex128)
    raw = io.read_kspace(npy(ksp))
    assert raw.ksp.dtype == np.complex64
    np.testing.assert_array_equal(raw.ksp[0, 0, 0, 0], ksp.astype(np.complex64))
    np.testing.assert_array_equal(io.read_kspace(npy(ksp[0])).ksp[0, 0, 0, 0, 0], raw.ksp[0, 0, 0, 0, 0])
    np.testing.assert_array_equal(io.read_maps(npy(ksp[0])), ksp[:1].astype(np.complex64))


def test_the_image_of_an_array_has_voxels_of_a_millimeter(npy):
    raw = io.read_kspace(npy(_noise(3, 4, 8, 6)))
    assert raw.fov == (1, 8, 6)
    np.testing.assert_array_equal(raw.geometry.position, [[0, 0, 0], [0, 0, 1], [0, 0, 2]])


def test_trajectories_of_both_formats_agree(cfl, npy):
    k = np.random.default_rng(0).uniform(-15.5, 15.5, (5, 16, 3)).astype(np.float32)
    k[0, 0], k[..., 2] = (15.5, 3, 0), 0
    ksp = _noise(4, 5, 16)
    bart = io.read_kspace(
        cfl(ksp[..., None], "COIL", "PHS2", "PHS1", "READ"), cfl(k.astype(complex), "PHS2", "PHS1", "READ")
    )
    numpy = io.read_kspace(npy(ksp), npy(k[..., 1::-1]))
    for raw in bart, numpy:
        np.testing.assert_array_equal(raw.ksp[0, 0, 0, 0, 0], ksp)
        np.testing.assert_array_equal(raw.coord, k[..., 1::-1])
        assert (raw.grid, raw.calib) == ((32, 32), None)
    assert io.read_kspace(npy(ksp), npy(k[..., 1::-1]), (32, 28)).image_shape == (1, 32, 28)


def test_every_frame_may_have_a_trajectory_of_its_own(cfl):
    k = np.random.default_rng(0).uniform(-8, 8, (2, 5, 16, 3)).astype(np.complex64)
    k[..., 2] = 0
    ksp = cfl(_noise(2, 4, 5, 16, 1), "TIME", "COIL", "PHS2", "PHS1", "READ")
    raw = io.read_kspace(ksp, cfl(k, "TIME", "PHS2", "PHS1", "READ"))
    np.testing.assert_array_equal(raw.coord[:, 0, 0, 0, 0], k[..., 1::-1].real)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 8, 8), complex), "zero"),
        (np.full((2, 8, 8), np.nan, complex), "finite"),
        (np.full((2, 8, 8), 1e30, complex), "1e+30"),
        (np.ones((2, 8, 8)), "not complex"),
        (np.ones((8, 8), complex), "(coils, ky, kx)"),
        (np.ones((2, 2, 2, 8, 8), complex), "(coils, ky, kx)"),
        (np.zeros((0, 8, 8), complex), "zero"),
        (np.array(["text"]), "numbers"),
    ],
)
def test_kspace_that_is_none(npy, array, says):
    with pytest.raises(io.InputError) as error:
        io.read_kspace(npy(array))
    assert says in str(error.value)


def test_undersampled_readouts_of_volumes_remain_volumes(cfl, caplog):
    ksp = _noise(2, 7, 6, 9)
    ksp[:, 1, 1, 2] = 0
    raw = io.read_kspace(cfl(ksp, "COIL", "PHS2", "PHS1", "READ"))
    assert (raw.slice_axis, raw.grid, raw.image_shape) == ("slab", (7, 6, 9), (7, 6, 9))
    assert (raw.mask[0, 0, 0, 0, 0] == (ksp != 0).all(axis=0)).all()
    np.testing.assert_array_equal(raw.ksp[0, 0, 0, 0, 0], ksp)
    np.testing.assert_array_equal(raw.calib[0], ksp)
    assert raw.calib_shape == (3, 3, 3)  # a cube of 4 would begin at (1, 1, 2)
    assert "undersampled along READ" in caplog.text


@pytest.mark.parametrize(
    ("k", "says"),
    [
        (np.full((5, 16, 2), 0.5), "looks like cycles per pixel"),
        (1e6 * np.random.default_rng(0).uniform(size=(5, 16, 2)), "1 / field of view"),
        (np.full((4, 16, 2), 8.0), "(1, 1, 1, 1, 1, 4, 16)"),
        (np.full((5, 16, 4), 8.0), "(shots, samples, 2)"),
        (np.full((5, 16, 2), 8 + 0j), "real"),
    ],
)
def test_trajectories_that_do_not_fit(npy, k, says):
    with pytest.raises(io.InputError) as error:
        io.read_kspace(npy(_noise(2, 5, 16)), npy(k))
    assert says in str(error.value)


def test_of_two_sets_of_maps_the_first_is_used(cfl, caplog):
    sets = _noise(2, 3, 8, 8)
    mps = io.read_maps(cfl(sets, "MAPS", "COIL", "PHS1", "READ"))
    np.testing.assert_array_equal(mps, sets[:1].astype(np.complex64))
    assert "2 sets of maps; the first is used" in caplog.text


def test_several_sets_of_maps_are_an_axis_before_the_coils(cfl, npy, caplog):
    sets = _noise(2, 3, 8, 6)
    path = cfl(sets, "MAPS", "COIL", "PHS1", "READ")
    for file in (path, npy(sets)):
        np.testing.assert_array_equal(io.read_maps(file, maps=2), sets[None].astype(np.complex64))
    assert not caplog.records
    volumes = _noise(2, 3, 4, 8, 6)
    path = cfl(volumes, "MAPS", "COIL", "PHS2", "PHS1", "READ")
    split = io.read_maps(path, "x", maps=2)
    np.testing.assert_array_equal(split, np.moveaxis(volumes, -1, 0).astype(np.complex64))
    np.testing.assert_array_equal(io.read_maps(path, "slab", maps=2), volumes[None].astype(np.complex64))
    with pytest.raises(io.InputError, match=r"1 set of maps.*ecalib -m2"):
        io.read_maps(cfl(sets[0], "COIL", "PHS1", "READ"), maps=2)
    with pytest.raises(io.InputError, match=r"give axes \(maps, coils, y, x\)"):
        io.read_maps(npy(sets[0]), maps=2)
    io.read_maps(cfl(_noise(3, 3, 8, 6), "MAPS", "COIL", "PHS1", "READ"), maps=2)
    assert "3 sets of maps; the first 2 are used" in caplog.text


def test_bart_dimensions_that_do_not_fit(cfl):
    with pytest.raises(io.InputError, match="2 entries along COEFF"):
        io.read_kspace(cfl(_noise(2, 2, 8, 8), "COEFF", "COIL", "PHS1", "READ"))
    k = cfl(np.full((5, 16, 3), 8 + 0j), "PHS2", "PHS1", "READ")
    with pytest.raises(io.InputError, match="READ is 16"):
        io.read_kspace(cfl(_noise(2, 5, 16), "COIL", "PHS1", "READ"), k)
    with pytest.raises(io.InputError, match="2 entries along COIL"):
        io.read_kspace(
            cfl(_noise(2, 5, 16, 1), "COIL", "PHS2", "PHS1", "READ"), cfl(_noise(2, 5, 16), "COIL", "PHS1", "READ")
        )


def test_the_calibration_of_interleaved_frames_is_their_average(cfl):
    image_ksp = _noise(4, 12, 6)
    rng = np.random.default_rng(1)
    ksp = image_ksp * (1 + 0.1 * rng.standard_normal((3, 1, 1, 1)))
    masks = np.arange(12) % 3 == np.arange(3)[:, None]
    masks[0, 0] = True  # measured in two frames
    raw = io.read_kspace(cfl(ksp * masks[:, None, :, None], "TIME", "COIL", "PHS1", "READ"))
    assert raw.calib_shape == (12, 6)
    expected = (ksp * masks[:, None, :, None]).sum(axis=0) / masks.sum(axis=0)[None, :, None]
    np.testing.assert_allclose(raw.calib[0], expected, atol=1e-5)
    np.testing.assert_array_equal(raw.mask[:, 0, 0, 0, 0, :, 0], masks)


def test_frames_of_other_contrasts_do_not_join_the_calibration(cfl):
    ksp = _noise(2, 4, 12, 6)
    ksp[1] *= 5
    raw = io.read_kspace(cfl(ksp, "TE", "COIL", "PHS1", "READ"))
    np.testing.assert_array_equal(raw.calib[0], ksp[0])


def _radial(n_spokes, n, samples):
    angle = np.pi * np.arange(n_spokes) / n_spokes
    radius = (np.arange(samples) - samples // 2) * n / samples
    return (radius[None, :, None] * np.stack([np.sin(angle), np.cos(angle)], -1)[:, None]).astype(np.float32)


@pytest.mark.parametrize(("factor", "unit"), [(1 / 16, "cycles per pixel"), (2 * np.pi / 16, "radians per pixel")])
def test_maps_tell_the_unit_of_a_trajectory(npy, caplog, factor, unit):
    k = _radial(9, 16, 32)
    ksp, maps = npy(_noise(4, 9, 32)), npy(_noise(4, 16, 16))
    raw = io.read_kspace(ksp, npy(k * factor), mps=maps)
    np.testing.assert_allclose(raw.coord, k, atol=1e-5)
    assert (raw.grid, unit in caplog.text) == ((16, 16), True)
    with pytest.raises(io.InputError, match=unit):
        io.read_kspace(ksp, npy(k * factor))
    with pytest.raises(io.InputError, match=r"largest coordinate of the trajectory is 2\b.*about 8"):
        io.read_kspace(ksp, npy(k / 4), mps=maps)


def test_a_stack_of_stars_is_split_into_partitions(cfl, npy):
    n, n_partitions, volume = 16, 4, _noise(3, 4, 16, 16)
    k = _radial(9, n, 2 * n)
    planes = np.stack([sp.nufft(volume[:, z], k) for z in range(n_partitions)])  # z, coil, shots, samples
    planes = sp.fft(planes, axes=(0,))
    kz = np.arange(n_partitions) - n_partitions // 2
    ksp = planes.transpose(1, 2, 0, 3).reshape(3, -1, 2 * n)  # spoke by spoke, all partitions of each
    coord = np.concatenate(
        [np.broadcast_to(kz[None, :, None, None], (9, 4, 2 * n, 1)), np.broadcast_to(k[:, None], (9, 4, 2 * n, 2))], -1
    ).reshape(-1, 2 * n, 3)
    bart = cfl(ksp[..., None], "COIL", "PHS2", "PHS1", "READ"), cfl(coord[..., ::-1] + 0j, "PHS2", "PHS1", "READ")
    for files in ((npy(ksp), npy(coord)), bart):
        raw = io.read_kspace(*files)
        assert (raw.slice_axis, raw.grid, raw.image_shape) == ("z", (n, n), (4, n, n))
        np.testing.assert_allclose(raw.coord, k, atol=1e-5)
        expected = np.stack([sp.nufft(volume[:, z], k) for z in range(n_partitions)])
        np.testing.assert_allclose(raw.ksp[0, 0, 0, 0], expected, atol=1e-4)
        assert raw.to_image(volume[0][None, None, None, None]).shape == (1, 1, 1, 1, 4, n, n)


def test_three_dimensional_trajectories_remain_volumes(npy):
    rng = np.random.default_rng(0)
    k = (rng.uniform(-1, 1, (30, 1, 3)) * np.linspace(-8, 8, 32)[:, None]).astype(np.float32)
    k[0] = np.linspace(-8, 8, 32)[:, None]
    raw = io.read_kspace(npy(_noise(2, 30, 32)), npy(k))
    assert (raw.slice_axis, raw.grid, raw.image_shape, raw.is_3d) == ("slab", (16, 16, 16), (16, 16, 16), True)
    np.testing.assert_allclose(raw.coord, k)
    maps = npy(_noise(2, 16, 16, 16))
    assert io.read_kspace(npy(_noise(2, 30, 32)), npy(k / 16), mps=maps).coord.max() == pytest.approx(8)
    assert io.read_maps(maps, raw.slice_axis).shape == (1, 2, 16, 16, 16)
    image = _noise(1, 1, 1, 1, 1, 16, 16, 16)
    np.testing.assert_array_equal(raw.to_image(image)[0, 0, 0, 0], image[0, 0, 0, 0, 0])

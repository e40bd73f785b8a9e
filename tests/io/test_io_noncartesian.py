"""Radial and spiral raw data, in both units that are in use."""

import numpy as np
import pytest
import sigpy as sp
import sigpy.mri as mr
from helpers import kooshball, relative_error
from mrd_files import acquisition, coil_images, encoding, header, write

from hggdp_plugin import io
from hggdp_plugin.apps.recon import main

N = 16


@pytest.fixture
def images():
    return coil_images((N, N))


def spokes(count=20, samples=2 * N, offset=0.0):
    """Radial positions (shots, samples, 2) in SigPy's order (y, x) and units."""
    angle = np.pi * np.arange(count) / count + offset
    radius = (np.arange(samples) - samples // 2) * N / samples
    return (radius[None, :, None] * np.stack([np.sin(angle), np.cos(angle)], -1)[:, None]).astype(np.float32)


def shots(images, coord, factor, *, third=None, **fields):
    """Lines that sample images along positions (y, x), written as (kx, ky) times a factor."""
    ksp = sp.nufft(images, coord)
    lines = []
    for i, k in enumerate(coord):
        traj = k[:, ::-1] * factor
        if third is not None:
            traj = np.concatenate([traj, np.full((len(traj), 1), third)], axis=1)
        idx = {"kspace_encode_step_1": i} | fields.get("idx", {})
        rest = {name: value for name, value in fields.items() if name != "idx"}
        lines.append(acquisition(ksp[:, i], traj=traj.astype(np.float32), idx=idx, **rest))
    return lines


@pytest.mark.parametrize("factor", [1.0, 1 / N])
@pytest.mark.parametrize("name", ["radial", "Spiral", "other"])
def test_units(tmp_path, images, factor, name):
    coord = spokes()
    xml = header(encoding((N, N, 1), trajectory=name))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, shots(images, coord, factor)))
    assert raw.trajectory == name.lower()
    assert raw.ksp.shape == (1, 1, 1, 1, 1, 3, 20, 2 * N)
    assert raw.coord.dtype == np.float32
    np.testing.assert_allclose(raw.coord, coord, atol=1e-5)
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 0], sp.nufft(images, coord), atol=1e-5)
    assert (raw.calib, raw.grid, raw.image_shape) == (None, (N, N), (1, N, N))
    assert raw.acq_headers["idx"]["kspace_encode_step_1"].shape == (1, 1, 1, 1, 1)
    assert raw.summary()


@pytest.mark.parametrize("factor", [2.0, 1 / N])
def test_encoded_field_of_view_twice_the_image(tmp_path, images, factor):
    """Cycles per pixel refer to the encoded pixel, cycles per field of view to the encoded field of view."""
    coord = spokes()
    xml = header(encoding((2 * N, 2 * N, 1), (N, N, 1), trajectory="radial"))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, shots(images, coord, factor)))
    np.testing.assert_allclose(raw.coord, coord, atol=1e-5)


def test_frames_share_or_own_their_trajectory(tmp_path, images):
    xml = header(encoding((N, N, 1), trajectory="radial"))
    lines = shots(images, spokes(), 1) + shots(2 * images, spokes(), 1, idx={"repetition": 1})
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert raw.coord.shape == (20, 2 * N, 2)
    np.testing.assert_allclose(raw.ksp[1], 2 * raw.ksp[0], rtol=1e-5)
    lines = shots(images, spokes(), 1) + shots(images, spokes(offset=0.1), 1, idx={"repetition": 1})
    raw = io.read_raw(write(tmp_path / "b.h5", xml, lines))
    assert raw.coord.shape == (2, 1, 1, 1, 1, 20, 2 * N, 2)
    np.testing.assert_allclose(raw.coord[1, 0, 0, 0, 0], spokes(offset=0.1), atol=1e-5)


def test_incomplete_last_frame(tmp_path, images):
    xml = header(encoding((N, N, 1), trajectory="radial"))
    lines = shots(images, spokes(), 1) + shots(images, spokes(), 1, idx={"repetition": 1})
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines[:-5]))
    assert raw.ksp.shape[0] == 2
    assert raw.ksp.shape[-2] == 15
    with pytest.raises(io.InputError, match="incomplete frames"):
        io.read_raw(write(tmp_path / "b.h5", xml, lines[:-15]))


def test_third_dimension(tmp_path, images):
    lines = shots(images, spokes(), 1, third=0.3)
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1), trajectory="spiral")), lines))
    np.testing.assert_allclose(raw.coord, spokes(), atol=1e-5)


def test_discarded_samples(tmp_path, images):
    lines = shots(images, spokes(), 1, discard_pre=3, discard_post=2)
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1), trajectory="radial")), lines))
    np.testing.assert_allclose(raw.coord, spokes()[:, 3:-2], atol=1e-5)
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 0], sp.nufft(images, spokes())[..., 3:-2], atol=1e-5)


def test_unnamed_trajectory(tmp_path, images):
    xml = header(encoding((N, N, 1))).replace("<trajectory>cartesian</trajectory>", "")
    raw = io.read_raw(write(tmp_path / "a.h5", xml, shots(images, spokes(), 1)))
    assert raw.coord is not None


@pytest.mark.parametrize(
    ("factor", "unit"),
    [
        (1 / 40, "cycles per mm"),
        (1 / 0.04, "cycles per m"),
        (2 * np.pi / N, "radians per pixel"),
        (2 * np.pi / 40, "radians per mm"),
    ],
)
def test_other_units_are_found_by_the_edge_of_kspace(tmp_path, images, caplog, factor, unit):
    coord = spokes()
    xml = header(encoding((N, N, 1), ef=(40, 40, 5), rf=(40, 40, 5), trajectory="radial"))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, shots(images, coord, factor)))
    np.testing.assert_allclose(raw.coord, coord, atol=1e-5)
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert f"Trajectory in {unit} (" in warning.message
    assert f"{N / 2 * factor:.4g}" in warning.message


def test_oversampling_along_one_axis_of_the_header_only(tmp_path, images, caplog):
    """Coordinates that reach the edge of k-space along one axis alone are in another unit."""
    xml = header(encoding((2 * N, N, 1), (N, N, 1), trajectory="radial"))
    for factor in (1, 1 / N):
        raw = io.read_raw(write(tmp_path / f"{factor}.h5", xml, shots(images, spokes(), factor)))
        np.testing.assert_allclose(raw.coord, spokes(), atol=1e-5)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("factor", "fov", "says"), [(0.5, 40, "coordinate 4;"), (2 * np.pi / 110, 110, "could also be in rad")]
)
def test_doubtful_units_are_warned_of(tmp_path, images, caplog, factor, fov, says):
    xml = header(encoding((N, N, 1), ef=(fov, fov, 5), rf=(fov, fov, 5), trajectory="radial"))
    io.read_raw(write(tmp_path / "a.h5", xml, shots(images, spokes(), factor)))
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert says in warning.message


def test_spokes_that_are_called_cartesian_are_refused(tmp_path, images):
    with pytest.raises(io.InputError, match="the header says cartesian, but the readouts have trajectories"):
        io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), shots(images, spokes(), 1)))
    lines = [
        np.stack([np.arange(N) - N / 2, np.full(N, y - N / 2)], axis=-1) for y in range(N)
    ]  # Cartesian ones are read
    xml, ksp = header(encoding((N, N, 1))), sp.fft(images, axes=(-2, -1))
    acqs = [
        acquisition(ksp[:, y], traj=k.astype(np.float32), idx={"kspace_encode_step_1": y}) for y, k in enumerate(lines)
    ]
    np.testing.assert_allclose(io.read_raw(write(tmp_path / "b.h5", xml, acqs)).ksp[0, 0, 0, 0, 0], ksp, atol=1e-5)


def stack(volume, coord, *, kz_in_trajectory=False, skip=(), rotate=0.0, center=3, idx=None):
    """Acquisitions of a stack of stars: volume (coils, z, y, x), coord (spokes, samples, 2) in the order (y, x)."""
    n_partitions = volume.shape[1]
    lines = []
    for z in range(n_partitions):
        turned = spokes(len(coord), coord.shape[1], offset=rotate * z)
        planes = sp.fft(sp.nufft(volume, turned, oversamp=2, width=6), axes=(1,))[:, z]
        for i, k in enumerate(turned):
            if z in skip:
                continue
            traj = k[:, ::-1]
            if kz_in_trajectory:
                traj = np.concatenate([traj, np.full((len(k), 1), z - n_partitions // 2)], axis=1)
            step_2 = 0 if kz_in_trajectory else z - n_partitions // 2 + center
            counters = {"kspace_encode_step_1": i, "kspace_encode_step_2": step_2} | (idx or {})
            lines.append(acquisition(planes[:, i], traj=traj.astype(np.float32), idx=counters))
    return lines


@pytest.fixture
def volume():
    return coil_images((6, N, N), coils=2)


@pytest.mark.parametrize("kz_in_trajectory", [False, True])
def test_a_stack_of_stars_is_split_into_partitions(tmp_path, volume, kz_in_trajectory):
    coord = spokes()
    xml = header(encoding((N, N, 6), (N, N, 4), kz_center=3, trajectory="radial"))
    lines = stack(volume, coord, kz_in_trajectory=kz_in_trajectory)
    lines += stack(2 * volume, coord, kz_in_trajectory=kz_in_trajectory, idx={"slice": 1})
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert (raw.slice_axis, raw.is_3d, raw.grid, raw.image_shape) == ("z", True, (N, N), (8, N, N))
    assert raw.ksp.shape == (1, 1, 1, 1, 8, 2, 20, 2 * N)
    np.testing.assert_allclose(raw.coord, coord, atol=1e-5)
    expected = sp.nufft(volume[:, 1:5], coord, oversamp=2, width=6).swapaxes(0, 1)  # the slice oversampling is cropped
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, :4], expected, atol=1e-5)
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 4:], 2 * expected, atol=1e-5)
    assert raw.acq_headers.shape == (1, 1, 1, 1, 2)
    assert "8 partitions" in raw.summary()
    image = raw.to_image(np.concatenate([volume[0, 1:5]] * 2)[None, None, None, None])
    np.testing.assert_allclose(image[0, 0, 0, 0, :4], volume[0, 1:5], atol=1e-6)


@pytest.mark.parametrize("how", [{"skip": (0, 1)}, {"rotate": 0.3}])
def test_other_stacks_are_volumes(tmp_path, volume, how):
    """Partial Fourier along the partitions, or spokes that rotate from one to the next: no FFT along kz."""
    xml = header(encoding((N, N, 6), kz_center=3, trajectory="radial"))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, stack(volume, spokes(), **how)))
    assert (raw.slice_axis, raw.grid, raw.image_shape) == ("slab", (6, N, N), (6, N, N))
    coord = raw.coord.reshape(-1, 3)
    expected = sp.nufft(volume, coord, oversamp=2, width=6)
    samples = raw.ksp[0, 0, 0, 0, 0].reshape(2, -1)
    np.testing.assert_allclose(samples, expected, atol=2e-3 * np.abs(expected).max())


def test_partitions_outside_the_matrix(tmp_path, volume):
    xml = header(encoding((N, N, 6), kz_center=3, trajectory="radial"))
    with pytest.raises(io.InputError, match=r"partitions .* from 9 to 14 around 3"):
        io.read_raw(write(tmp_path / "a.h5", xml, stack(volume, spokes(), center=12)))
    xml = header(encoding((N, N, 3), kz_center=1, trajectory="radial"))
    with pytest.raises(io.InputError, match=r"kz reaches 3 .* 3 partitions"):
        io.read_raw(write(tmp_path / "b.h5", xml, stack(volume, spokes(), kz_in_trajectory=True)))


@pytest.mark.parametrize("factor", [1.0, 1 / N])
def test_a_three_dimensional_trajectory_is_a_volume(tmp_path, factor):
    volume = coil_images((N, N, N), coils=2)
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((60, 1, 3))
    direction[0] = 0, 0, 1
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    coord = (direction * (np.arange(2 * N) - N)[:, None] / 2).astype(np.float32)
    ksp = sp.nufft(volume, coord)
    lines = [acquisition(ksp[:, i], traj=k[:, ::-1] * np.float32(factor)) for i, k in enumerate(coord)]
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, N), trajectory="other")), lines))
    assert (raw.slice_axis, raw.grid, raw.image_shape, raw.mask) == ("slab", (N, N, N), (N, N, N), None)
    np.testing.assert_allclose(raw.coord, coord, atol=1e-5)
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 0], ksp, atol=1e-5)
    assert raw.geometry.position.shape == (N, 3)


def test_a_kooshball_file_is_reconstructed(tmp_path):
    """``hggdp recon kooshball.h5``, with maps from its center."""
    volume = coil_images((N, N, N), coils=1)[0]
    coord, mps = kooshball((N, N, N), 150, 2 * N), mr.birdcage_maps((4, N, N, N))
    ksp = sp.nufft(mps / np.linalg.norm(mps, axis=0) * volume, coord, oversamp=2, width=6)
    lines = [acquisition(ksp[:, i], traj=np.ascontiguousarray(k[:, ::-1])) for i, k in enumerate(coord)]
    raw = write(tmp_path / "kooshball.h5", header(encoding((N, N, N), trajectory="other")), lines)
    assert main([str(raw), "-o", str(tmp_path / "image.npy"), "-N", "2", "--float32", "-q"]) == 0
    image = np.load(tmp_path / "image.npy").squeeze()
    expected = abs(volume)
    image *= np.vdot(image, expected) / np.vdot(image, image)
    assert image.shape == (N, N, N)
    assert relative_error(image, expected) < 0.25


def test_calibration_of_a_time_series(tmp_path, images):
    xml = header(encoding((N, N, 1), trajectory="radial"))
    lines = [line for i in range(3) for line in shots(images, spokes(offset=0.1 * i), 1, idx={"repetition": i})]
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    ksp, coord = raw.calibration_shots(0)
    assert (ksp.shape, coord.shape) == ((3, 60, 2 * N), (60, 2 * N, 2))
    np.testing.assert_allclose(ksp, sp.nufft(images, coord), atol=1e-5)
    lines = shots(images, spokes(), 1) + shots(3 * images, spokes(), 1, idx={"repetition": 1})
    ksp, coord = io.read_raw(write(tmp_path / "b.h5", xml, lines)).calibration_shots(0)
    np.testing.assert_allclose(ksp, 2 * sp.nufft(images, coord), atol=1e-5)

"""Radial and spiral raw data, in both units that are in use."""

import numpy as np
import pytest
import sigpy as sp
from mrd_files import acquisition, coil_images, encoding, header, write

from hggdp_plugin import io

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
    with pytest.raises(io.InputError, match="three-dimensional"):
        io.read_raw(write(tmp_path / "b.h5", header(encoding((N, N, 4), trajectory="spiral")), lines))


def test_discarded_samples(tmp_path, images):
    lines = shots(images, spokes(), 1, discard_pre=3, discard_post=2)
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1), trajectory="radial")), lines))
    np.testing.assert_allclose(raw.coord, spokes()[:, 3:-2], atol=1e-5)
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 0], sp.nufft(images, spokes())[..., 3:-2], atol=1e-5)


def test_unnamed_trajectory(tmp_path, images):
    xml = header(encoding((N, N, 1))).replace("<trajectory>cartesian</trajectory>", "")
    raw = io.read_raw(write(tmp_path / "a.h5", xml, shots(images, spokes(), 1)))
    assert raw.coord is not None

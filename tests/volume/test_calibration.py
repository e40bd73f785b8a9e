"""Coil maps of measurements: when they alias, and which frames they come from."""

import logging

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.io.cfl import write_cfl
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation import coil_maps, head_phantom
from hggdp_plugin.volume.calibration import CoilMapEstimator
from hggdp_plugin.volume.reconstruct import reconstruct

N, FRAMES, COILS = 32, 3, 4


@pytest.fixture
def interleaved():
    """K-space (frames, coils, ky, kx) of equal frames, every third line of each, one after the other."""
    ksp = sp.fft(coil_maps(COILS, (N, N)) * head_phantom((N, N))[0], axes=(-2, -1)).astype(np.complex64)
    frames = np.zeros((FRAMES, *ksp.shape), np.complex64)
    for frame in range(FRAMES):
        frames[frame, :, frame::3] = ksp[:, frame::3]
    return ksp, frames


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("dimension", [10, 11], ids=["TIME", "TIME2"])
def test_frames_of_a_time_series_fill_each_others_gaps(tmp_path, interleaved, dimension, caplog):
    ksp, frames = interleaved
    sizes = [N, N, 1, COILS, *[1] * 12]
    sizes[dimension] = FRAMES
    write_cfl(tmp_path / "ksp.cfl", frames.reshape(sizes[::-1]))
    raw = io.read_kspace(tmp_path / "ksp.cfl")
    np.testing.assert_allclose(raw.calib[0], ksp, atol=1e-5)
    assert CoilMapEstimator(raw).calib_shape == (24, 24)
    assert not warnings_of(caplog)


@pytest.mark.parametrize("case", ["one frame", "slices whose lines fill each other's gaps"])
def test_maps_that_alias_are_warned_of(tmp_path, interleaved, case, caplog):
    frames = interleaved[1]
    np.save(tmp_path / "ksp.npy", frames[0] if case == "one frame" else frames)
    CoilMapEstimator(io.read_kspace(tmp_path / "ksp.npy"))
    (warning,) = warnings_of(caplog)
    assert "the coil maps alias" in warning
    assert "--mps" in warning


def test_slices_whose_maps_are_zero_are_zero(interleaved, tmp_path, make_network, caplog):
    ksp = interleaved[0]
    np.save(tmp_path / "ksp.npy", np.stack([ksp, ksp]))
    mps = np.stack([coil_maps(COILS, (N, N)), np.zeros((COILS, N, N))]).astype(np.complex64)
    prior, schedule = ScorePrior(make_network()), NoiseSchedule.fast(levels=2)
    raw = io.read_kspace(tmp_path / "ksp.npy")
    image = reconstruct(raw, mps, prior=prior, schedule=schedule, batch_size=1, show_pbar=False).squeeze()
    assert image[0].any()
    assert not image[1].any()
    (warning,) = warnings_of(caplog)
    assert "maps of slices [1] are zero" in warning

"""Spikes in k-space: those that are there are found, and no others; what is left out of files, and what is said."""

import logging

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array, relative_error, smooth_maps

from hggdp_plugin import HGGDPRecon, NoiseSchedule, io
from hggdp_plugin.apps.recon import main
from hggdp_plugin.conformal import sampling_family
from hggdp_plugin.hold_out import hold_out_cartesian
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import poisson_disc, random_lines, random_points, uniform_lines
from hggdp_plugin.spikes import MAX_SHARE, find_spikes, leave_out_spikes, warn_of_spikes

SHAPE = (64, 60)
MASKS = {
    "full": np.ones(SHAPE, bool),
    "random lines": np.broadcast_to(random_lines(64, 3, 12)[:, None], SHAPE),
    "lines along the other axis": np.broadcast_to(random_lines(60, 3, 12), SHAPE),
    "regular lines": np.broadcast_to(uniform_lines(64, 2, 12)[:, None], SHAPE),
    "Poisson disc": poisson_disc(SHAPE, 4, 12),
    "random points": random_points(SHAPE, 3, 8),
    "partial Fourier": np.broadcast_to((np.arange(64) >= 24)[:, None], SHAPE),
    "zeros around": np.pad(np.ones((40, 36), bool), 12),
}


def measured(image, coils, noise=0.0, mask=True):
    """k-space (coils, H, W) of an image."""
    mps = smooth_maps(coils, image.shape) if coils > 1 else 1
    y = sp.fft(mps * image[None], axes=(-2, -1))
    return ((y + noise * complex_array(*y.shape)) * mask).astype(np.complex64)


def add_spikes(y, places, size=0.1, coils=slice(None)):
    rng = np.random.default_rng(1)
    for row, column in places:
        part = y[..., coils, row, column]
        y[..., coils, row, column] = part + size * abs(y).max() * np.exp(2j * np.pi * rng.random(part.shape))
    return y


def places_of(mask, number=5):
    """Samples of the mask far from the center and from each other."""
    ky, kx = (abs(np.arange(n) - n // 2) for n in mask.shape)
    far = np.argwhere(mask & (np.minimum(ky[:, None], kx) > 3) & (np.hypot(ky[:, None], kx) > 15))
    chosen = [tuple(far[0])]
    for place in np.random.default_rng(0).permutation(far):
        if len(chosen) < number and min(np.hypot(*(place - other)) for other in chosen) > 6:
            chosen.append(tuple(place))
    return chosen


@pytest.fixture(scope="module")
def phantom():
    return head_phantom(SHAPE)[0]


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("name", MASKS)
def test_spikes_are_found_and_nothing_else(phantom, coils, name, device):
    y = measured(phantom, coils, 0.02, MASKS[name])
    places = places_of(MASKS[name])
    expected = np.zeros(SHAPE, bool)
    expected[tuple(np.transpose(places))] = True
    found = find_spikes(sp.to_device(add_spikes(y, places, 0.2), device))
    assert sp.get_device(found) == device
    np.testing.assert_array_equal(sp.to_device(found), expected)


def test_a_spike_in_one_coil_is_found(phantom):
    y = add_spikes(measured(phantom, 4, 0.02), [(10, 50)], 0.2, [2])
    assert np.argwhere(find_spikes(y)).tolist() == [[10, 50]]


def test_a_spike_next_to_a_larger_one_is_found(phantom):
    y = measured(phantom, 4, 0.02)
    add_spikes(y, [(10, 50)], 0.5)
    add_spikes(y, [(11, 51)], 0.1)
    assert np.argwhere(find_spikes(y)).tolist() == [[10, 50], [11, 51]]


def rectangle(height, width):
    return np.pad(
        np.ones((height, width)),
        [((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(SHAPE, (height, width), strict=True)],
    )


y_, x_ = np.indices(SHAPE)
DISC = np.hypot(y_ / 64 - 0.5, x_ / 60 - 0.5) < 0.4
IMAGES = {
    "noise": complex_array(*SHAPE),
    "half the field of view": rectangle(32, 30),
    "nearly all of it": rectangle(62, 58),
    "a long box": rectangle(10, 58),
    "a small box": rectangle(5, 5),
    "disc": DISC,
    "phantom": head_phantom(SHAPE)[0],
    "stripes": np.cos(2 * np.pi * 20 * x_ / 60),
    "oblique stripes": 1 + np.cos(2 * np.pi * (10 * y_ / 64 + 3 * x_ / 60)),
    "striped disc": DISC * (1 + np.cos(2 * np.pi * (16 * y_ / 64 + 15 * x_ / 60))),
    "one pixel": rectangle(1, 1),
}


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("name", IMAGES)
def test_nothing_is_found_without_spikes(name, coils):
    masks = np.stack([*MASKS.values()])
    for noise in (0, 0.3):
        # Stripes over the whole field of view are single samples: only the opposite position shows what they are.
        chosen = masks[:1] if "stripes" in name else masks
        y = measured(IMAGES[name].astype(np.complex64), coils, noise) * chosen[:, None]
        assert not find_spikes(y, chosen).any()


def test_units_do_not_matter(phantom):
    y = add_spikes(measured(phantom, 4, 0.02), [(10, 50), (50, 12)], 0.1)
    found = find_spikes(y)
    assert found.any()
    for factor in (1e-12, 1e12j):
        np.testing.assert_array_equal(find_spikes(np.complex64(factor) * y), found)


def test_many_are_something_else(phantom):
    y = measured(phantom, 4, 0.02)
    ky, kx = (abs(np.arange(n) - n // 2) for n in SHAPE)
    places = np.argwhere(np.minimum(ky[:, None], kx) > 5)
    places = places[((places % 6) == 1).all(axis=1)]
    assert len(places) > MAX_SHARE * y[0].size
    assert not find_spikes(add_spikes(y, places, 0.5)).any()


def test_frames_do_not_matter_to_each_other(phantom):
    y = np.stack([measured(phantom, 4, 0.02) for _ in range(3)]).reshape(3, 1, 4, *SHAPE)
    add_spikes(y[1, 0], [(10, 50)], 0.2)
    assert np.argwhere(find_spikes(y)).tolist() == [[1, 0, 10, 50]]


def test_left_out_of_a_measurement(phantom, caplog):
    ksp = np.stack([measured(phantom, 4, 0.02)] * 2)
    without, mask = ksp.copy(), np.ones((2, *SHAPE), bool)
    assert leave_out_spikes(ksp, mask, "raw.h5") is mask
    assert not caplog.records
    add_spikes(ksp[1], [(10, 50), (50, 12)], 0.2)
    left = leave_out_spikes(ksp, mask, "raw.h5")
    assert np.argwhere(~left).tolist() == [[1, 10, 50], [1, 50, 12]]
    np.testing.assert_array_equal(ksp, without * left[:, None])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "raw.h5: 2 samples of k-space are spikes" in record.message
    assert "slice 2; all coils" in record.message


def test_left_out_of_a_volume(phantom, caplog):
    ksp = np.stack([measured(phantom, 4, 0.02)] * 3, axis=1)  # (coils, kz, ky, kx)
    add_spikes(ksp[:, 2], [(10, 50)], 0.2, [1])
    left = leave_out_spikes(ksp[None], np.ones((1, 3, *SHAPE), bool), "volume.cfl", 3)
    assert np.argwhere(~left).tolist() == [[0, 2, 10, 50]]
    assert not ksp[:, 2, 10, 50].any()
    assert "1 sample of k-space is a spike" in caplog.text
    assert "(coil 2)" in caplog.text


def test_arrays_stay_as_they_are_with_a_warning(phantom, prior, caplog):
    mps, schedule = smooth_maps(4, SHAPE), NoiseSchedule.fast(levels=1)
    y = add_spikes(measured(phantom, 4, 0.02), [(10, 50)], 0.2)
    given = y.copy()
    options = {"prior": prior, "schedule": schedule, "show_pbar": False}
    HGGDPRecon(y, mps, **options)
    (record,) = caplog.records
    assert "y: 1 sample of k-space is a spike" in record.message
    assert "y * ~hggdp_plugin.spikes.find_spikes(y)[..., None, :, :]" in record.message
    np.testing.assert_array_equal(y, given)
    caplog.clear()
    HGGDPRecon(y * ~find_spikes(y)[..., None, :, :], mps, **options)
    HGGDPRecon(y, mps, weights=(~find_spikes(y)).astype(np.float32), **options)
    warn_of_spikes(y * 0)
    assert not caplog.records


def test_a_file_gives_the_image_without_its_spikes(phantom, tmp_path, caplog):
    y = np.stack([measured(phantom, 4, 0.02, MASKS["random lines"])] * 2)
    places = places_of(MASKS["random lines"])
    without = y.copy()
    without[(1, slice(None), *np.transpose(places))] = 0
    add_spikes(y[1], places, 0.3)
    raws, images = [], []
    for name, ksp in {"spikes": y, "without": without}.items():
        np.save(tmp_path / f"{name}.npy", ksp)
        raws.append(io.read_kspace(tmp_path / f"{name}.npy"))
        options = ["-N", "2", "--float32", "-q", "-o", str(tmp_path / f"{name}.nii")]
        assert main([str(tmp_path / f"{name}.npy"), *options]) == 0
        images.append(io.read_images(tmp_path / f"{name}.nii")[0])
    assert "They are left out" in caplog.text
    for a, b in ((raws[0].ksp, raws[1].ksp), (raws[0].mask, raws[1].mask), (raws[0].calib, raws[1].calib)):
        np.testing.assert_array_equal(a, b)
    assert relative_error(*images) < 1e-4


def test_lines_remain_lines():
    mask = MASKS["random lines"].copy()
    before = hold_out_cartesian(mask, np.random.default_rng(0))
    for row, column in places_of(mask):
        mask[row, column] = False
    assert sampling_family(mask, 4) == "lines, coils"
    np.testing.assert_array_equal(hold_out_cartesian(mask, np.random.default_rng(0)), before & mask)
    assert sampling_family(MASKS["random points"], 4) == "points, coils"

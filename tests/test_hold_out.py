import numpy as np
import pytest

from hggdp_plugin.coil_maps import CALIB_WIDTH
from hggdp_plugin.hold_out import (
    HELD_OUT_FRACTION,
    hold_out,
    hold_out_cartesian,
    hold_out_shots,
    outside_calibration,
)


def central(n: int) -> slice:
    return slice(n // 2 - CALIB_WIDTH // 2, n // 2 + CALIB_WIDTH // 2)


def test_a_few_percent_of_the_points_outside_the_calibration_region_are_held_out() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((120, 100)) < 0.2
    mask[central(120), central(100)] = True
    held = hold_out_cartesian(mask, np.random.default_rng(1))
    assert not (held & ~mask).any()
    assert not held[central(120), central(100)].any()
    n_outside = mask.sum() - mask[central(120), central(100)].sum()
    assert held.sum() == pytest.approx(HELD_OUT_FRACTION * n_outside, rel=0.1)
    assert np.array_equal(held, hold_out_cartesian(mask, np.random.default_rng(1)))
    assert not np.array_equal(held, hold_out_cartesian(mask, np.random.default_rng(2)))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("partial_readout", [False, True])
def test_whole_lines_are_held_out_where_the_mask_has_whole_lines(axis: int, partial_readout: bool) -> None:
    lines = np.random.default_rng(0).random(120) < 0.3
    lines[central(120)] = True
    mask = np.repeat(lines[:, None], 90, axis=1)
    if partial_readout:
        mask[:, :30] = False
    held = hold_out_cartesian(np.moveaxis(mask, 0, axis), np.random.default_rng(0))
    held = np.moveaxis(held, axis, 0)
    chosen = held.any(axis=1)
    assert np.array_equal(held, mask & chosen[:, None])
    assert 2 <= chosen.sum() <= 0.1 * lines.sum() + 2
    assert not chosen[central(120)].any()


def test_nothing_is_held_out_of_a_measurement_of_the_calibration_region_alone() -> None:
    mask = np.zeros((64, 64), bool)
    mask[central(64), central(64)] = True
    assert not hold_out_cartesian(mask, np.random.default_rng(0)).any()
    assert not hold_out_cartesian(np.zeros((64, 64), bool), np.random.default_rng(0)).any()


@pytest.mark.parametrize(("n_shots", "n_held"), [(1, 0), (2, 1), (10, 2), (100, 5)])
def test_shots_are_held_out_but_never_all(n_shots: int, n_held: int) -> None:
    assert hold_out_shots(n_shots, np.random.default_rng(0)).sum() == n_held


def test_samples_near_the_center_do_not_count() -> None:
    half = CALIB_WIDTH / 2
    coord = np.array([[0, 0], [half, -half], [half + 1, 0], [3, -half - 1]])
    assert outside_calibration(coord).tolist() == [False, False, True, True]


@pytest.mark.parametrize("fraction", [0.05, 0.4])
def test_a_split_keeps_some_samples_and_holds_out_the_others(fraction: float) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((2, 1, 120, 100)) < 0.3
    y = (mask * (rng.random((2, 3, 120, 100)) + 1)).astype(np.complex64)
    split = hold_out(y, None, None, 3, fraction)
    kept = split.kept > 0
    assert not (kept & split.valid).any()
    assert np.array_equal(kept | split.valid, mask)
    assert np.array_equal(split.y, y * split.valid)
    outside = mask.copy()
    outside[..., central(120), central(100)] = False
    assert split.valid.sum() == pytest.approx(fraction * outside.sum(), rel=0.1)
    again = hold_out(y, split.kept, None, 3, fraction)
    assert not (again.valid & split.valid).any()


def test_shots_that_weights_leave_out_are_not_held_out() -> None:
    coord = np.random.default_rng(0).uniform(-60, 60, (40, 50, 2)).astype(np.float32)
    y = np.ones((3, 40, 50), np.complex64)
    first = hold_out(y, None, coord, 1, 0.4)
    assert first.kept.shape == (40, 1)
    second = hold_out(y, first.kept, coord, 1, 0.4)
    out_first, out_second = first.kept[:, 0] == 0, (second.kept[:, 0] == 0) & (first.kept[:, 0] > 0)
    assert out_first.sum() == 16
    assert out_second.sum() == round(0.4 * 24)
    assert np.array_equal(second.coord, coord[out_second])
    assert second.y.shape == (3, out_second.sum(), 50)

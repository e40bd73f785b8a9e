import numpy as np
import pytest

from hggdp_plugin.simulation import masks


def middle(size, width):
    return slice(size // 2 - width // 2, size // 2 - width // 2 + width)


@pytest.mark.parametrize("size", [64, 65, 230])
@pytest.mark.parametrize("accel", [1, 2, 3.5])
def test_uniform_lines_are_accel_apart(size, accel):
    mask = masks.uniform_lines(size, accel)
    assert mask[size // 2]
    assert size / mask.sum() == pytest.approx(accel, rel=0.05)
    assert set(np.diff(np.flatnonzero(mask))) <= {int(np.floor(accel)), int(np.ceil(accel))}


@pytest.mark.parametrize("size", [64, 65, 230])
def test_line_masks_contain_the_calibration(size):
    for mask in (masks.uniform_lines(size, 4, calib=11), masks.random_lines(size, 4, calib=11)):
        assert mask[middle(size, 11)].all()
    assert masks.uniform_lines(size, 4, 12).sum() > masks.uniform_lines(size, 4).sum()


@pytest.mark.parametrize(("size", "accel", "calib"), [(64, 4, 8), (65, 2.5, 0), (230, 6, 24), (64, 1, 0), (64, 4, 16)])
def test_random_lines_take_exactly_the_lines_asked_for(size, accel, calib):
    mask = masks.random_lines(size, accel, calib, seed=3)
    assert mask.sum() == round(size / accel)


def test_random_lines_are_denser_in_the_center_and_follow_the_seed():
    chosen = np.mean([masks.random_lines(64, 4, seed=seed) for seed in range(200)], axis=0)
    assert chosen[24:40].mean() > 2 * chosen[:16].mean()
    assert (masks.random_lines(64, 4, seed=1) == masks.random_lines(64, 4, seed=1)).all()
    assert (masks.random_lines(64, 4, seed=1) != masks.random_lines(64, 4, seed=2)).any()


@pytest.mark.parametrize(("shape", "accel", "calib"), [((64, 64), 4, 12), ((65, 48), 3, 0), ((60, 80), 6, 13)])
def test_poisson_disc_meets_acceleration_and_calibration(shape, accel, calib):
    mask = masks.poisson_disc(shape, accel, calib, seed=1)
    assert mask.shape == shape
    assert mask.dtype == bool
    assert mask.size / mask.sum() == pytest.approx(accel, abs=0.1)
    assert mask[middle(shape[0], calib), middle(shape[1], calib)].all()
    assert (mask == masks.poisson_disc(shape, accel, calib, seed=1)).all()
    assert (mask != masks.poisson_disc(shape, accel, calib, seed=2)).any()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: masks.uniform_lines(64, 0.5), "at least 1"),
        (lambda: masks.uniform_lines(64, np.nan), "at least 1"),
        (lambda: masks.uniform_lines(64, 4, 65), "do not fit"),
        (lambda: masks.uniform_lines(64, 4, -1), "do not fit"),
        (lambda: masks.random_lines(64, 4, 17), "leaves 16 lines"),
        (lambda: masks.random_lines(64, 200), "leaves 0 lines"),
        (lambda: masks.poisson_disc((64, 64), 4, 64), "smaller than"),
        (lambda: masks.poisson_disc((64, 64), 40, 24), "accel=40"),
        (lambda: masks.radial_trajectory(0, 64), "spokes"),
    ],
)
def test_impossible_requests_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize("samples", [64, 65])
@pytest.mark.parametrize("golden", [True, False])
def test_spokes_run_through_the_center_in_cycles_per_pixel(samples, golden):
    spokes = masks.radial_trajectory(7, samples, golden)
    assert spokes.shape == (7, samples, 2)
    radius = np.linalg.norm(spokes, axis=-1)
    assert (radius[:, samples // 2] == 0).all()
    assert radius.max() <= 0.5
    assert radius.max() == pytest.approx(0.5, abs=1 / samples)
    np.testing.assert_allclose(np.diff(spokes, axis=1)[:, 0], np.diff(spokes, axis=1)[:, -1], atol=1e-6)
    angle = np.arctan2(*spokes[:2, -1, ::-1].T)
    assert angle[1] - angle[0] == pytest.approx(np.deg2rad(111.246) if golden else np.pi / 7, abs=1e-4)


@pytest.mark.parametrize(("shape", "calib"), [((64, 48), 5), ((65,), 4), ((40, 40), 0)])
@pytest.mark.parametrize("power", [0, 3])
def test_random_points_are_as_many_as_asked_for_and_denser_in_the_center(shape, calib, power):
    many = [masks.random_points(shape, 4, calib, power, seed) for seed in range(40)]
    assert {mask.sum() for mask in many} == {round(np.prod(shape) / 4)}
    assert all(mask[tuple(middle(size, calib) for size in shape)].all() for mask in many)
    outside = np.ones(shape, bool)
    outside[tuple(middle(size, shape[0] // 3) for size in shape)] = False
    density = np.mean(many, axis=0)
    assert (density[~outside].mean() > 2 * density[outside].mean()) == (power > 0)


def test_random_points_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="of 100 samples leaves 10 samples, fewer than the 16 in the center"):
        masks.random_points((10, 10), 10, 4)
    with pytest.raises(ValueError, match="acceleration"):
        masks.random_points((10, 10), 0.5)


def test_all_points_can_be_asked_for():
    assert masks.random_points((8, 8), 1, 8).all()
    assert masks.random_lines(8, 1, 8).all()
    assert masks.random_points((8, 8), 1).all()


@pytest.mark.parametrize("shape", [(64, 64), (65, 48), (67, 63)])
def test_spokes_on_the_grid_are_near_spokes_and_without_gaps(shape):
    mask = masks.grid_spokes(shape, 2, golden=False)
    y, x = (np.arange(size) - size // 2 for size in shape)
    expected = (y[:, None] == 0) | (x == 0)
    np.testing.assert_array_equal(mask, expected)
    assert masks.grid_spokes(shape, 30).sum() > masks.grid_spokes(shape, 20).sum() > 10 * min(shape)

"""The noise schedule: levels, steps and what it refuses."""

import numpy as np
import pytest

from hggdp_plugin.schedule import NoiseSchedule, geometric


def test_levels_are_geometric_with_their_ends():
    levels = np.array(geometric(2.0, 0.02, 5))
    assert levels[0] == pytest.approx(2)
    assert levels[-1] == pytest.approx(0.02)
    np.testing.assert_allclose(levels[1:] / levels[:-1], 0.01**0.25)
    assert geometric(0.3, 0.1, 1) == pytest.approx((0.3,))


def test_updates_go_through_the_levels_in_order():
    schedule = NoiseSchedule((1.0, 0.1), steps=3)
    assert len(schedule) == 6
    assert [schedule.sigma(i) for i in range(6)] == [1, 1, 1, 0.1, 0.1, 0.1]


def test_the_published_schedule_is_as_published():
    schedule = NoiseSchedule.hggdp()
    assert len(schedule) == 800
    assert schedule.published
    assert not schedule.published_noise
    assert not schedule.from_data
    for i in (0, 400, 799):
        sigma = schedule.sigma(i)
        step = 0.05 * 3e-5 * (sigma / 0.01) ** 2  # as its authors write it
        assert schedule.eps * sigma**2 == pytest.approx(step)


def test_the_published_sampler_counts_the_scores_it_averages():
    schedule = NoiseSchedule.hggdp(noises=3)
    assert len(schedule) == 800
    assert schedule.evaluations == 2400
    assert NoiseSchedule.hggdp().evaluations == 800


def test_the_fast_schedule_has_one_step_a_level():
    schedule = NoiseSchedule.fast(levels=7)
    assert len(schedule) == len(schedule.sigmas) == 7
    assert schedule.eps == 1
    assert all(a > b for a, b in zip(schedule.sigmas, schedule.sigmas[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sigmas", {"sigmas": ()}),
        ("sigmas", {"sigmas": (1.0, 0.0)}),
        ("sigmas", {"sigmas": (float("nan"),)}),
        ("sigmas", {"sigmas": (float("inf"), 1.0)}),
        ("steps", {"sigmas": (1.0,), "steps": 0}),
        ("eps", {"sigmas": (1.0,), "eps": 0.0}),
        ("eta", {"sigmas": (1.0,), "eta": -0.1}),
        ("noises", {"sigmas": (1.0,), "noises": 2}),
        ("noises", {"sigmas": (1.0,), "noises": 0, "published": True}),
        ("published_noise", {"sigmas": (1.0,), "published_noise": True, "langevin": True}),
        ("published", {"sigmas": (1.0,), "published": True, "langevin": True}),
        ("published", {"sigmas": (1.0,), "published": True, "eta": 0.1}),
        ("published", {"sigmas": (1.0,), "published": True, "momentum": 0.5}),
        ("published", {"sigmas": (1.0,), "published": True, "turn": True}),
    ],
)
def test_values_that_make_no_schedule_are_refused_by_name(name, options):
    with pytest.raises(ValueError, match=f"^{name}: "):
        NoiseSchedule(**options)

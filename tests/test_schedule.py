"""The noise schedule: levels, steps, rules and what it refuses."""

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from hggdp_plugin.schedule import HGGDP, FewStep, Gibbs, Langevin, NoiseSchedule, geometric


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


def test_the_hggdp_schedule_is_that_of_the_paper():
    schedule = NoiseSchedule.hggdp()
    assert len(schedule) == 800
    assert isinstance(schedule.rule, HGGDP)
    assert not schedule.rule.reference_noise
    assert not schedule.from_data
    for i in (0, 400, 799):
        sigma = schedule.sigma(i)
        step = 0.05 * 3e-5 * (sigma / 0.01) ** 2  # as in the authors' code
        assert schedule.rule.eps * sigma**2 == pytest.approx(step)


def test_averaged_scores_count_as_evaluations():
    schedule = NoiseSchedule.hggdp(n_noise_samples=3)
    assert len(schedule) == 800
    assert schedule.evaluations == 2400
    assert NoiseSchedule.hggdp().evaluations == 800


def test_the_posterior_schedule_evaluates_the_network_twice_a_step():
    schedule = NoiseSchedule.posterior(levels=30, steps=2)
    assert isinstance(schedule.rule, Gibbs)
    assert len(schedule) == 60
    assert schedule.evaluations == 120
    with pytest.raises(ValueError, match="ratio"):
        Gibbs(0.5)


def test_the_quick_schedule_is_the_fast_one_with_fewer_levels():
    quick, fast = NoiseSchedule.quick(), NoiseSchedule.fast()
    assert quick.evaluations <= 10 < fast.evaluations
    assert quick.rule == replace(fast.rule, eta=0.0)
    assert len(NoiseSchedule.quick(levels=6)) == 6


def test_the_fast_schedule_has_one_step_a_level():
    schedule = NoiseSchedule.fast(levels=7)
    assert len(schedule) == len(schedule.sigmas) == 7
    assert schedule.rule.eps == 1
    assert all(a > b for a, b in zip(schedule.sigmas, schedule.sigmas[1:], strict=False))


def test_schedules_are_values():
    assert NoiseSchedule.fast() == NoiseSchedule.fast()
    assert NoiseSchedule.fast() != NoiseSchedule.fast(momentum=0.5)
    changed = replace(NoiseSchedule.fast(), sigmas=(0.1,))
    assert (changed.sigmas, changed.rule) == ((0.1,), NoiseSchedule.fast().rule)
    assert pickle.loads(pickle.dumps(changed)) == changed
    with pytest.raises(FrozenInstanceError):
        changed.steps = 2


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sigmas", lambda: NoiseSchedule(())),
        ("sigmas", lambda: NoiseSchedule((1.0, 0.0))),
        ("sigmas", lambda: NoiseSchedule((float("nan"),))),
        ("sigmas", lambda: NoiseSchedule((float("inf"), 1.0))),
        ("steps", lambda: NoiseSchedule((1.0,), steps=0)),
        ("rule", lambda: NoiseSchedule((1.0,), 1, 0.1)),
        ("eps", lambda: Langevin(eps=0.0)),
        ("eps", lambda: HGGDP(eps=float("nan"))),
        ("eta", lambda: FewStep(eta=-0.1)),
        ("n_noise_samples", lambda: HGGDP(n_noise_samples=0)),
    ],
)
def test_values_that_are_not_possible_are_refused_by_name(name, make):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()


@pytest.mark.parametrize(
    ("old", "rule"),
    [
        ({"eta": 0.1, "momentum": 0.5, "turn": True}, FewStep(0.1, 0.5, True)),
        ({"eps": 0.1, "langevin": True}, Langevin(0.1)),
        ({"eps": 0.015, "published": True}, HGGDP()),
        ({"eps": 0.1, "published": True, "published_noise": True, "noises": 3}, HGGDP(0.1, 3, True)),
    ],
)
def test_the_old_options_still_work(old, rule):
    with pytest.warns(DeprecationWarning, match="give a rule"):
        schedule = NoiseSchedule((1.0,), steps=2, **old)
    assert schedule == NoiseSchedule((1.0,), 2, rule)


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("eps", {"eps": 0.5}),
        ("published_noise", {"noises": 2}),
        ("published_noise", {"published_noise": True, "langevin": True}),
        ("published", {"published": True, "eta": 0.1}),
        ("published", {"published": True, "langevin": True}),
        ("langevin", {"langevin": True, "momentum": 0.5}),
    ],
)
def test_old_options_that_no_rule_has_are_refused(name, old):
    with pytest.warns(DeprecationWarning, match="give a rule"), pytest.raises(ValueError, match=f"^{name}"):
        NoiseSchedule((1.0,), **old)


def test_the_old_options_of_the_presets_still_work():
    with pytest.warns(DeprecationWarning, match="turn is now called random_flips"):
        assert NoiseSchedule.fast(turn=False) == NoiseSchedule.fast(random_flips=False)
    with pytest.warns(DeprecationWarning, match="noises is now called n_noise_samples"):
        assert NoiseSchedule.hggdp(noises=3) == NoiseSchedule.hggdp(n_noise_samples=3)
    with pytest.warns(DeprecationWarning, match="published_noise is now called reference_noise"):
        assert NoiseSchedule.hggdp(published_noise=True) == NoiseSchedule.hggdp(reference_noise=True)

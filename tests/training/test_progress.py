"""What a training run says about its time."""

import logging
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning")

from hggdp_plugin.training import progress
from hggdp_plugin.training.progress import Pace, describe_duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (89, "89 s"), (100, "2 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min"), (345_600, "4.0 days")],
)
def test_durations_are_said_in_words(seconds, said):
    assert describe_duration(seconds) == said


def test_steps_with_rollouts_count_as_longer_until_they_are_measured():
    pace = Pace(change=75, factor=3.0)
    assert pace.seconds_left(25, 100, 2.0) == (50 + 25 * 3) * 2
    assert pace.seconds_left(80, 100, 6.0) == 20 * 6


class Clock:
    """Time that passes by a number of seconds at each step."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def monotonic(self):
        self.now += self.seconds
        return self.now


@pytest.mark.parametrize(("seconds", "hint"), [(3.0, False), (20.0, True)])
def test_after_its_first_steps_a_run_says_how_long_it_takes(seconds, hint, monkeypatch, caplog):
    monkeypatch.setattr(progress, "time", Clock(seconds))
    caplog.set_level(logging.INFO)
    pace, trainer = Pace(change=10_000, factor=1.0), SimpleNamespace(global_step=0, max_steps=10_000)
    pace.on_train_start(trainer, None)
    for step in range(1, 30):
        trainer.global_step = step
        pace.on_train_batch_end(trainer, None)
    said = [record.getMessage() for record in caplog.records]
    first = next(step for step in range(2, 30) if step - 1 >= 3 and (step - 1) * seconds >= 10)
    duration = describe_duration(seconds * (10_000 - first))
    assert said[0] == f"{seconds:.3g} s a step: the {10_000 - first} steps left take about {duration}"
    assert len(said) == 1 + hint
    assert not hint or (said[1].startswith(f"That is {duration}") and "--budget 8h" in said[1])

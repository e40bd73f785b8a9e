"""A training that fits a time."""

import numpy as np
import pytest

pytest.importorskip("lightning")

from hggdp_plugin.apps.train import main
from hggdp_plugin.checkpoint import load_model
from hggdp_plugin.training import budget
from hggdp_plugin.training.batches import BatchSource
from hggdp_plugin.training.budget import WIDTHS, Pace, fit_to_budget, measure_pace
from hggdp_plugin.training.config import ConfigError, TrainConfig


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.standard_normal((2, 40, 40)) + 1j * rng.standard_normal((2, 40, 40)))
    return TrainConfig(data=[tmp_path / "a.npy"], output=tmp_path / "p.safetensors", crop=32, batch_size=4, rollouts=0)


@pytest.fixture
def paces(monkeypatch):
    """Steps of the networks to choose from take 1, 2, 4 and 8 ms."""
    measured = []

    def pace(config, source):
        measured.append(config.widths)
        crops = 1e-3 * 2 ** WIDTHS.index(config.widths) if config.widths in WIDTHS else 1e-3
        return Pace(crops, 3e-3, 1.0) if config.rollouts else Pace(crops)

    monkeypatch.setattr(budget, "measure_pace", pace)
    monkeypatch.setattr(budget.torch.cuda, "is_available", lambda: False)
    return measured


def test_the_largest_network_with_enough_steps_is_chosen(config, paces):
    seconds = 1.1 * budget.ENOUGH_STEPS * 4e-3 / budget.USABLE
    chosen = fit_to_budget(config, seconds)
    assert chosen.widths == WIDTHS[2]
    assert 0.95 * 1.1 * budget.ENOUGH_STEPS < chosen.steps < 1.1 * budget.ENOUGH_STEPS
    assert len(paces) == 4
    assert fit_to_budget(config, 10 * seconds).widths == WIDTHS[3]


def test_short_times_get_the_smallest_network_and_shorter_ones_are_refused(config, paces):
    assert fit_to_budget(config, 5.0).widths == WIDTHS[0]
    with pytest.raises(ConfigError, match=r"budget='0 s': time for \d+ steps only"):
        fit_to_budget(config, 0.01)


def test_what_is_given_stays(config, paces):
    config = TrainConfig(**{**vars(config), "widths": (8, 8), "steps": 7})
    chosen = fit_to_budget(config, 100.0, given=("widths", "steps"))
    assert (chosen.widths, chosen.steps) == ((8, 8), 7)


def test_rollouts_take_their_time(config, paces):
    config = TrainConfig(**{**vars(config), "rollouts": 1, "crops_first": 0.5})
    steps = fit_to_budget(config, 10.0, given=("widths",)).steps
    assert steps == pytest.approx((10 * budget.USABLE - 1) / (1e-3 + 0.5 * 3e-3), rel=0.02)


def test_a_pace_is_measured(config):
    rng = np.random.default_rng(0)
    source = BatchSource([budget.torch.from_numpy(rng.standard_normal((2, 40, 40), np.float32))], 32)
    config = TrainConfig(**{**vars(config), "widths": (4, 8)})
    assert 0 < measure_pace(config, source).crops < 10
    assert measure_pace(config, source)[1:] == (0, 0)
    pace = measure_pace(TrainConfig(**{**vars(config), "rollouts": 1}), source)
    assert 0 < pace.rollouts < 10
    assert pace.rollouts < pace.start < 10_000 * pace.rollouts


def test_the_command_keeps_to_what_was_chosen_first(config, paces, monkeypatch, tmp_path):
    monkeypatch.setattr(budget, "WIDTHS", ((4, 8),))
    monkeypatch.setattr(budget, "LEAST_STEPS", 1)
    path = tmp_path / "p.safetensors"
    command = [str(config.data[0]), "-o", str(path), "--crop", "16", "--batch-size", "1", "--rollouts", "0"]
    assert main([*command, "--budget", "1s", "--max-time", "0s"]) == 0
    planned = load_model(path)[1]["training"]["planned_steps"]
    assert planned[0] > 1
    assert main([*command, "--budget", "2s", "--max-time", "0s"]) == 0
    training = load_model(path)[1]["training"]
    assert (training["planned_steps"], training["steps"]) == (planned, 2)
    assert load_model(path)[0].config["widths"] == [4, 8]

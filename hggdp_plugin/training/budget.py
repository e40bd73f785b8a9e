"""A training that fits a time: network, batch and steps for the machine at hand."""

import json
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from hggdp_plugin.training.batches import BatchSource
from hggdp_plugin.training.config import ConfigError, TrainConfig
from hggdp_plugin.training.loss import denoising_loss
from hggdp_plugin.training.progress import announce, describe_duration
from hggdp_plugin.training.run import (
    build_module,
    build_network,
    crops_first,
    load_training_domains,
    training_device,
    uses_bfloat16,
)

#: Channels of the networks to choose from, smallest first; each needs about twice the time of the one before.
WIDTHS = ((16, 32, 48, 56), (32, 64, 96, 112), (48, 96, 144, 168), (64, 128, 192, 224))
#: A larger network is chosen if it can make so many steps of 16 crops (docs/training.md).
ENOUGH_STEPS = 4000
#: A training of fewer steps makes no useful prior.
LEAST_STEPS = 200
#: Fraction of the time that is planned for steps; the rest is for validations, checkpoints and a slower machine.
USABLE = 0.85
#: A batch that is four times as large is chosen, on a GPU, if the time per crop falls below this fraction.
WORTHWHILE = 0.7
LARGEST_BATCH = 512
#: Steps that a pace is measured over, after one to warm up, and rollouts that theirs is.
MEASURED_STEPS = 3
#: Fields that are chosen; the run's folder remembers them.
CHOSEN = ("widths", "batch_size", "steps")


class Pace(NamedTuple):
    """Times of a training (seconds).

    Attributes:
        crops (float): Of a step on crops.
        rollouts (float): Of the rollouts of a step, in addition.
        start (float): Of the first steps of all rollouts, once.
    """

    crops: float
    rollouts: float = 0.0
    start: float = 0.0


def fit_to_budget(config: TrainConfig, seconds: float, given: Collection[str] = ()) -> TrainConfig:
    """Choose the network's widths, the batch size and the number of steps such that a training takes a given time.

    Some steps of networks of increasing size are measured on this machine. The largest network is chosen that can make
    at least :data:`ENOUGH_STEPS` steps. A run that has a checkpoint keeps what was chosen for it.

    Args:
        config (TrainConfig): The training.
        seconds (float): Time for all of it, from now.
        given (collection of str): Fields of ``config`` that must stay as they are.

    Returns:
        TrainConfig: The configuration to train with.

    Raises:
        ConfigError: The time does not suffice for a useful training.
    """
    start = time.monotonic()
    file = config.run_folder / "config.json"
    if file.exists() and (config.run_folder / "last.ckpt").exists():
        stored = json.loads(file.read_text())["config"]
        return replace(config, **{name: stored[name] for name in CHOSEN if name not in given})
    source = BatchSource(load_training_domains(config), config.crop, config.augmentation)
    fixed = "widths" in given or config.init or config.architecture != "unet"
    best: tuple[TrainConfig, Pace, int] | None = None
    for widths in [config.widths] if fixed else WIDTHS:
        trial = replace(config, widths=widths)
        pace = measure_pace(trial, source)
        steps = _affordable_steps(trial, pace, seconds - (time.monotonic() - start))
        if best is not None and steps < ENOUGH_STEPS:
            break
        best = trial, pace, steps
    assert best is not None
    trial, pace, steps = best
    if "batch_size" not in given and torch.cuda.is_available():
        trial, pace = _larger_batch(trial, source, pace, seconds)
        steps = _affordable_steps(trial, pace, seconds - (time.monotonic() - start))
    if steps < LEAST_STEPS:
        raise ConfigError(
            "budget", describe_duration(seconds), f"time for {max(steps, 0)} steps only", "give more time"
        )
    chosen = replace(trial, steps=config.steps if "steps" in given else steps)
    announce(
        logging.INFO,
        "Chosen for %s: widths %s, %d steps of %d crops (%.3g s each, with rollouts %.3g s)",
        describe_duration(seconds),
        " ".join(map(str, build_network(chosen).config.get("widths", ["of the network"]))),
        chosen.steps,
        chosen.batch_size,
        pace.crops,
        pace.crops + pace.rollouts,
    )
    return chosen


def measure_pace(config: TrainConfig, source: BatchSource) -> Pace:
    """Measure some steps of a training on the device that it would use."""
    device = training_device()
    source.to(device)
    module = build_module(config, build_network(config), source, []).to(device)
    optimizer = module.configure_optimizers()["optimizer"]
    noise = torch.Generator(device).manual_seed(0)

    def seconds(loss: Callable[[], Tensor]) -> float:
        start = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config)):
            value = loss()
        optimizer.zero_grad()
        if value.requires_grad:  # a rollout that has diverged has no gradient
            value.backward()
            optimizer.step()
        float(value.detach())  # waits for the device
        return time.monotonic() - start

    def crops() -> Tensor:
        x = module.denoiser.remove_phase(source.draw(config.batch_size, torch.Generator().manual_seed(0)))
        return denoising_loss(module.denoiser, x, module.draw_sigma(len(x), noise), noise)

    pace = Pace(fmean([seconds(crops) for _ in range(MEASURED_STEPS + 1)][1:]))
    if not module.rollouts:
        return pace
    pool = module.make_pool()
    # The first visits of slots 0, 1, ... start rollouts; at the second ones these only make a step.
    first, second = (
        fmean(seconds(partial(pool.training_step, call)) for call in range(start, start + MEASURED_STEPS))
        for start in (0, pool.n_slots)
    )
    setup = max(first - second, 0.0)
    rollout = second + setup / pool.n_slots
    return Pace(pace.crops, module.rollouts * rollout, pool.n_slots * (setup + pool.n_slots / 4 * second))


def _affordable_steps(config: TrainConfig, pace: Pace, seconds: float) -> int:
    """Return how many steps there is time for."""
    mean = pace.crops + (1 - crops_first(config)) * pace.rollouts
    return int((USABLE * seconds - pace.start) / mean)


def _larger_batch(config: TrainConfig, source: BatchSource, pace: Pace, seconds: float) -> tuple[TrainConfig, Pace]:
    """Return the configuration with a batch that a GPU is busy with, and its pace."""
    while config.batch_size * 4 <= LARGEST_BATCH:
        larger = replace(config, batch_size=4 * config.batch_size)
        slower = measure_pace(larger, source)
        if slower.crops > WORTHWHILE * 4 * pace.crops or _affordable_steps(larger, slower, seconds) < ENOUGH_STEPS:
            break
        config, pace = larger, slower
    return config, pace

"""A training that fits a time: network, batch and steps for the machine at hand."""

import json
import logging
import time
from collections.abc import Collection
from dataclasses import replace

import torch

from hggdp_plugin.training.batches import BatchSource
from hggdp_plugin.training.config import ConfigError, TrainConfig
from hggdp_plugin.training.loss import denoising_loss
from hggdp_plugin.training.progress import announce, describe_duration
from hggdp_plugin.training.run import (
    build_module,
    build_network,
    load_training_domains,
    rollout_cost,
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
#: Steps that a pace is measured over, after one to warm up.
MEASURED_STEPS = 3
#: Fields that are chosen; the run's folder remembers them.
CHOSEN = ("widths", "batch_size", "steps")


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
    best: tuple[TrainConfig, float, int] | None = None
    for widths in [config.widths] if fixed else WIDTHS:
        trial = replace(config, widths=widths)
        pace = measure_pace(trial, source)
        steps = _affordable_steps(trial, source, pace, seconds - (time.monotonic() - start))
        if best is not None and steps < ENOUGH_STEPS:
            break
        best = trial, pace, steps
    assert best is not None
    trial, pace, steps = best
    if "batch_size" not in given and torch.cuda.is_available():
        trial, pace = _larger_batch(trial, source, pace, seconds)
        steps = _affordable_steps(trial, source, pace, seconds - (time.monotonic() - start))
    if steps < LEAST_STEPS:
        raise ConfigError(
            "budget", describe_duration(seconds), f"time for {max(steps, 0)} steps only", "give more time"
        )
    chosen = replace(trial, steps=config.steps if "steps" in given else steps)
    announce(
        logging.INFO,
        "Chosen for %s: widths %s, %d steps of %d crops (%.3g s each)",
        describe_duration(seconds),
        " ".join(map(str, build_network(chosen).config.get("widths", ["of the network"]))),
        chosen.steps,
        chosen.batch_size,
        pace,
    )
    return chosen


def measure_pace(config: TrainConfig, source: BatchSource) -> float:
    """Measure the seconds of a training step on crops, on the device that a training would use."""
    device = training_device()
    source.to(device)
    module = build_module(config, build_network(config), source, []).to(device)
    optimizer = module.configure_optimizers()["optimizer"]
    noise = torch.Generator(device).manual_seed(0)
    start = 0.0
    for step in range(MEASURED_STEPS + 1):
        if step == 1:
            start = time.monotonic()
        x = source.draw(config.batch_size, torch.Generator().manual_seed(step))
        with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config)):
            clean = module.denoiser.remove_phase(x)
            loss = denoising_loss(module.denoiser, clean, module.draw_sigma(len(x), noise), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # waits for the device
    return (time.monotonic() - start) / MEASURED_STEPS


def _affordable_steps(config: TrainConfig, source: BatchSource, pace: float, seconds: float) -> int:
    """Return how many steps there is time for; those with rollouts take longer, by their images' pixels."""
    module = build_module(config, build_network(config), source, [])
    mean_pace = pace * (1 + (1 - module.crops_first) * rollout_cost(module))
    return int(USABLE * seconds / mean_pace)


def _larger_batch(config: TrainConfig, source: BatchSource, pace: float, seconds: float) -> tuple[TrainConfig, float]:
    """Return the configuration with a batch that a GPU is busy with, and its pace."""
    while config.batch_size * 4 <= LARGEST_BATCH:
        larger = replace(config, batch_size=4 * config.batch_size)
        slower = measure_pace(larger, source)
        if slower > WORTHWHILE * 4 * pace or _affordable_steps(larger, source, slower, seconds) < ENOUGH_STEPS:
            break
        config, pace = larger, slower
    return config, pace

"""One training run: images in, a prior's file out, resumable in between."""

import json
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.models.network import ScoreNetwork
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.models.unet import UNet, adapt
from hggdp_plugin.prior import has_bfloat16
from hggdp_plugin.training.augmentation import with_phase
from hggdp_plugin.training.batches import BatchSource, Domain
from hggdp_plugin.training.callbacks import Averaging, Checkpoints, Pictures, StopOnSignal
from hggdp_plugin.training.config import ConfigError, TrainConfig
from hggdp_plugin.training.images import load_domains, load_images
from hggdp_plugin.training.module import ScoreTraining
from hggdp_plugin.training.progress import Pace, ProgressBar, announce, can_show_bar
from hggdp_plugin.training.synthetic import synthetic_domains

#: Steps between checkpoints: what a crash can cost at most.
CHECKPOINT_EVERY = 200

#: Resolution of the phase that new networks do not see.
PHASE_RESOLUTION = 16

#: Fraction of the steps of a new network that come before rollouts (benchmarks/training.py).
CROPS_FIRST = 0.75

#: Height and width of synthetic images.
SYNTHETIC_SIZE = 256


def train(config: TrainConfig) -> dict[str, Any]:
    """Train a network and write the prior.

    The run's state lives in ``config.run_folder``: its configuration, the latest checkpoint, sample pictures and, one
    for every start, metrics.csv and TensorBoard events. If there is a checkpoint, the run continues from it.

    Ctrl-C and SIGTERM stop the run after the present step; checkpoint and prior of the steps done are written first.

    Args:
        config (TrainConfig): What to train, on what, and how.

    Returns:
        dict: The description written into the prior's file.

    Raises:
        InputError: Images cannot be used.
        ConfigError: The configuration does not fit the network, the machine, or what the run was started with; or the
            training diverged.
        KeyboardInterrupt: The run was stopped by Ctrl-C.
        SystemExit: The run was stopped by SIGTERM; the code is 143.
    """
    lightning.seed_everything(config.seed, verbose=False)
    network = build_network(config)
    source = BatchSource(load_training_domains(config), config.crop, config.augmentation)
    module = build_module(config, network, source, load_validation(config))
    planned = _remember(config, len(module.source))
    if config.compile:
        network.compile(dynamic=False)  # in place: the names of the weights stay
    trainer, stop = fit(module, config)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        remedy = f"delete {config.run_folder} and give a lower one"
        raise ConfigError("learning_rate", config.learning_rate, "the training has diverged", remedy)
    description = _describe(config, module, trainer, planned)
    if trainer.is_global_zero:
        save_model(Path(config.output), network, description)
    if stop.signal is not None:
        _leave(stop.signal, config, trainer)
    validate(trainer, module)
    description.update(_validation_figures(module))
    if trainer.is_global_zero:
        save_model(Path(config.output), network, description)
    more = "" if trainer.global_step >= config.steps else "; start the same command again to continue"
    announce(
        logging.INFO, "%s: the prior after %d of %d steps%s", config.output, trainer.global_step, config.steps, more
    )
    return description


def build_network(config: TrainConfig) -> Any:
    """Build the network to train: that of a prior, or a new one of the architecture asked for."""
    asked = {"blocks": config.blocks, "phase_resolution": config.phase_resolution}
    changes = {name: value for name, value in asked.items() if value is not None}
    network: Any
    options: dict[str, Any] = {"views": config.views}
    if config.init:
        network = _load_init(config, changes)
    elif config.architecture == "unet":
        options |= {"widths": config.widths} if config.widths else {}
        network = UNet(**options | {"phase_resolution": PHASE_RESOLUTION} | changes)
    else:
        options |= {"width": config.widths[0]} if config.widths else {}
        network = RefineNet(**options)
    for name in ("blocks", "phase_resolution"):
        if (value := getattr(config, name)) is not None and not isinstance(network, UNet):
            raise ConfigError(name, value, "only the U-Net has it", "leave it out")
    if config.crop % network.stride:
        raise ConfigError(
            "crop", config.crop, "the network's levels cannot halve it", f"give a multiple of {network.stride}"
        )
    return network.to(memory_format=torch.channels_last)


def build_module(
    config: TrainConfig, network: ScoreNetwork, source: BatchSource, validation: list[Tensor]
) -> ScoreTraining:
    """Build the Lightning module of a run from its network and images."""
    can = isinstance(network, UNet) and network.views == 1
    if config.rollouts and not can:
        raise ConfigError("rollouts", config.rollouts, "only for the U-Net with one view", "leave it out")
    return ScoreTraining(
        network,
        source,
        validation,
        batch_size=config.batch_size,
        steps=config.steps,
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        warmup=config.warmup,
        seed=config.seed,
        rollouts=int(can if config.rollouts is None else config.rollouts),
        rollout_batch=config.rollout_batch,
        rollout_crop=config.rollout_crop,
        rollout_levels=tuple(config.rollout_levels),
        crops_first=crops_first(config),
    )


def crops_first(config: TrainConfig) -> float:
    """Return the fraction of the steps before rollouts begin."""
    if config.crops_first is not None:
        return config.crops_first
    return 0.0 if config.init else CROPS_FIRST


def training_device() -> torch.device:
    """Return the kind of device that a training uses: GPUs if there are any."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bfloat16(config: TrainConfig) -> bool:
    """Return whether a training computes in bfloat16: where the processor has it, if not told otherwise."""
    return not config.float32 and has_bfloat16(training_device())


def rollout_cost(module: ScoreTraining) -> float:
    """Return the time of the rollouts of a training step, relative to that of its crops, estimated by their pixels."""
    side = module.rollout_crop or module.source.crop
    pixels = module.source.mean_pixels if module.rollout_batch == 1 else module.rollout_batch * side**2
    return module.rollouts * pixels / (module.batch_size * module.source.crop**2)


def load_validation(config: TrainConfig, most: int = 16) -> list[Tensor]:
    """Load at most ``most`` validation images, evenly spaced: enough for a figure, cheap enough to repeat."""
    images = load_images(config.validation) if config.validation else []
    return with_phase(images[:: max(-(-len(images) // most), 1)])


def fit(module: ScoreTraining, config: TrainConfig) -> tuple[lightning.Trainer, StopOnSignal]:
    """Train, or continue from the latest checkpoint of the run.

    Args:
        module (ScoreTraining): What to train. Afterwards its network has the averaged weights, a fraction
            ``config.init_weight`` of them those at the start.
        config (TrainConfig): The run.

    Returns:
        tuple: The trainer, and the callback that knows of a stop by a signal.
    """
    stop = StopOnSignal()
    with _quiet_lightning():
        trainer: Any = _build_trainer(module, config, stop)  # typed Any: Trainer's annotations lack its callbacks
        first = [weight.detach().clone() for weight in module.model.parameters()]
        last = config.run_folder / "last.ckpt"
        trainer.fit(module, ckpt_path=last if last.exists() else None)
    for weight, before in zip(module.model.parameters(), first, strict=True):
        weight.data.lerp_(before.to(weight.device), config.init_weight)
    return trainer, stop


def validate(trainer: Any, module: ScoreTraining) -> None:
    """Measure on the validation images, with the averaged weights, which the network has after the training.

    Args:
        trainer (Trainer): As :func:`fit` returns it.
        module (ScoreTraining): Whose attributes ``validation_psnr`` and ``reconstruction_psnr`` are set.
    """
    # The callback would show the validation its own weights, without the part of the initial ones.
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, Averaging)]
    if module.validation:
        with _quiet_lightning():
            trainer.validate(module, verbose=False)


def _load_init(config: TrainConfig, changes: dict[str, int]) -> Any:
    """Load the prior to start from, deeper or with another phase resolution if asked for."""
    try:
        network: Any = load_model(str(config.init))[0].train()
    except ValueError as error:
        problem = str(error).removeprefix(f"prior {config.init}: ")
        raise ConfigError("init", config.init, problem, "give another prior") from error
    if not changes or not isinstance(network, UNet):
        return network
    try:
        return adapt(network, **changes)
    except ValueError as error:
        problem = str(error).removeprefix("blocks: ")
        raise ConfigError("blocks", config.blocks, problem, "give at least as many") from error


def load_training_domains(config: TrainConfig) -> list[Domain]:
    """Load the images, and make the synthetic ones."""
    names = ("dead_leaves", "regions") if config.synthetic else ()
    weights = {name: weight for name, weight in config.domain_weights.items() if name not in names}
    domains = load_domains(config.data, weights)
    if config.synthetic:
        generator = torch.Generator(training_device()).manual_seed(config.seed)
        for domain in synthetic_domains(config.synthetic, SYNTHETIC_SIZE, generator):
            domains.append(Domain(domain.name, domain.images, config.domain_weights.get(domain.name, 1.0)))
    if not any(domain.weight for domain in domains):
        raise ConfigError("domain_weights", config.domain_weights, "all are 0", "give at least one domain a weight")
    listed = ", ".join(f"{domain.name} {len(domain.images)}" for domain in domains if domain.weight)
    announce(logging.INFO, "Training images: %s", listed)
    magnitude = sum(not image[1].any() for d in domains if d.weight and d.name not in names for image in d.images)
    if magnitude:
        announce(
            logging.INFO,
            "%d of them are magnitude images: each gets a random smooth phase whenever it is drawn."
            " Complex images make a better prior.",
            magnitude,
        )
    return domains


def _remember(config: TrainConfig, images: int) -> list[int]:
    """Note the run's configuration, or refuse one of another course; return the lengths planned for it so far."""
    folder, planned = config.run_folder, []
    file = folder / "config.json"
    if (folder / "last.ckpt").exists():
        if not file.exists():
            raise ConfigError("output", str(config.output), f"{folder} is of another version", "delete the folder")
        before = json.loads(file.read_text())
        planned = before["planned_steps"]
        now = {**config.course(), "images": images}
        then = {**TrainConfig.from_json(json.dumps(before["config"])).course(), "images": before["images"]}
        for name, value in now.items():
            if then[name] != value:
                problem = f"{folder} was started with {then[name]!r}"
                raise ConfigError(name, value, problem, "delete the folder to start over, or give another output")
    planned = planned if planned[-1:] == [config.steps] else [*planned, config.steps]
    folder.mkdir(parents=True, exist_ok=True)
    remembered = {"config": json.loads(config.to_json()), "images": images, "planned_steps": planned}
    file.write_text(json.dumps(remembered, indent=1) + "\n")
    return planned


def _leave(number: signal.Signals, config: TrainConfig, trainer: lightning.Trainer) -> None:
    """Say what a stopped run leaves behind, and end as the signal asks."""
    announce(
        logging.WARNING,
        "Stopped by %s after %d of %d steps. %s is the prior of these steps; start the same command again to continue.",
        number.name,
        trainer.global_step,
        config.steps,
        config.output,
    )
    if not trainer.is_global_zero:
        raise SystemExit(0)  # at another code Lightning would kill the first process
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _describe(
    config: TrainConfig, module: ScoreTraining, trainer: lightning.Trainer, planned: list[int]
) -> dict[str, Any]:
    """Describe the training, for the prior's file."""
    return {
        "training": {
            "data": [Path(path).name for path in config.data],
            "images": len(module.source),
            "domains": module.source.domains,
            "domain_weights": dict(config.domain_weights),
            "steps": trainer.global_step,
            "planned_steps": planned,
            "batch_size": config.batch_size,
            "devices": trainer.world_size,
            "crop": config.crop,
            "optimizer": config.optimizer,
            "learning_rate": config.learning_rate,
            "augmentation": asdict(config.augmentation),
            "rollouts": module.rollouts,
            "rollout_levels": list(config.rollout_levels),
            "init": config.init,
            "init_weight": config.init_weight,
        },
        "scale": "maximum magnitude of an image is 1",
    }


def _validation_figures(module: ScoreTraining) -> dict[str, Any]:
    """Return the figures of the last validation, for the prior's file."""
    figures: dict[str, Any] = {
        "validation_psnr": {f"{sigma:g}": round(psnr, 2) for sigma, psnr in module.validation_psnr.items()}
    }
    if module.rollout_psnr is not None:
        figures["validation_reconstruction_psnr"] = round(module.rollout_psnr, 2)
    return figures


def _build_trainer(module: ScoreTraining, config: TrainConfig, stop: StopOnSignal) -> lightning.Trainer:
    folder, bar = config.run_folder, can_show_bar()
    change = round(module.crops_first * config.steps) if module.rollouts else config.steps
    try:
        return lightning.Trainer(
            devices=config.devices,
            precision="bf16-mixed" if uses_bfloat16(config) else "32-true",
            max_steps=config.steps,
            max_epochs=-1,
            val_check_interval=config.validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if module.validation else 0,
            use_distributed_sampler=False,  # each process draws its own batches, and measures on all images
            gradient_clip_val=1.0,
            logger=[CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")],
            log_every_n_steps=min(50, config.steps),
            enable_model_summary=False,
            enable_checkpointing=False,  # Lightning numbers its files; here one is the latest
            enable_progress_bar=bar,
            callbacks=[
                Averaging(),
                *([ProgressBar()] if bar else []),
                Pace(
                    change,
                    1 + rollout_cost(module),
                    settling=-(-max(config.rollout_levels) // max(module.rollouts, 1)),
                    lines=not bar,
                ),
                stop,
                Pictures(folder),
                Checkpoints(folder / "last.ckpt", CHECKPOINT_EVERY, stop, config.max_time),
            ],
        )
    except MisconfigurationException as error:
        raise ConfigError("devices", config.devices, str(error), "give another number") from error


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hide Lightning's hints, and its warnings about what is meant as it is."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The loaders only count: workers would cost more than they bring, and an epoch has no end to log at.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A run may stop anywhere: each step draws its batch from its number.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own, under torch 2.13
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

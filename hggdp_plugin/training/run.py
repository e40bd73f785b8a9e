"""One training run: images in, a prior's file out, resumable in between."""

import json
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.models.unet import UNet, adapt
from hggdp_plugin.training.batches import Augmentation, BatchSource
from hggdp_plugin.training.callbacks import Averaging, Checkpoints, Pictures, ProgressBar
from hggdp_plugin.training.images import load_domains, load_images
from hggdp_plugin.training.module import ScoreTraining

#: Steps between checkpoints: what a stop can cost at most.
CHECKPOINT_EVERY = 200

#: Resolution of the phase that new networks do not see.
PHASE_RESOLUTION = 16

#: Part of the steps of a new network that come before reconstructions (benchmarks/training.py).
CROPS_FIRST = 0.75

#: What may differ between the starts of a run; the rest makes its course.
MAY_CHANGE = ("output", "val", "val_every", "max_time", "devices", "compile", "steps", "keep")


def train(args: Any) -> dict[str, Any]:
    """Train as the command line says and write the prior.

    The run's state lives in the folder ``<output>.run``: its arguments, the latest checkpoint, sample pictures and, one
    for every start, metrics.csv and TensorBoard events. If it has a checkpoint, the run continues from there.

    Args:
        args (Namespace): As :func:`hggdp_plugin.apps.train.build_parser` makes it.

    Returns:
        dict: The description written into the prior's file.

    Raises:
        ValueError: Unusable images, prior or output, arguments that are not those the run began with, or a training
            that diverged; the message says which.

    References:
        Wortsman, M., et al. (2022). Robust fine-tuning of zero-shot models. CVPR. (``args.keep``)
    """
    output: Path = args.output
    if output.suffix != ".safetensors" or not output.resolve().parent.is_dir():
        raise ValueError(f"--output {output}: give a .safetensors file in a folder that exists")
    if args.keep and not args.init:
        raise ValueError(f"--keep {args.keep:g}: only with --init, of whose weights it keeps a part; leave it out")
    folder = output.with_name(output.name + ".run")
    lightning.seed_everything(args.seed, verbose=False)
    network = _network(args)
    args.reconstructions = _reconstructions(args, network)
    module = ScoreTraining(
        network,
        BatchSource(load_domains(args.data), args.crop, Augmentation().without(args.without)),
        _spread(load_images(args.val)) if args.val else [],
        batch_size=args.batch_size,
        steps=args.steps,
        learning_rate=args.lr,
        optimizer=args.optimizer,
        seed=args.seed,
        rollouts=args.reconstructions,
        crops_first=0.0 if args.init else CROPS_FIRST,
    )
    planned = _remember(args, len(module.source), folder)
    if args.compile:
        network.compile(dynamic=False)  # in place: the names of the weights stay
    trainer = fit(module, args, folder)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise ValueError(f"--lr {args.lr:g}: the training has diverged; remove {folder} and give a lower one")
    description: dict[str, Any] = {
        "training": {
            "data": [path.name for path in args.data],
            "images": len(module.source),
            "steps": trainer.global_step,
            "planned_steps": planned,
            "batch_size": args.batch_size,
            "devices": trainer.world_size,
            "crop": args.crop,
            "optimizer": args.optimizer,
            "learning_rate": args.lr,
            "augmentation": vars(module.source.augmentation),
            "reconstructions": module.rollouts,
            "initialised_from": args.init,
            "kept": args.keep,
        },
        "scale": "maximum magnitude of an image is 1",
        "validation_psnr": {f"{sigma:g}": round(psnr, 2) for sigma, psnr in module.validation_psnr.items()},
    }
    if module.rollout_psnr is not None:
        description["validation_reconstruction_psnr"] = round(module.rollout_psnr, 2)
    if trainer.is_global_zero:
        save_model(output, network, description)
    return description


def fit(module: ScoreTraining, args: Any, folder: Path) -> lightning.Trainer:
    """Train, or go on from the latest checkpoint in a folder, and measure on the validation images.

    A part ``args.keep`` of the weights at the start stays in those at the end.

    Args:
        module (ScoreTraining): What to train; its network has the averaged weights afterwards.
        args (Namespace): As :func:`train` takes it.
        folder (Path): Where the run keeps its state.

    Returns:
        Trainer: The trainer, its work done.
    """
    trainer: Any = _trainer(module, args, folder)  # whose type does not tell of its callbacks
    first = [weight.detach().clone() for weight in module.model.parameters()]
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        # The loaders only count: workers would cost more than they bring, and an epoch has no end to log at.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # So a run may stop anywhere: each step draws its batch from its number.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own, under torch 2.13
        trainer.fit(module, ckpt_path=last if last.exists() else None)
        for weight, before in zip(module.model.parameters(), first, strict=True):
            weight.data.lerp_(before.to(weight.device), args.keep)
        # The network has the averaged weights now; the callback would show the validation its own, with nothing kept.
        trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, Averaging)]
        if module.validation:
            trainer.validate(module, verbose=False)
    return trainer


def _remember(args: Any, images: int, folder: Path) -> list[int]:
    """Note the run's arguments, or refuse others than it began with; return the lengths planned for it so far."""
    now = {name: value for name, value in vars(args).items() if name not in MAY_CHANGE}
    now = {**now, "data": [path.name for path in args.data], "images": images}
    file, planned = folder / "arguments.json", []
    if file.exists() and (folder / "last.ckpt").exists():
        before = {"reconstructions": 0, **json.loads(file.read_text())}  # none before there were any
        planned = before["steps"]
        for name, value in now.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{folder}: this run began with {name} {before.get(name)}, not {value}; remove the folder to train"
                    " anew, or give another --output"
                )
    planned = planned if planned[-1:] == [args.steps] else [*planned, args.steps]
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**now, "steps": planned}, indent=1) + "\n")
    return planned


def _network(args: Any) -> Any:
    """The network to train: that of a prior, or a new one of the architecture asked for."""
    unet = {"blocks": args.blocks, "phase_resolution": args.phase_pixels}
    changes = {name: value for name, value in unet.items() if value is not None}
    network: Any
    if args.init:
        network = load_model(args.init)[0].train()
        if changes and isinstance(network, UNet):
            network = adapt(network, **changes)
    elif args.architecture == "unet":
        widths = {"widths": args.widths} if args.widths else {}
        network = UNet(views=args.views, **widths, **{"phase_resolution": PHASE_RESOLUTION, **changes})
    elif args.widths and len(args.widths) > 1:
        raise ValueError(f"--widths {' '.join(map(str, args.widths))}: {args.architecture} takes one number")
    else:
        network = RefineNet(views=args.views, **({"width": args.widths[0]} if args.widths else {}))
    if changes and not isinstance(network, UNet):
        raise ValueError("--blocks, --phase-pixels: only the U-Net has them; leave them out")
    if args.crop % network.stride:
        raise ValueError(f"--crop {args.crop}: give a multiple of {network.stride}, which the network's levels ask for")
    return network.to(memory_format=torch.channels_last)


def _reconstructions(args: Any, network: Any) -> int:
    """How many reconstructions a step learns from."""
    can = isinstance(network, UNet) and network.views == 1
    if args.reconstructions and not can:
        raise ValueError(f"--reconstructions {args.reconstructions}: only for the U-Net with one view; leave it out")
    return int(can if args.reconstructions is None else args.reconstructions)


def _spread(images: list[torch.Tensor], most: int = 16) -> list[torch.Tensor]:
    """At most ``most`` images, evenly spaced: enough for a figure, cheap enough to repeat."""
    return images[:: -(-len(images) // most)]


def _trainer(module: ScoreTraining, args: Any, folder: Path) -> lightning.Trainer:
    try:
        return lightning.Trainer(
            devices=args.devices,
            precision="32-true" if args.float32 else "bf16-mixed",
            max_steps=args.steps,
            max_epochs=-1,
            val_check_interval=args.val_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if module.validation else 0,
            use_distributed_sampler=False,  # each process draws its own batches, and measures on all images
            gradient_clip_val=1.0,
            logger=[CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")],
            log_every_n_steps=min(50, args.steps),
            enable_model_summary=False,
            enable_checkpointing=False,  # Lightning's numbers its files; here one is the latest
            callbacks=[
                Averaging(),
                ProgressBar(),
                Pictures(folder),
                Checkpoints(folder / "last.ckpt", CHECKPOINT_EVERY, args.max_time),
            ],
        )
    except MisconfigurationException as e:
        raise ValueError(f"--devices {args.devices}: {e}") from e

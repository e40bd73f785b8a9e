"""One training run: images in, a prior's file out, resumable in between."""

import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from hggdp_plugin.checkpoint import build_model, load_model, save_model
from hggdp_plugin.training.data import BatchSource, load_images
from hggdp_plugin.training.module import ScoreTraining

#: Steps between checkpoints: what a stop can cost at most.
CHECKPOINT_EVERY = 200


class Averaging(EMAWeightAveraging):
    """Averages the weights, and leaves the average in the network also if a resumed run finds no step left to do."""

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Copy the average into the network; to do so again after ``on_train_end`` changes nothing."""
        self.on_train_end(trainer, pl_module)


def train(args: Any) -> dict[str, Any]:
    """Train as the command line says and write the prior.

    The run's state lives in the folder ``<output>.run``: the latest checkpoint and, one for every start, metrics.csv
    and TensorBoard events. If it has a checkpoint, the run continues from there.

    Args:
        args (Namespace): As :func:`hggdp_plugin.apps.train.build_parser` makes it.

    Returns:
        dict: The description written into the prior's file.

    Raises:
        ValueError: Unusable images, prior or output, named in the message.
    """
    output: Path = args.output
    if output.suffix != ".safetensors" or not output.resolve().parent.is_dir():
        raise ValueError(f"--output {output}: give a .safetensors file in a folder that exists")
    folder = output.with_name(output.name + ".run")
    lightning.seed_everything(args.seed, verbose=False)
    network = _network(args)
    module = ScoreTraining(
        network,
        BatchSource(load_images(args.data), args.crop),
        _spread(load_images(args.val)) if args.val else [],
        batch_size=args.batch_size,
        steps=args.steps,
        learning_rate=args.lr,
        seed=args.seed,
    )
    trainer = _trainer(args, folder)
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        # The loaders only count: workers would cost more than they bring, and an epoch has no end to log at.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # So a run may stop anywhere: each step draws its batch from its number.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own, under torch 2.13
        trainer.fit(module, ckpt_path=last if last.exists() else None)
        if module.validation:
            trainer.validate(module, verbose=False)
    description = {
        "training": {
            "data": [path.name for path in args.data],
            "images": len(module.source.images),
            "steps": trainer.global_step,
            "batch_size": args.batch_size,
            "crop": args.crop,
            "learning_rate": args.lr,
            "augmentation": vars(module.source.augmentation),
            "initialised_from": args.init,
        },
        "scale": "maximum magnitude of an image is 1",
        "validation_psnr": {f"{sigma:g}": round(psnr, 2) for sigma, psnr in module.validation_psnr.items()},
    }
    if trainer.is_global_zero:
        save_model(output, network, description)
    return description


def _network(args: Any) -> Any:
    """The network to train: that of a prior, or a new one of the architecture asked for."""
    options: dict[str, Any] = {"views": args.views}
    if args.widths and args.architecture == "unet":
        options["widths"] = args.widths
    elif args.widths:
        if len(args.widths) > 1:
            raise ValueError(f"--widths {' '.join(map(str, args.widths))}: {args.architecture} takes one number")
        (options["width"],) = args.widths
    network: Any = load_model(args.init)[0].train() if args.init else build_model(args.architecture, **options)
    if args.crop % network.stride:
        raise ValueError(f"--crop {args.crop}: give a multiple of {network.stride}, which the network's levels ask for")
    return network.to(memory_format=torch.channels_last)


def _spread(images: list[torch.Tensor], most: int = 16) -> list[torch.Tensor]:
    """At most ``most`` images, evenly spaced: enough for a figure, cheap enough to repeat."""
    return images[:: -(-len(images) // most)]


def _trainer(args: Any, folder: Path) -> lightning.Trainer:
    loggers = [
        CSVLogger(folder, name="csv"),
        TensorBoardLogger(folder, name="tensorboard"),
    ]
    return lightning.Trainer(
        devices=args.devices if not str(args.devices).isdigit() else int(args.devices),
        precision="32-true" if args.float32 else "bf16-mixed",
        max_steps=args.steps,
        max_epochs=-1,
        max_time=args.max_time,
        val_check_interval=args.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if args.val else 0,
        gradient_clip_val=1.0,
        logger=loggers,
        log_every_n_steps=min(50, args.steps),
        enable_model_summary=False,
        callbacks=[
            Averaging(decay=0.999),
            ModelCheckpoint(
                folder, filename="step", every_n_train_steps=CHECKPOINT_EVERY, save_last=True, save_top_k=0
            ),
        ],
    )

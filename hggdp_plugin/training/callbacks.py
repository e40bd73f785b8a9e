"""What happens beside the steps of a training run: averaged weights, checkpoints, sample pictures."""

import math
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar, WeightAveraging
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.optim.swa_utils import get_ema_multi_avg_fn

#: Noise levels of the sample pictures: the middle of a reconstruction, and its start.
PICTURE_SIGMAS = (0.1, 0.3)


class Averaging(WeightAveraging):
    """Averages the weights, and leaves the average in the network also if a resumed run finds no step left to do.

    Exponentially, over about the last ninth of the steps, at most over the last thousand: what a short run started from
    is forgotten too.
    """

    def __init__(self) -> None:
        super().__init__(multi_avg_fn=_average)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Copy the average into the network; to do so again after ``on_train_end`` changes nothing."""
        self.on_train_end(trainer, pl_module)


def _average(averaged: Any, current: Any, count: Any) -> None:
    n = int(count)
    get_ema_multi_avg_fn(min(0.999, (1 + n) / (10 + n)))(averaged, current, count)


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar, but of the run and not of its only epoch, in the middle of which a resumed run goes on.

    Its own has no total then (https://github.com/Lightning-AI/pytorch-lightning/issues/20603), and a wrong pace.
    """

    def on_train_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Begin at the step that comes next."""
        super().on_train_start(trainer, *args)
        self.train_progress_bar.total = trainer.max_steps
        self.train_progress_bar.n = self.train_progress_bar.initial = trainer.global_step

    def on_train_epoch_start(self, *args: Any) -> None:
        """Go on: an epoch is nothing new."""


class Checkpoints(lightning.Callback):
    """Keeps the latest state in one file, and stops when the time is over or the training has diverged.

    Belongs behind :class:`Averaging`. Weights that are not finite are not kept.

    Args:
        path (Path): The checkpoint.
        every (int): Steps between checkpoints.
        seconds (None or float): Time after which to stop, counted from this start.
    """

    def __init__(self, path: Path, every: int, seconds: float | None = None) -> None:
        self.path, self.every = path, every
        self.end = math.inf if seconds is None else time.monotonic() + seconds

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any) -> None:
        """Save, and stop, if it is time; all processes of a run stop once its first has found so."""
        over = self.end < math.inf and trainer.strategy.broadcast(time.monotonic() >= self.end)
        if over or trainer.global_step % self.every == 0:
            if all(bool(weight.isfinite().all()) for weight in pl_module.parameters()):
                trainer.save_checkpoint(self.path)
            else:
                over = True
        trainer.should_stop |= over


class Pictures(lightning.Callback):
    """At each validation, a picture of some validation images: clean, noisy and denoised.

    Magnitudes from 0 to 1 in grey, with the averaged weights; belongs behind :class:`Averaging`.

    Args:
        folder (Path): Where ``samples-<step>.png`` is written.
        most (int): Number of images in a picture, evenly spaced.
    """

    def __init__(self, folder: Path, most: int = 4) -> None:
        self.folder, self.most = folder, most

    @torch.no_grad()
    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Draw and write the picture."""
        images = pl_module.validation
        if not trainer.is_global_zero:
            return
        rows = [self._row(pl_module, number) for number in range(0, len(images), -(-len(images) // self.most))]
        titles = ["clean", *(f"{what}, sigma {s:g}" for s in PICTURE_SIGMAS for what in ("noisy", "denoised"))]
        figure = Figure(figsize=(2 * len(titles), 2.1 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, row in zip(figure.subplots(len(rows), len(titles), squeeze=False), rows, strict=True):
            for axis, image in zip(axes, row, strict=True):
                axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set_axis_off()
        for axis, title in zip(figure.axes, titles, strict=False):
            axis.set_title(title, fontsize=9)
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"samples-{trainer.global_step:06d}.png", dpi=120)

    @staticmethod
    def _row(module: Any, number: int) -> list[Any]:
        noise = torch.Generator(module.device).manual_seed(number)
        triples = [module.denoise(number, sigma, noise) for sigma in PICTURE_SIGMAS]
        images = [triples[0][0], *(image for _, noisy, denoised in triples for image in (noisy, denoised))]
        return [image[0, :2].norm(dim=0).cpu().numpy() for image in images]

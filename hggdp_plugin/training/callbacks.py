"""What happens beside the steps of a training run: averaged weights, checkpoints, stops, sample pictures."""

import logging
import math
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hggdp_plugin.training.progress import announce

#: Noise levels of the sample pictures: the middle of a reconstruction, and its start.
PICTURE_SIGMAS = (0.1, 0.3)


class Averaging(WeightAveraging):
    """Averages the weights, and leaves the average in the network also if a resumed run has no step left.

    Exponentially, over about the last ninth of the steps, at most the last thousand: also a short run forgets what it
    started from.
    """

    def __init__(self) -> None:
        super().__init__(multi_avg_fn=_average)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Copy the average into the network; doing so again after ``on_train_end`` changes nothing."""
        self.on_train_end(trainer, pl_module)


def _average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
    n = int(count)
    get_ema_multi_avg_fn(min(0.999, (1 + n) / (10 + n)))(averaged, current, count)


class StopOnSignal(lightning.Callback):
    """Stops the run after the present step at Ctrl-C or SIGTERM; a second signal acts at once.

    Attributes:
        signal (None or Signals): The signal that came.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Install the handlers, in place of Lightning's, which stop without a checkpoint."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)

    def on_train_end(self, *args: Any) -> None:
        """Restore the previous handlers."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def on_exception(self, *args: Any) -> None:
        """Restore the previous handlers."""
        self.on_train_end()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        announce(logging.INFO, "%s: stopping after this step; a second one stops at once", self.signal.name)
        self.on_train_end()


class Checkpoints(lightning.Callback):
    """Keeps the latest state in one file, and stops at a signal, when the time is over or the training has diverged.

    Belongs behind :class:`Averaging`. Weights that are not finite are not kept.

    Args:
        path (Path): The checkpoint.
        every (int): Steps between checkpoints; there is one after the last step too.
        stop (StopOnSignal): Whose signals stop the run.
        seconds (None or float): Time after which to stop, counted from now.
    """

    def __init__(self, path: Path, every: int, stop: StopOnSignal, seconds: float | None = None) -> None:
        self.path, self.every, self.stop = path, every, stop
        self.end = math.inf if seconds is None else time.monotonic() + seconds

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any) -> None:
        """Save, and stop, if it is time; all processes of a run do so at the same step."""
        over = self.stop.signal is not None or time.monotonic() >= self.end
        over = trainer.strategy.reduce_boolean_decision(over, all=False)
        if over and trainer.strategy.reduce_boolean_decision(self.stop.signal is not None, all=False):
            self.stop.signal = self.stop.signal or signal.SIGTERM  # another process got it
        step = trainer.global_step
        if over or step % self.every == 0 or step >= trainer.max_steps:
            if all(bool(weight.isfinite().all()) for weight in pl_module.parameters()):
                trainer.save_checkpoint(self.path)
            else:
                over = True
        trainer.should_stop |= over


class Pictures(lightning.Callback):
    """At each validation, writes a picture of some validation images: clean, noisy and denoised.

    Magnitudes from 0 to 1 in gray, with the averaged weights; belongs behind :class:`Averaging`.

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

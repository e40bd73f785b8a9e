"""How far a training run is, and how long it will take."""

import logging
import math
import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only

logger = logging.getLogger(__name__)

#: Seconds between two lines about the progress where there is no bar.
LINES_EVERY = 10.0
#: The pace is measured over at least so many steps, and so many seconds or :data:`MANY_STEPS`.
FEW_STEPS, MANY_STEPS, PACE_SECONDS = 3, 50, 10.0
#: A run that takes longer than this many seconds gets a hint.
LONG_RUN = 86_400.0


@rank_zero_only
def announce(level: int, message: str, *args: object) -> None:
    """Log a message once, also if there are several processes."""
    logger.log(level, message, *args)


def describe_duration(seconds: float) -> str:
    """Describe a duration in words, such as ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86_400:.1f} days"


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar, but of the whole run: there is one epoch, and a resumed run starts in the middle of it.

    Lightning's own has no total then (https://github.com/Lightning-AI/pytorch-lightning/issues/20603) and shows a wrong
    pace.
    """

    def on_train_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Start the bar at the next step."""
        super().on_train_start(trainer, *args)
        self.train_progress_bar.total = trainer.max_steps
        self.train_progress_bar.n = self.train_progress_bar.initial = trainer.global_step

    def on_train_epoch_start(self, *args: Any) -> None:
        """Keep the bar: it counts steps, not epochs."""


def can_show_bar() -> bool:
    """Whether a progress bar can be seen: on a terminal or in a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


class Pace(lightning.Callback):
    """Logs after the first steps how long the run will take, and, where there is no bar, how far it is.

    Args:
        change (int): Step at which slower steps begin, which are then measured and logged again.
        factor (float): Estimate of how many times longer those take.
        settling (int): The first of them, which take longer still, and are not measured.
        lines (bool): Whether to log a line every :data:`LINES_EVERY` seconds.
    """

    def __init__(self, change: int, factor: float, *, settling: int = 0, lines: bool = False) -> None:
        self.change, self.factor, self.settled, self.lines = change, factor, change + settling, lines
        self.announced: set[bool] = set()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to measure after the first step, which is slower."""
        if trainer.global_step:
            announce(logging.INFO, "Continuing after step %d of %d", trainer.global_step, trainer.max_steps)
        self.first = trainer.global_step + 1
        self.start = self.line = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any) -> None:
        """Log if it is time."""
        now, step = time.monotonic(), trainer.global_step
        if step in (self.first, self.change, self.settled):
            self.first, self.start = step, now
        measured = step - self.first
        if measured < 1:
            return
        pace = (now - self.start) / measured
        left = self.seconds_left(step, trainer.max_steps, pace)
        slow, settling = step > self.settled, self.change < step <= self.settled
        enough = measured >= FEW_STEPS and (now - self.start >= PACE_SECONDS or measured >= MANY_STEPS)
        if enough and not settling and slow not in self.announced:
            self.announced.add(slow)
            self.describe(step, trainer.max_steps, pace, left)
        elif self.lines and now - self.line >= LINES_EVERY:
            self.line = now
            loss = float(trainer.callback_metrics.get("loss", math.nan))
            announce(
                logging.INFO,
                "step %d of %d, loss %.3g, about %s left",
                step,
                trainer.max_steps,
                loss,
                describe_duration(left),
            )

    def seconds_left(self, step: int, steps: int, pace: float) -> float:
        """Estimate the remaining time from the present pace (seconds a step)."""
        if step > self.change:
            return (steps - step) * pace
        return (max(min(self.change, steps) - step, 0) + max(steps - self.change, 0) * self.factor) * pace

    def describe(self, step: int, steps: int, pace: float, left: float) -> None:
        """Log the pace and the remaining time."""
        announce(
            logging.INFO, "%.3g s a step: the %d steps left take about %s", pace, steps - step, describe_duration(left)
        )
        if left > LONG_RUN:
            announce(
                logging.WARNING,
                "That is %s: to be done sooner, stop now (Ctrl-C), delete the run's folder and train with --budget 8h,"
                " which fits network, batch and steps to this machine, or on a GPU.",
                describe_duration(left),
            )

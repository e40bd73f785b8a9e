"""Progress of a reconstruction of many slices: how far it is, and how long it will take."""

import logging
import sys
import threading
import time

import sigpy as sp
from tqdm.auto import tqdm

_logger = logging.getLogger(__name__)

#: Seconds between two lines of progress where there is no terminal.
LINE_INTERVAL = 10.0

_BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} slices [{elapsed}<{remaining}, {rate_noinv_fmt}]"


class Stopped(Exception):
    """The work is not wanted any more."""


class Progress:
    """A bar over all slices in a terminal or notebook, else a log line every :data:`LINE_INTERVAL` seconds.

    If all slices are one batch, :class:`HGGDPRecon` shows a bar of its own instead, with its noise levels. Several
    threads can report to it.

    Args:
        n_slices (int): Number of slices.
        batch_slices (int): Number of slices in a batch.
        show_pbar (bool): Whether to show any of these.
        batches (int): Batches that are processed side by side.

    Attributes:
        show_app_bar (bool): Whether the app is to show its own bar.
    """

    def __init__(self, n_slices: int, batch_slices: int, show_pbar: bool, batches: int = 1) -> None:
        self.n_slices, self.at_a_time = n_slices, batch_slices * batches
        several, watched = n_slices > batch_slices, is_interactive()
        self.show_app_bar = show_pbar and watched and not several
        self._log_lines = show_pbar and not watched
        self._done = self._resumed = 0.0
        self._lock, self._is_stopped = threading.Lock(), False
        self._estimated = not several
        self._start = time.monotonic()
        self._next_line = self._start + LINE_INTERVAL
        hidden = not (show_pbar and watched and several)
        self._bar = tqdm(total=n_slices, desc="HGGDPRecon", unit="slice", bar_format=_BAR_FORMAT, disable=hidden)

    def advance(self, slices: float) -> None:
        """Count work that is worth a number of slices.

        Raises:
            Stopped: After :meth:`stop`.
        """
        if self._is_stopped:
            raise Stopped
        with self._lock:
            self._advance(slices)

    def _advance(self, slices: float) -> None:
        self._done = min(self._done + slices, self.n_slices)  # the sum of fractions rounds
        self._bar.update(self._done - self._bar.n)
        if self._log_lines and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL
            elapsed = tqdm.format_interval(time.monotonic() - self._start)
            left = tqdm.format_interval(self._seconds_left())
            _logger.info("%.1f of %d slices, %s elapsed, about %s left.", self._done, self.n_slices, elapsed, left)

    def skip(self, slices: int) -> None:
        """Count slices that an earlier run has finished; they do not count for the speed."""
        self._resumed += slices
        self._done += slices
        if not self._bar.disable:
            self._bar.initial += slices
            self._bar.update(slices)

    def finish_batch(self) -> None:
        """Log, after the first batch, how long the others will take."""
        left = round(self.n_slices - self._done)
        if not self._estimated and left:
            duration = tqdm.format_interval(self._seconds_left())
            _logger.info("%d slices to go, %d at a time: about %s.", left, self.at_a_time, duration)
        self._estimated = True

    def stop(self) -> None:
        """Stop the threads that report."""
        self._is_stopped = True

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()

    def _seconds_left(self) -> float:
        rate = (self._done - self._resumed) / (time.monotonic() - self._start)
        return (self.n_slices - self._done) / rate


class ReportingApp(sp.app.App):
    """Mix-in of an app of one batch, which reports its updates to the progress of the volume.

    Attributes:
        progress (Progress or None): Progress of the volume.
        slices_per_update (float): What an update counts for.
    """

    progress: Progress | None = None
    slices_per_update: float = 0.0

    def _post_update(self) -> None:
        super()._post_update()
        if self.progress is not None:
            self.progress.advance(self.slices_per_update)


def is_interactive() -> bool:
    """Return whether a bar can be drawn: in a terminal or in a Jupyter notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules

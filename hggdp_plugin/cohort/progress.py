"""Progress of a cohort: files and slices done, speed, and the time that is left."""

import logging
import time

from tqdm.auto import tqdm

from hggdp_plugin.volume import progress as volume_progress

_logger = logging.getLogger(__name__)

_BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n}/{total} slices [{elapsed}<{remaining}, {rate_noinv_fmt}]"


class CohortProgress:
    """A bar over all slices in a terminal or notebook, else a log line every few seconds.

    The slices of files that were not opened yet are estimated by the mean of the others.

    Args:
        n_files (int): Number of files to reconstruct.
        show (bool): Whether to show any of these.
    """

    def __init__(self, n_files: int, show: bool) -> None:
        self.n_files, self.files, self.failed = n_files, 0, 0
        self._unknown = n_files
        self._opened = self._expected = self._slices = self._resumed = 0
        self._start = time.monotonic()
        self._next_line = self._start + volume_progress.LINE_INTERVAL
        watched = volume_progress.is_interactive()
        self._log_lines = show and not watched
        self._bar = tqdm(total=0, unit="slice", bar_format=_BAR_FORMAT, disable=not (show and watched))

    def open_file(self, slices: int, finished: int) -> None:
        """Count the slices of a file, and those that an earlier run has finished; they do not count for the speed."""
        self._unknown -= 1
        self._opened += 1
        self._expected += slices
        self._slices += finished
        self._resumed += finished

    def advance(self, slices: int) -> None:
        """Count slices that were reconstructed."""
        self._slices += slices

    def close_file(self, *, failed: bool, opened: bool = True) -> None:
        """Count a file that is done or failed, perhaps before it was opened."""
        self.files += 1
        self.failed += failed
        self._unknown -= not opened

    def show(self, workers: int) -> None:
        """Show the state, if it is time.

        Args:
            workers (int): Number of workers there are.
        """
        total = self._total()
        if not self._bar.disable:
            self._bar.desc = f"file {self.files}/{self.n_files}, {workers} workers"
            self._bar.total, self._bar.n, self._bar.initial = total, self._slices, self._resumed
            self._bar.refresh()
        if self._log_lines and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + volume_progress.LINE_INTERVAL
            _logger.info("%s", self.line(workers))

    def line(self, workers: int) -> str:
        """Return the state in one line."""
        elapsed = time.monotonic() - self._start
        rate = (self._slices - self._resumed) / max(elapsed, 1e-9)
        left = tqdm.format_interval((self._total() - self._slices) / rate) if rate else "?"
        failed = f" ({self.failed} failed)" if self.failed else ""
        total = f"about {self._total()}" if self._unknown else str(self._total())
        return (
            f"{self.files} of {self.n_files} files{failed}, {self._slices} of {total} slices, "
            f"{rate:.2f} slices/s on {workers} workers, {tqdm.format_interval(elapsed)} elapsed, about {left} left."
        )

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()

    def _total(self) -> int:
        mean = self._expected / self._opened if self._opened else 1.0
        return self._expected + round(mean * self._unknown)

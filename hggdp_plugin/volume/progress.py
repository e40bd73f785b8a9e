"""How far a reconstruction of many slices is, and how long it will take."""

import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

from hggdp_plugin.app import HGGDPRecon

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} slices [{elapsed}<{remaining}, {rate_noinv_fmt}]"


class Progress:
    """One bar for all slices, or where they are one batch, the bar of :class:`HGGDPRecon` with its noise levels.

    Args:
        total (int): Number of slices.
        size (int): Slices in a batch.
        show_pbar (bool): Whether to show a bar.
        log (function): Told once, after the first batch, how long the others will take.
    """

    def __init__(self, total: int, size: int, show_pbar: bool, log: Callable[[str], None]) -> None:
        self.several = total > size
        self.show_levels = show_pbar and not self.several
        self.left, self.size, self.log = total, size, log
        self.start: float | None = time.monotonic()
        hidden = not (show_pbar and self.several)
        self.bar = tqdm(total=total, desc="HGGDPRecon", unit="slice", bar_format=_FORMAT, disable=hidden)

    def run(self, app: HGGDPRecon, slices: float) -> Any:
        """Runs an app, which is worth a number of slices, and returns its image."""
        if not self.several:
            return app.run()
        while not app.alg.done():
            app.alg.update()
            self.bar.update(min(slices / app.alg.max_iter, self.bar.total - self.bar.n))  # sums round
        return app.image

    def skip(self, slices: int) -> None:
        """Counts slices that an earlier run has finished."""
        self.left -= slices
        self.bar.initial += slices  # they do not count for the speed
        self.bar.update(slices)

    def finish(self, slices: int) -> None:
        """Counts a batch; after the first says how long the others will take."""
        self.left -= slices
        if self.start is not None and self.left:
            seconds = (time.monotonic() - self.start) / slices * self.left
            self.bar.clear()
            self.log(f"{self.left} slices to go, {self.size} at a time: about {tqdm.format_interval(seconds)}.")
        self.start = None

    def close(self) -> None:
        """Takes leave of the bar."""
        self.bar.close()

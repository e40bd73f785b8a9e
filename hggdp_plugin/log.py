"""The log of the package, collected for reports and records."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_log(*, of_this_thread: bool = False) -> Iterator[list[tuple[str, str]]]:
    """Collect the log of the package, as pairs of level and text.

    Args:
        of_this_thread (bool): Leave out what other threads log.
    """
    messages: list[tuple[str, str]] = []
    handler = _Collector(messages, threading.get_ident() if of_this_thread else None)
    logger = logging.getLogger("hggdp_plugin")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, messages: list[tuple[str, str]], thread: int | None) -> None:
        super().__init__()
        self.messages, self.thread = messages, thread

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "hggdp_plugin.volume.progress":
            return  # of no interest afterwards
        if self.thread not in (None, record.thread):
            return
        self.messages.append((record.levelname, record.getMessage()))

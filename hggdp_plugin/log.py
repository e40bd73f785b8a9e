"""The log of the package, collected for reports and records."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_log() -> Iterator[list[tuple[str, str]]]:
    """Collect the log of the package, as pairs of level and text."""
    messages: list[tuple[str, str]] = []
    handler = _Collector(messages)
    logger = logging.getLogger("hggdp_plugin")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, messages: list[tuple[str, str]]) -> None:
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "hggdp_plugin.volume.progress":
            return  # of no interest afterwards
        self.messages.append((record.levelname, record.getMessage()))

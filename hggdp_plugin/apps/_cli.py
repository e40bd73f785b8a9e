"""What all command lines share: how a failure reaches the user."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hggdp_plugin.io import InputError

_LOGGER = logging.getLogger("hggdp_plugin")


def run(
    name: str,
    func: Callable[[Sequence[str] | None], int | None],
    argv: Sequence[str] | None = None,
    refusal: type[ValueError] = InputError,
) -> int:
    """Calls a command and turns what the user can mend into one line on stderr.

    Anything else is a defect of the package and keeps its traceback.

    Args:
        name: The command's name as the user typed it, such as ``"recon"``.
        func: The command; takes the arguments and returns an exit code, None meaning 0.
        argv: The arguments, or None for those of the process.
        refusal: What the command raises at bad input.

    Returns:
        The exit code: that of ``func``; 2 for bad input or a file that cannot be read or written; 130 when
        interrupted; 1 when the reader of stdout has gone.
    """
    try:
        with _console_log():
            code = func(argv) or 0
        sys.stdout.flush()  # a reader that has gone shows here rather than when the interpreter exits
        return code
    except BrokenPipeError:
        # The interpreter flushes what is left when it exits: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (refusal, OSError) as error:
        print(f"hggdp {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def set_quiet(quiet: bool) -> None:
    """Choose what the log shows for the rest of a command: only warnings and errors, or information too."""
    _LOGGER.setLevel(logging.WARNING if quiet else logging.INFO)


class _ConsoleHandler(logging.Handler):
    """Prints information on stdout, warnings and errors on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        text = f"{record.levelname.lower()}: {record.getMessage()}" if warning else record.getMessage()
        print(text, file=sys.stderr if warning else sys.stdout, flush=True)


@contextmanager
def _console_log() -> Iterator[None]:
    """Show the log of the package on the console while a command runs; only warnings, before :func:`set_quiet`."""
    handler, level = _ConsoleHandler(), _LOGGER.level
    _LOGGER.addHandler(handler)
    set_quiet(True)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)


def positive(text: str) -> int:
    """A count on the command line, for ``type=`` of an argument."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """As :func:`positive`, or 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if (value := int(text)) < least:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least {least}")
    return value

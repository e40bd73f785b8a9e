"""What all command lines share: how a failure reaches the user."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from hggdp_plugin.io import InputError


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

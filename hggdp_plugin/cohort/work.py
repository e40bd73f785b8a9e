"""What workers do: the three kinds of tasks of a file, and how they are called."""

import hashlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hggdp_plugin import __version__
from hggdp_plugin.memory import limit_memory

#: A worker runs one task at a time, whatever the number of its threads: its memory is planned for one.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Result:
    """What a finished file says of itself, for the manifest.

    Attributes:
        slices (int): Number of slices and frames.
        warnings (sequence of str): Warnings of the reconstruction.
        self_check (dict or None): The worst figures of the self-check.
        thumbnail (str or None): Picture of the middle slice, relative to the folder of the image.
    """

    slices: int
    warnings: Sequence[str] = ()
    self_check: dict[str, Any] | None = None
    thumbnail: str | None = None


@dataclass(frozen=True)
class Plan:
    """What there is to do for a file.

    Attributes:
        sha256 (str): Digest of the input.
        slices (int): Number of slices and frames.
        finished (int): Number of slices that an earlier run has finished.
        starts (sequence of int): First slice of each batch that is missing; empty where a file is one task.
        result (Result or None): The result, if the image is there already.
    """

    sha256: str
    slices: int
    finished: int = 0
    starts: Sequence[int] = ()
    result: Result | None = None


class Work(Protocol):
    """How the files of a cohort are reconstructed. It is sent to the workers with every task, and must be small."""

    def plan(self, path: str, output: str) -> Plan:
        """Read a file, and begin or continue its store of batches."""

    def batch(self, path: str, output: str, start: int) -> int:
        """Reconstruct one batch into the store, and return its number of slices."""

    def finish(self, path: str, output: str, sha256: str) -> Result:
        """Reconstruct what the store lacks, and write the image."""


@dataclass(frozen=True)
class Outcome:
    """What a task returns to the client.

    Attributes:
        value: Plan, number of slices or Result; None if it failed.
        reason (str or None): Why it failed, in one line.
        details (str): Traceback of an error of the program.
        seconds (float): How long it took.
        worker (str): Address of the worker.
    """

    value: Any
    reason: str | None = None
    details: str = ""
    seconds: float = 0.0
    worker: str = field(default="")


def perform(work: Work, kind: str, *args: object) -> Outcome:
    """Do a task in a worker. Errors are returned, as they concern one file only.

    Args:
        work (Work): How to reconstruct.
        kind (str): ``"plan"``, ``"batch"`` or ``"finish"``.
        *args (object): The arguments of this method of ``work``.

    Returns:
        Outcome: What came out.
    """
    with _ONE_AT_A_TIME:
        address = _prepare_process()
        start = time.monotonic()
        value, reason, details = None, None, ""
        try:
            value = getattr(work, kind)(*args)
        except (ValueError, OSError, MemoryError) as error:  # InputError is a ValueError
            reason = _line(error)
        except Exception as error:  # a bug, or a GPU without memory; the other files go on
            reason, details = f"{type(error).__name__}: {_line(error)}", traceback.format_exc()
        return Outcome(value, reason, details, time.monotonic() - start, address)


def sha256_of(path: str) -> str:
    """Return the SHA-256 digest of the content of a file."""
    with open(path, "rb") as file:
        if hasattr(hashlib, "file_digest"):  # Python 3.11
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def installed_version() -> str:
    """Return the version of this package, for a client that asks its workers."""
    return __version__


def _prepare_process() -> str:
    """Set threads, log and memory of this process, and return the address of the worker."""
    from distributed import get_worker

    logging.getLogger("hggdp_plugin").setLevel(logging.INFO)  # for the records; it is shown nowhere
    if "torch" in sys.modules and (threads := os.environ.get("OMP_NUM_THREADS")):
        sys.modules["torch"].set_num_threads(int(threads))  # it may have been loaded before Dask set the variable
    worker = get_worker()
    limit_memory(worker.memory_manager.memory_limit)
    return str(worker.address)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

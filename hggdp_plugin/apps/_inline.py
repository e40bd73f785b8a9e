"""What keeps an inline server going: bounds on the time and memory of a client, and one reconstruction at a time."""

import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hggdp_plugin.io.files import InputError
from hggdp_plugin.memory import free_host_memory

if TYPE_CHECKING:
    import ismrmrd

#: Seconds without a message after which a scan counts as given up; the environment variable overrides it.
IDLE_SECONDS, IDLE_VARIABLE = 600, "HGGDP_IDLE_SECONDS"
#: Largest stream in bytes that is kept; the environment variable overrides it. None: what fits into the memory.
MAX_BYTES_VARIABLE = "HGGDP_MAX_STREAM_BYTES"
#: Memory that a scan may need, as a multiple of the bytes received: itself, then k-space of image and calibration while
#: it is sorted. The arrays of a reconstruction adapt to the memory that is free. Measured: benchmarks/inline.py.
PEAK_FACTOR = 3.5
#: Bytes between two looks at the free memory.
CHECK_BYTES = 1 << 25
#: Seconds until an idle connection is probed, between probes, and probes without an answer until it counts as dead.
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: Identifier of the message that ends a stream.
CLOSE = 4


def bound_waiting(connection: object) -> None:
    """Bound the time that a connection waits for its client, so that none is served forever.

    Args:
        connection (object): The server's connection. Without an attribute ``socket`` nothing is bounded.
    """
    client = getattr(connection, "socket", None)
    if not isinstance(client, socket.socket) or os.name != "posix":
        return
    # Not settimeout(): the server reads with MSG_WAITALL, which works on blocking sockets only.
    limit = struct.pack("@ll", int(os.environ.get(IDLE_VARIABLE, IDLE_SECONDS)), 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        with suppress(AttributeError, OSError):  # not on every system, and not on local sockets
            client.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def receive(connection: Iterable[object], source: str) -> "list[ismrmrd.Acquisition]":
    """Collect the acquisitions of a stream. Waveforms and images in it are not needed.

    It is read to the end even if it is refused: a client that still sends would not read the answer.

    Args:
        connection (Connection): The server's connection.
        source (str): Where the acquisitions come from, for messages.

    Returns:
        list of ismrmrd.Acquisition: At least one.

    Raises:
        InputError: The stream is empty, broke off, stalled, or does not fit into the memory.
    """
    finished = _notice_close(connection)
    acquisitions: list[ismrmrd.Acquisition] = []
    count, size, room = 0, 0, _Room()
    try:
        for item in connection:
            if item is None:
                break
            if hasattr(item, "traj"):
                acquisition = cast("ismrmrd.Acquisition", item)
                count, size = count + 1, size + acquisition.data.nbytes + acquisition.traj.nbytes
                acquisitions.append(acquisition)
                if not room.holds(size):
                    acquisitions.clear()
    except BlockingIOError:
        problem = f"nothing came for {os.environ.get(IDLE_VARIABLE, IDLE_SECONDS)} s, after {count} acquisitions"
        raise InputError(source, problem, f"send the measurement again, or set {IDLE_VARIABLE}") from None
    except Exception as error:  # whatever a truncated message raises in the server
        problem = f"it ended early, after {count} acquisitions ({type(error).__name__}: {error})"
        raise InputError(source, problem, "send the measurement again") from error
    if not finished():
        problem = f"it ended without the closing message, after {count} acquisitions"
        raise InputError(source, problem, "send the measurement again")
    if not count:
        raise InputError(source, "it contains no acquisitions", "send raw data, not images")
    if not room.is_enough:
        problem = f"its {size / 1e6:.0f} MB do not fit into the memory that the server has left"
        raise InputError(source, problem, "send it again later, or use a server with more memory")
    return acquisitions


class _Room:
    """Whether the memory suffices for a stream and its reconstruction."""

    def __init__(self) -> None:
        self.is_enough = True
        self._next_check = 0
        self._most = int(os.environ[MAX_BYTES_VARIABLE]) if MAX_BYTES_VARIABLE in os.environ else None

    def holds(self, size: int) -> bool:
        """Return whether so many bytes, all of them received, still fit; once they do not, none do."""
        if self._most is not None:
            self.is_enough &= size <= self._most
        elif size >= self._next_check:
            self._next_check = size + CHECK_BYTES
            self.is_enough &= (PEAK_FACTOR - 1) * size < free_host_memory()
        return self.is_enough


def _notice_close(connection: object) -> Callable[[], bool]:
    """Return a function that says whether the client has sent the message that ends a stream.

    For the server's iterator, a client that vanished between two messages ends the stream too.
    """
    handlers = getattr(connection, "handlers", None)
    if not isinstance(handlers, dict) or CLOSE not in handlers:
        return lambda: True
    original, closed = handlers[CLOSE], []

    def noticed() -> object:
        closed.append(True)
        return original()

    handlers[CLOSE] = noticed
    return lambda: bool(closed)


def is_gone(connection: object) -> bool:
    """Return whether the client has closed its connection. That shows some time after something was sent to it."""
    client = getattr(connection, "socket", None)
    if not isinstance(client, socket.socket) or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(client, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


@contextmanager
def turn(device: str) -> Iterator[None]:
    """Wait until no other process of this user reconstructs inline on a device; the turn goes with its process.

    Ten reconstructions at once would take ten times the memory, and on a CPU more than ten times the time.

    Args:
        device (str): Name of the device, such as ``"cpu"``.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(Path(tempfile.gettempdir(), f"hggdp-inline-{os.getuid()}-{device}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Stopwatch:
    """Seconds of the stages of a scan."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """Note the seconds since the last call as those of a stage."""
        now = time.monotonic()
        self.seconds[stage], self._last = now - self._last, now

    def __str__(self) -> str:
        """Return all stages in one line."""
        return ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self.seconds.items())

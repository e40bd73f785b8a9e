"""Processes that hold different coils: they fail together, and agree on what must be the same everywhere."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array


class ProcessError(RuntimeError):
    """Another process failed; its own message says why."""


class Processes:
    """A SigPy communicator whose processes fail together instead of waiting forever for one that failed.

    Before every exchange the processes tell each other whether all is well. One that failed inside :meth:`together`
    takes part in the next of these, and all others then raise :class:`ProcessError` too. The price is a second, tiny
    exchange each time.

    Args:
        comm (Communicator): SigPy communicator of at least two processes.

    Attributes:
        size (int): Number of processes.
        rank (int): Number of this one.
    """

    def __init__(self, comm: sp.Communicator) -> None:
        self.comm, self.size, self.rank = comm, int(comm.size), int(comm.rank)
        self._inside, self._failure = False, ""

    @classmethod
    def of(cls, comm: "sp.Communicator | Processes | None") -> "Processes | None":
        """Return the processes of a communicator, None for one process alone."""
        if comm is None or isinstance(comm, cls):
            return comm
        return cls(comm) if comm.size > 1 else None

    def allreduce(self, array: Array) -> None:
        """Replace an array by the sum over all processes.

        Args:
            array (array): Float or complex, of the same shape and type in every process.

        Raises:
            ProcessError: Another process failed.
        """
        self._all_well(True)
        total = sp.get_array_module(array).ascontiguousarray(array)  # MPI sends no other
        self.comm.allreduce(total)
        if total is not array:
            array[...] = total

    def concatenate(self, array: Array) -> Array:
        """Concatenate the arrays of all processes along their first axis.

        Args:
            array (array): Of the same type and shape in every process, up to the first axis.

        Returns:
            array: The same in every process.
        """
        xp = sp.get_array_module(array)
        lengths = np.zeros(self.size)
        lengths[self.rank] = len(array)
        self.allreduce(lengths)
        ends = lengths.cumsum().astype(int)
        whole = xp.zeros((ends[-1], *array.shape[1:]), array.dtype)
        whole[ends[self.rank] - len(array) : ends[self.rank]] = array
        self.allreduce(whole)
        return whole

    def check_same(self, **values: object) -> None:
        """Refuse values that are not the same in every process.

        Args:
            **values (object): Bytes, or anything with a meaningful ``repr``, by the name of the argument.

        Raises:
            ValueError: In every process: names what differs, and where.
        """
        digests = np.zeros((len(values), self.size))  # which hold 32 bits exactly
        for row, value in zip(digests, values.values(), strict=True):
            row[self.rank] = zlib.crc32(value if isinstance(value, bytes) else repr(value).encode())
        self.allreduce(digests)
        for name, row in zip(values, digests, strict=True):
            if (different := np.flatnonzero(row != row[0])).size:
                raise ValueError(f"comm: {name} of process {different[0]} is not that of process 0")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block that all processes leave together: normally, or each with an error.

        Raises:
            ProcessError: Another process failed in its block.
        """
        if self._inside:
            yield
            return
        self._inside, self._failure = True, ""
        try:
            yield
            self._all_well(True)
        except BaseException:
            if self._failure:  # SigPy's operators have wrapped it
                raise ProcessError(self._failure) from None
            self._all_well(False)
            raise
        finally:
            self._inside = False

    def _all_well(self, here: bool) -> None:
        failed = np.zeros(self.size, np.float32)
        failed[self.rank] = not here
        self.comm.allreduce(failed)
        if here and failed.any():
            names = ", ".join(map(str, np.flatnonzero(failed)))
            self._failure = f"comm: process {names} failed; its own message says why"
            raise ProcessError(self._failure)

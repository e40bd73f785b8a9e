"""Batches side by side, in threads that have a part of the cores each.

Two batches with a core each are done earlier than one after the other on both cores: nothing waits for the threads of
the other core, and what NumPy computes in one thread is computed on all cores.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], n_workers: int, stop: Callable[[], None]
) -> Generator[Result, None, None]:
    """Call a function on several items at a time, on the CPU.

    Args:
        function (function): What to call, with a part of PyTorch's threads.
        items (iterable): Its arguments.
        n_workers (int): Items at a time. 1: one after the other in this thread, with all threads of PyTorch.
        stop (function): Called after a failure, and at the end: calls that still run are to raise an exception soon.

    Yields:
        The results, in the order of the items.

    Raises:
        BaseException: The first exception of a call, as soon as the others have stopped.
    """
    if n_workers == 1:
        yield from map(function, items)
        return
    failures: list[BaseException] = []

    def call(item: Item) -> Result:
        if failures:
            raise failures[0]
        try:
            return function(item)
        except BaseException as error:
            failures.append(error)
            stop()
            raise

    n_threads = torch.get_num_threads()
    each = max(1, n_threads // n_workers)
    pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(each,))
    try:
        with threadpool_limits(1, user_api="blas"):  # once: the limit is that of the whole process
            for future in [pool.submit(call, item) for item in items]:
                try:
                    result = future.result()
                except BaseException:
                    if failures:
                        raise failures[0] from None  # the others only stopped because of it
                    raise
                yield result
    finally:
        stop()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)

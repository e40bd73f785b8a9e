"""Memory that NumPy and PyTorch free again and again, kept by the process.

The C library of Linux returns large blocks to the system as soon as they are freed. The next block of the same size is
new memory, whose pages the system fills with zeros at the first access: a sixth of the time of a reconstruction
(benchmarks/volume.py).
"""

import ctypes
import sys

#: Parameters of mallopt in glibc: free memory that is kept at the end of the heap, and from which size a block is
#: memory of its own, which is returned when it is freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Largest values; older versions of glibc take no more than the second one as a threshold of blocks.
_MOST, _LARGEST_BLOCK = 2**31 - 1, 2**25


def keep_freed_memory() -> None:
    """Keep freed blocks for later ones, where the C library is glibc; elsewhere nothing happens.

    The peak of the memory stays nearly the same, but the process keeps it until its end.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_TRIM_THRESHOLD, _MOST)
        if not mallopt(_M_MMAP_THRESHOLD, 2**30):
            mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)

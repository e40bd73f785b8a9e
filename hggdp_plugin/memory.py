"""Free memory, and the bytes that a reconstruction needs per pixel."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sigpy as sp

#: Fraction of the free memory to plan with: the byte counts below are rounded, and other programs need memory too.
USABLE_FRACTION = 0.5
#: Bytes per pixel of the network of the default prior (measured, then rounded up).
NETWORK_BYTES_PER_PIXEL = 1000
#: Bytes per pixel and coil of data consistency; off the Cartesian grid, the NUFFT needs an oversampled grid as well,
#: whose size along each axis is twice that of the image.
COIL_BYTES_PER_PIXEL, COIL_BYTES_PER_PIXEL_NUFFT = 96, 256
#: Largest number of coils of a volume that are processed at a time. More are hardly faster.
MAX_COILS_3D = 4

_limit = math.inf


def coil_bytes_per_pixel(cartesian: bool) -> int:
    """Return the bytes that data consistency needs per pixel and coil."""
    return COIL_BYTES_PER_PIXEL if cartesian else COIL_BYTES_PER_PIXEL_NUFFT


def coils_at_a_time(shape: tuple[int, ...], coils: int, cartesian: bool, device: "sp.Device", ndim: int = 2) -> int:
    """Return how many coils fit into the free memory of a device together, at least 1.

    Args:
        shape (tuple of ints): Shape (..., y, x) of the images that are reconstructed together.
        coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on the Cartesian grid.
        device (Device): Where the reconstruction runs.
        ndim (int): Axes of an image; 3 for volumes.

    Returns:
        int: Number of coils, from 1 to ``coils``.
    """
    pixels = math.prod(shape)
    rest = USABLE_FRACTION * free_memory(device) - pixels * NETWORK_BYTES_PER_PIXEL
    bytes_per_pixel = coil_bytes_per_pixel(cartesian)
    if ndim == 3:
        coils, bytes_per_pixel = min(coils, MAX_COILS_3D), 2 * bytes_per_pixel
    return int(min(max(rest / (pixels * bytes_per_pixel), 1), coils))


def limit_memory(limit: float | None) -> None:
    """Plan with at most so much memory of the computer, whatever is free: a cluster ends workers that need more.

    Args:
        limit (float or None): Bytes; None: no limit.
    """
    global _limit
    _limit = math.inf if limit is None else limit


def free_memory(device: "sp.Device") -> float:
    """Return the bytes that can still be allocated on a device, infinity where the system does not say.

    Args:
        device (Device): CPU or GPU. On a GPU, the free blocks of CuPy's memory pool count as free.

    Returns:
        float: Bytes.
    """
    if device.id < 0:
        return free_host_memory()
    with device:
        xp = device.xp
        return float(xp.cuda.Device().mem_info[0] + xp.get_default_memory_pool().free_bytes())


def free_host_memory() -> float:
    """Return the bytes that a process can still allocate, infinity where the system does not say."""
    free = _limit
    if (meminfo := Path("/proc/meminfo")).exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        if "MemAvailable" in fields:
            free = min(free, 1024.0 * int(fields["MemAvailable"].split()[0]))
    group = Path("/sys/fs/cgroup")
    try:  # The memory limit of a container. Its page cache can be reclaimed.
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        used = int((group / "memory.current").read_text()) - int(cached)
        free = min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError, KeyError):  # no limit
        pass
    return free

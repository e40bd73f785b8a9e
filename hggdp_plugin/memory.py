"""How much is processed at a time, from the memory that is free."""

import math
from pathlib import Path

import sigpy as sp

#: Slices that go through the network at a time at most: more are not faster.
MAX_SLICES, MAX_SLICES_GPU = 8, 32
#: Share of the free memory to plan with: the needs below are rounded, and others need memory too.
SHARE = 0.5
#: Bytes that a pixel needs in the default prior's network, and in each coil during data consistency (measured, then
#: rounded up); off the Cartesian grid the NUFFT's larger grid comes on top.
NETWORK, COIL, COIL_NUFFT = 1000, 96, 256


def slices_at_a_time(shape: tuple[int, ...], coils: int, cartesian: bool, device: sp.Device) -> int:
    """Slices that fit into the free memory of a device together, at least 1.

    Args:
        shape (tuple): Matrix (y, x).
        coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on a grid.
        device (Device): Where to reconstruct.
    """
    limit = MAX_SLICES if device == sp.cpu_device else MAX_SLICES_GPU
    each = math.prod(shape) * (NETWORK + coils * (COIL if cartesian else COIL_NUFFT))
    return int(min(max(SHARE * free_memory(device) / each, 1), limit))


def coils_at_a_time(shape: tuple[int, ...], coils: int, cartesian: bool, device: sp.Device) -> int:
    """Coils that fit into the free memory of a device together, at least 1.

    Args:
        shape (tuple): Images (..., y, x) that are reconstructed together.
        coils (int): Number of coils.
        cartesian (bool): Whether the samples lie on a grid.
        device (Device): Where to reconstruct.
    """
    rest = SHARE * free_memory(device) - math.prod(shape) * NETWORK
    return int(min(max(rest / (math.prod(shape) * (COIL if cartesian else COIL_NUFFT)), 1), coils))


def free_memory(device: sp.Device) -> float:
    """Bytes that can still be allocated on a device; infinite where the system does not tell."""
    if device != sp.cpu_device:
        with device:
            xp = device.xp
            return xp.cuda.Device().mem_info[0] + xp.get_default_memory_pool().free_bytes()
    free = math.inf
    if (meminfo := Path("/proc/meminfo")).exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        if "MemAvailable" in fields:
            free = 1024.0 * int(fields["MemAvailable"].split()[0])
    group = Path("/sys/fs/cgroup")
    try:  # the limit of a container; what its files occupy in the cache can be freed
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        used = int((group / "memory.current").read_text()) - int(cached)
        free = min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError, KeyError):  # there is none
        pass
    return free

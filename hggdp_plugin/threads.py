"""Threads on a machine that is not ours alone: how many, and how long they spin while they wait.

The threads of PyTorch's OpenMP runtime (libgomp) and of NumPy's BLAS spin while they wait for each other. Where other
processes want the same CPUs, the spinning threads keep the working ones from running, and a reconstruction takes
several times as long. A bounded spin costs nothing on an idle machine (benchmarks/threads.py), and the matrices that
NumPy multiplies here are too small for several threads. All settings are read when the libraries are loaded.
"""

import math
import os
import sys
from pathlib import Path

#: Iterations that a waiting thread spins before it sleeps, some tens of microseconds.
SPIN_COUNT = 30_000


def configure_threads() -> None:
    """Set the threads of NumPy and PyTorch in the environment, before they are loaded.

    What the user has set stays: ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``, ``OPENBLAS_NUM_THREADS``, and
    ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY``. Nothing is set for a library that is loaded already.
    """
    environment = os.environ
    if "numpy" not in sys.modules and not environment.keys() & {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}:
        environment["OPENBLAS_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        return
    if not environment.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    if not environment.keys() & {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}:
        environment["OMP_NUM_THREADS"] = str(allowed_cores())


def allowed_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    It is bounded by the CPU affinity, which batch systems set, and by the CPU quota of a container. Two hardware
    threads of one core count as one.

    Returns:
        int: Number of cores.
    """
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), _cpu_quota())))


def _siblings(cpu: int) -> str:
    """Return the hardware threads of the core that a CPU belongs to, as Linux lists them; else the CPU itself."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the CPUs' worth of time that the control group of a container grants, infinity if it has no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return math.inf
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return math.inf
    return cpus if cpus > 0 else math.inf  # -1 in version 1: no limit

"""Where a cohort is reconstructed: workers on this machine, of a running Dask cluster, or in jobs of Slurm."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hggdp_plugin import __version__
from hggdp_plugin.cohort.work import installed_version
from hggdp_plugin.io.files import InputError
from hggdp_plugin.threads import allowed_cores

if TYPE_CHECKING:
    from dask_jobqueue.core import JobQueueCluster
    from distributed import Client
    from distributed.deploy.cluster import Cluster

#: Clusters by the names that ``--cluster`` takes; everything else is the address of a scheduler.
LOCAL, SLURM = "local", "slurm"
#: Threads of a worker on this machine, if the number of workers is not given.
THREADS_OF_WORKER = 4
#: Cores of a Slurm job, unless Dask's configuration says otherwise.
CORES_OF_JOB = 4
#: Port of Dask's dashboard, if it is free.
DASHBOARD_PORT = 8787

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster.

    Attributes:
        kind (str): ``"local"``, ``"slurm"``, or the address of a scheduler such as ``"tcp://host:8786"``.
        workers (int or None): Number of workers; None: on this machine one per GPU, or one per
            :data:`THREADS_OF_WORKER` cores.
        memory (str or None): Memory of a worker, such as ``"4GB"``.
        gpu (bool): Whether workers use a GPU each.
    """

    kind: str
    workers: int | None = None
    memory: str | None = None
    gpu: bool = False

    def __post_init__(self) -> None:
        if find_spec("distributed") is None:
            raise InputError("--cluster", "a cluster needs the package distributed", _INSTALL)
        if self.kind == SLURM:
            if find_spec("dask_jobqueue") is None:
                raise InputError("--cluster", "Slurm needs the package dask-jobqueue", _INSTALL)
            if self.workers is None or self.memory is None:
                raise InputError("--cluster", "jobs need a number and a size", "give --workers and --memory-per-worker")
        elif self.kind != LOCAL:
            if "://" not in self.kind:
                raise InputError(
                    "--cluster", f"{self.kind} is not a kind of cluster", "give local, slurm or tcp://HOST:PORT"
                )
            if self.workers or self.memory:
                problem = "the workers of a running cluster are what they are"
                raise InputError("--workers", problem, "leave --workers and --memory-per-worker out")
        if self.memory is not None:
            self.memory_bytes()

    def memory_bytes(self) -> int | None:
        """Return the memory of a worker in bytes, None if it is not limited.

        Raises:
            InputError: It is not an amount of memory.
        """
        from dask.utils import parse_bytes

        try:
            return None if self.memory is None else int(parse_bytes(self.memory))
        except ValueError:
            raise InputError(
                "--memory-per-worker", f"{self.memory} is not an amount of memory", "give one such as 4GB"
            ) from None


_INSTALL = "pip install 'hggdp_plugin[cluster]'"


@contextmanager
def connected(options: ClusterOptions) -> Iterator["Client"]:
    """Start the workers, or find a running cluster, and give a client.

    Args:
        options (ClusterOptions): Which cluster.

    Yields:
        Client: Dask client.

    Raises:
        InputError: There is no scheduler at the address.
    """
    from distributed import Client

    if options.kind not in (LOCAL, SLURM):
        client = reconnect(options.kind)
        with client:
            _check_versions(client)
            _announce(client, options)
            yield client
        return
    cluster = _local_cluster(options) if options.kind == LOCAL else _slurm_cluster(options)
    with cluster, Client(cluster) as client:
        if options.kind == SLURM:
            cluster.scale(options.workers or 1)
        _announce(client, options)
        yield client


def reconnect(address: str, timeout: float = 10.0) -> "Client":
    """Connect to a scheduler.

    Args:
        address (str): Its address.
        timeout (float): Seconds to wait for it.

    Returns:
        Client: Dask client.

    Raises:
        InputError: There is none.
    """
    from distributed import Client

    try:
        return Client(address, timeout=timeout, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        problem = f"there is no scheduler at {address} ({' '.join(str(error).split())})"
        raise InputError("--cluster", problem, "start one, or use --cluster local") from None


def address_of(client: "Client") -> str:
    """Return the address of the scheduler that a client is connected to."""
    return str(getattr(client.scheduler, "address", ""))


def job_script(options: ClusterOptions) -> str:
    """Return the job script that would be given to Slurm once per worker.

    Args:
        options (ClusterOptions): A Slurm cluster.

    Returns:
        str: The script.
    """
    with _slurm_cluster(options) as cluster:
        return cluster.job_script()


def threads_per_worker(workers: int) -> int:
    """Return the threads of each of some workers on this machine: they share what this process may use."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS") or allowed_cores()) // workers)


def _local_cluster(options: ClusterOptions) -> "Cluster":
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.system import MEMORY_LIMIT

    n_gpus = _count_gpus() if options.gpu else 0
    workers = options.workers or n_gpus or max(1, allowed_cores() // THREADS_OF_WORKER)
    threads = str(threads_per_worker(workers))
    memory = options.memory_bytes() or MEMORY_LIMIT // workers
    specification = {}
    for number in range(workers):
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if n_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(number % n_gpus)
        specification[number] = {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "memory_limit": memory,
                "env": environment,
                "host": "127.0.0.1",
                "silence_logs": logging.ERROR,
            },
        }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": _dashboard_address()}}
    return SpecCluster(workers=specification, scheduler=scheduler, silence_logs=logging.ERROR)


def _dashboard_address() -> str:
    """Return the usual port of Dask's dashboard, or any where another dashboard has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", DASHBOARD_PORT))
        except OSError:
            return ":0"
    return f":{DASHBOARD_PORT}"


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _slurm_cluster(options: ClusterOptions) -> "JobQueueCluster":
    """Make a cluster whose workers are jobs; queue, account and time limit come from Dask's configuration."""
    import dask
    import dask_jobqueue

    cores = dask.config.get("jobqueue.slurm.cores", None) or CORES_OF_JOB
    extra = list(dask.config.get("jobqueue.slurm.job-extra-directives", None) or ())
    gpu: dict[str, Any] = {"job_extra_directives": [*extra, "--gres=gpu:1"]} if options.gpu else {}
    threads = f"export OMP_NUM_THREADS={cores} GOMP_SPINCOUNT={os.environ.get('GOMP_SPINCOUNT', '30000')}"
    prologue = [*(dask.config.get("jobqueue.slurm.job-script-prologue", None) or ()), threads]
    return dask_jobqueue.SLURMCluster(
        cores=cores,
        processes=1,
        memory=options.memory,
        job_script_prologue=prologue,
        worker_extra_args=["--nthreads", "1"],
        scheduler_options={"dashboard_address": _dashboard_address()},
        **gpu,
    )


def _check_versions(client: "Client") -> None:
    """Refuse workers that would make other images, or none."""
    try:
        found = set(client.run(installed_version).values())
    except Exception as error:  # whatever importing the package raises there
        problem = f"its workers cannot use this package ({type(error).__name__}: {' '.join(str(error).split())})"
        raise InputError("--cluster", problem, "install it there") from None
    if others := found - {__version__}:
        problem = f"its workers have version {', '.join(sorted(others))} of this package, here it is {__version__}"
        raise InputError("--cluster", problem, "install the same version everywhere")


def _announce(client: "Client", options: ClusterOptions) -> None:
    workers = len(client.nthreads())
    there = f"{workers} workers" if options.kind != SLURM else f"{options.workers} jobs submitted"
    if find_spec("bokeh"):
        _logger.info("Cluster: %s; dashboard %s.", there, client.dashboard_link)
    else:
        _logger.info("Cluster: %s; scheduler %s (its dashboard needs bokeh).", there, address_of(client))

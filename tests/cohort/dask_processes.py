"""A Dask cluster of real processes, and a small cohort."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SLICES = 2
FILES = ("a", "b", "c")
METHOD = ["--float32", "--complex", "-N", "3", "--batch-size", "1"]
FOLDER = str(Path(__file__).parent)


def environment():
    paths = os.pathsep.join([FOLDER, *sys.path])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


@dataclass
class DaskProcesses:
    """A scheduler and two workers with a nanny each."""

    address: str
    folder: Path

    def __enter__(self):
        from distributed import Client

        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
        file = self.folder / "scheduler.json"
        command += ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        self.processes = [self._start(command, "scheduler")]
        with Client(scheduler_file=str(file), timeout=120) as client:
            self.address = client.scheduler.address
            for number in range(2):
                worker = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--nthreads", "1"]
                worker += ["--memory-limit", "1200MB", "--no-dashboard", "--local-directory", str(self.folder)]
                self.processes.append(self._start(worker, f"worker{number}"))
            client.wait_for_workers(2, timeout=300)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, command, name):
        log = open(self.folder / f"{name}.log", "w")  # noqa: SIM115
        with log:
            return subprocess.Popen(command, env=environment(), cwd=self.folder, stdout=log, stderr=log)


def write_scan(path, rng, slices=SLICES):
    ksp = rng.standard_normal((slices, 3, 32, 32)) + 1j * rng.standard_normal((slices, 3, 32, 32))
    ksp[..., 12:20, 12:20] *= 30
    np.save(path, ksp * (rng.random((32, 32)) < 0.5))


def method(folder):
    return ["--prior", str(folder / "tiny.safetensors"), *METHOD]


def same_bits(folder, output, names=FILES):
    return all(
        (output / f"{n}_hggdp.npy").read_bytes() == (folder / f"single/{n}_hggdp.npy").read_bytes() for n in names
    )


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)

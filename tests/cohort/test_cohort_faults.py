"""What happens to workers, connections and clients; the images are those of one process, bit for bit."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest

pytest.importorskip("distributed", reason="needs the extra cluster")

from dask_processes import FILES, environment, method, same_bits, wait_until
from distributed import Client

from hggdp_plugin.apps.recon import main

#: A slice takes seconds.
SLOW = ["-N", "150"]


@pytest.fixture(scope="module")
def slow_scans(scans):
    """As scans, but a slice takes seconds."""
    paths = [str(scans / f"{name}.npy") for name in FILES]
    (scans / "slow").mkdir()
    assert main([*paths, "--output-dir", str(scans / "slow/single"), *method(scans), *SLOW, "-q"]) == 0
    return scans


def command(scans, output, cluster):
    files = [str(scans / f"{name}.npy") for name in FILES]
    return [*files, "--output-dir", str(output), *method(scans), *SLOW, "--cluster", cluster]


@contextmanager
def started(arguments, log):
    """A client in a process of its own."""
    run = [sys.executable, "-m", "hggdp_plugin.apps.recon", *arguments]
    with open(log, "w") as file:
        process = subprocess.Popen(run, env=environment(), stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stored(output):
    """The batches that are stored."""
    return list(output.glob("*.part/*.npy"))


def busy_worker(client):
    """Address and process of a worker in the middle of a slice."""
    found = []

    def look():
        processing = client.processing()
        found[:] = [address for address, tasks in processing.items() if tasks]
        return bool(found)

    wait_until(look)
    return found[0], client.run(os.getpid, workers=[found[0]])[found[0]]


def test_a_worker_is_killed_in_the_middle_of_a_slice(slow_scans, cluster, tmp_path):
    output = tmp_path / "out"
    with started(command(slow_scans, output, cluster.address), tmp_path / "log") as process:
        wait_until(lambda: stored(output))
        with Client(cluster.address) as client:
            address, pid = busy_worker(client)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: address not in client.nthreads())
            assert process.wait(300) == 0, (tmp_path / "log").read_text()
            wait_until(lambda: len(client.nthreads()) == 2)
    assert same_bits(slow_scans / "slow", output)


async def eat_memory():
    """Take memory until the nanny ends the worker; 0.2 s between the pieces let it look."""
    taken = []
    while True:
        taken.append(b"x" * 100_000_000)
        await asyncio.sleep(0.2)


def test_a_worker_out_of_memory_is_restarted(slow_scans, cluster, tmp_path):
    output = tmp_path / "out"
    with started(command(slow_scans, output, cluster.address), tmp_path / "log") as process:
        wait_until(lambda: stored(output))
        with Client(cluster.address) as client:
            address, _ = busy_worker(client)
            client.run(eat_memory, workers=[address], wait=False)
            wait_until(lambda: address not in client.nthreads())
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
    assert same_bits(slow_scans / "slow", output)


class Proxy:
    """Passes connections on to a scheduler, and cuts them."""

    def __init__(self, address):
        host, port = address.removeprefix("tcp://").split(":")
        self.target = host, int(port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets, self.threads = [], []
        self._start(self._accept)

    def cut(self):
        """Cut the connections there are; those that were closed already do not count."""
        n_cut = 0
        for end in list(self.sockets):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                n_cut += 1
        return n_cut

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self.threads:
            thread.join(10)
        for end in (self.listener, *self.sockets):
            end.close()

    def _start(self, function, *args):
        self.threads.append(threading.Thread(target=function, args=args, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            far = socket.create_connection(self.target)
            self.sockets += [near, far]
            self._start(self._pass_on, near, far)
            self._start(self._pass_on, far, near)

    @staticmethod
    def _pass_on(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_the_connection_to_the_scheduler_is_cut(slow_scans, cluster, tmp_path):
    output, proxy = tmp_path / "out", Proxy(cluster.address)
    with started(command(slow_scans, output, proxy.address), tmp_path / "log") as process:
        wait_until(lambda: stored(output))
        assert proxy.cut() >= 2
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
    proxy.close()
    assert same_bits(slow_scans / "slow", output)


def test_the_client_is_killed_and_started_again(slow_scans, tmp_path):
    """With workers of its own, which go with it."""
    output = tmp_path / "out"
    arguments = [*command(slow_scans, output, "local"), "--workers", "2"]
    with started(arguments, tmp_path / "log") as process:
        wait_until(lambda: stored(output))
        process.send_signal(signal.SIGKILL)
    finished = stored(output)
    assert not list(output.glob("a_hggdp.npy"))
    times = {path: path.stat().st_mtime_ns for path in finished}
    states = [entry["state"] for entry in json.loads((output / "cohort.json").read_text())["files"]]
    assert states == ["pending"] * 3
    with started(arguments, tmp_path / "log") as process:
        wait_until(lambda: not all(path.exists() for path in finished))
        kept = [path for path in finished if path.exists()]
        assert all(path.stat().st_mtime_ns == times[path] for path in kept)
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
    assert same_bits(slow_scans / "slow", output)

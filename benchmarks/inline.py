"""The inline module under load: latency per slice and peak memory, with one client, with ten at once, and with 1 GB.

A server with the interface of python-ismrmrd-server (tests/apps/mrd_server.py), a process for each client. Latency
counts from the client's last message to the server's; memory is that of all the server's processes (PSS: shared
pages are counted once).

    python benchmarks/inline.py --json benchmarks/results/inline.json
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, report

from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.simulation import head_phantom

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "apps"))
from mrd_server import Client, acquisition_bytes
from mrd_server import __file__ as SERVER

with warnings.catch_warnings():
    import ismrmrd

ROWS = ("one", "ten", "coils", "large")


@contextmanager
def server() -> Iterator[tuple[int, Callable[[], float]]]:
    """A server: its port, and a function that returns the peak of its memory so far in GB."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w") as log:
        environment = os.environ | {"TMPDIR": folder}
        process = subprocess.Popen([sys.executable, SERVER], stdout=subprocess.PIPE, stderr=log, env=environment)
        peak, stop = [0.0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.05):
                peak[0] = max(peak[0], sum(pss(pid) for pid in [process.pid, *children(process.pid)]))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            assert process.stdout
            yield int(process.stdout.readline()), lambda: peak[0]
        finally:
            stop.set()
            thread.join()
            process.kill()
            process.wait()


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def pss(pid: int) -> float:
    """Memory of a process in GB, shared pages divided among those that share them; 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(rollup.split("Pss:")[1].split()[0]) * 1024 / 1e9


def simulate(size: int, coils: int, slices: int, averages: int = 1) -> tuple[str, list[ismrmrd.Acquisition]]:
    """Header and acquisitions of a scan at R = 2; all slices and averages are alike."""
    with tempfile.TemporaryDirectory() as folder:
        image, raw = Path(folder, "image.npy"), Path(folder, "raw.h5")
        np.save(image, head_phantom((size, size)))
        options = f"--mask random -R 2 --calib 24 --coils {coils} --snr 50 --oversampling 2".split()
        assert hggdp(["simulate", str(image), "-o", str(raw), *options]) == 0
        with closing(ismrmrd.Dataset(str(raw), "dataset", mode="r")) as dataset:
            one = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
            header = dataset.read_xml_header().decode()
    scan = []
    for average, number, acquisition in itertools.product(range(averages), range(slices), one):
        moved = ismrmrd.Acquisition(acquisition.getHead(), acquisition.data, acquisition.traj)
        moved.idx.slice, moved.idx.average = number, average
        scan.append(moved)
    return header, scan


def measure(clients: int, scan: tuple[str, list[ismrmrd.Acquisition]], levels: int) -> dict[str, Any]:
    """The figures of a number of clients at once."""
    header, acquisitions = scan
    slices = 1 + max(acquisition.idx.slice for acquisition in acquisitions)

    def client(port: int) -> float:
        connection = Client(port, header, {"levels": levels})
        for acquisition in acquisitions:
            connection.send(acquisition)
        connection.close()
        start = time.perf_counter()
        images, texts = connection.answers()
        assert len(images) == slices, texts
        return time.perf_counter() - start

    with server() as (port, peak), ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        latencies = sorted(pool.map(client, [port] * clients))
        seconds = time.perf_counter() - start
        return {
            "clients": clients,
            "MB each": sum(map(acquisition_bytes, acquisitions)) / 1e6,
            "slices each": slices,
            "evaluations": levels,
            "first answer (s)": latencies[0],
            "last answer (s)": latencies[-1],
            "s per slice": seconds / (clients * slices),
            "peak memory (GB)": peak(),
        }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    p.add_argument("--json", type=Path, help="file to write the figures to")
    args = p.parse_args()
    small = simulate(256, 8, 1)
    rows = {}
    if "one" in args.rows:
        rows["1 client"] = measure(1, small, 25)
    if "ten" in args.rows:
        rows["10 clients at once"] = measure(10, small, 25)
    if "coils" in args.rows:
        rows["32 coils"] = measure(1, simulate(256, 32, 6), 1)
    if "large" in args.rows:  # in averages, for a reconstruction of 1 GB of slices takes minutes
        rows["1 GB, 10 averages"] = measure(1, simulate(256, 32, 6, 10), 1)
    print_table(list(next(iter(rows.values()))), {name: list(row.values()) for name, row in rows.items()})
    report(args, {"rows": rows})


if __name__ == "__main__":
    main()

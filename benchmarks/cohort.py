"""A cohort with 1 and 2 workers of this machine: slices per second and efficiency; a model of a large one.

Phantoms (8 coils, with a noise scan) as raw files; ``hggdp recon --cluster local`` as a user starts it, workers with
one thread each. The start of the workers, once per cohort, has a column of its own; loading PyTorch and the prior
counts as work. CPU seconds are those of the client and its workers; they hardly depend on what else the machine does.
Further: how many tasks that do nothing a client gets through per second, the bytes of a task, and the
rates of reading, hashing and storing on one core. ``--model`` computes from these and from the times on a GPU
(benchmarks/results/gpu.json) what 1,000 scans on 64 GPUs take.

    python benchmarks/cohort.py --json benchmarks/results/cohort.json
    python benchmarks/cohort.py --model
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, report

from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps._recon_cohort import ReconWork
from hggdp_plugin.apps.recon import build_parser
from hggdp_plugin.cohort.cluster import ClusterOptions, connected
from hggdp_plugin.cohort.manifest import Manifest
from hggdp_plugin.cohort.run import CohortRun, begin_entry
from hggdp_plugin.cohort.work import Outcome, Plan, Result, perform, sha256_of
from hggdp_plugin.io import read_raw
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.volume.batching import BatchSize
from hggdp_plugin.volume.resume import ResumeStore, fingerprint

ROOT = Path(__file__).resolve().parent.parent


def make_scans(folder: Path, files: int, slices: int, size: int) -> list[str]:
    """Raw files of a phantom each."""
    paths = []
    for number in range(files):
        np.save(folder / "image.npy", head_phantom((size, size), num_slices=slices, seed=number))
        paths.append(str(folder / f"scan{number}.h5"))
        options = "--mask random -R 4 --calib 20 --coils 8 --snr 40 --noise-scan"
        assert hggdp(["simulate", str(folder / "image.npy"), "-o", paths[-1], *options.split()]) == 0
    return paths


def run(paths: list[str], output: Path, workers: int | None, options: list[str]) -> dict[str, Any]:
    """Seconds of a cohort, or of one process after the other (``workers`` None), by part."""
    command = [sys.executable, "-m", "hggdp_plugin.apps", "recon", *paths, "--output-dir", str(output), *options]
    if workers:
        command += ["--cluster", "local", "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(workers or 1)}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    ready = time.perf_counter()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Cluster:"):
            ready = time.perf_counter()
    _, status, usage = os.wait4(process.pid, 0)  # of the workers too, which are its children
    if status:
        raise SystemExit("hggdp recon failed")
    figures: dict[str, Any] = {"seconds": time.perf_counter() - start, "start (s)": ready - start}
    figures["CPU s"] = usage.ru_utime + usage.ru_stime
    figures["worker seconds"] = figures["seconds"]
    if workers:
        states = json.loads((output / "cohort.json").read_text())["files"]
        figures["worker seconds"] = sum(entry["seconds"] for entry in states)
    return figures


@dataclass(frozen=True)
class NullWork:
    """Tasks that do nothing, to time the scheduling."""

    def plan(self, path: str, output: str) -> Plan:
        return Plan("", 2, 0, (0, 1))

    def batch(self, path: str, output: str, start: int) -> int:
        return 1

    def finish(self, path: str, output: str, sha256: str) -> Result:
        return Result(2)


def scheduling(folder: Path, files: int = 100) -> dict[str, float]:
    """Tasks per second of a client with two workers, and bytes of a task with all options of a reconstruction."""
    manifest = Manifest(folder / "cohort.json")
    entries = [begin_entry(manifest, f"{folder}/{n}", f"{folder}/{n}.out", "") for n in range(files)]
    with connected(ClusterOptions("local", 2)) as client:
        client.wait_for_workers(2)
        start = time.perf_counter()
        CohortRun(client, NullWork(), "", manifest, show_pbar=False).run([entry for entry in entries if entry])
        seconds = time.perf_counter() - start
    work = ReconWork(build_parser().parse_args(["raw.h5"]), "0" * 64)
    task = pickle.dumps((perform, work, "finish", f"{folder}/scan.h5", f"{folder}/scan_hggdp.h5", "0" * 64))
    answer = pickle.dumps(Outcome(Plan("0" * 64, 64, 0, range(0, 64, 32))))
    return {"tasks/s": 4 * files / seconds, "bytes a task": len(task) + len(answer)}


def rates(path: str, folder: Path) -> dict[str, float]:
    """Megabytes of raw data per second that one core reads, digests and stores."""
    size = os.path.getsize(path) / 1e6

    def rate(function: Callable[[], object], megabytes: float) -> float:
        start = time.perf_counter()
        function()
        return megabytes / (time.perf_counter() - start)

    raw = read_raw(path)
    store = ResumeStore(folder / "store")
    store.begin("run", BatchSize(1, 1))
    data = raw.ksp.nbytes / 1e6
    return {
        "reading (MB/s)": rate(lambda: read_raw(path), size),
        "SHA-256 of the file (MB/s)": rate(lambda: sha256_of(path), size),
        "fingerprint of k-space (MB/s)": rate(lambda: fingerprint(raw.ksp), data),
        "storing (MB/s)": rate(lambda: store.save(0, raw.ksp, {}), data),
    }


def model(cohort: dict[str, Any], gpu: dict[str, Any]) -> dict[str, float]:
    """Time and traffic of 1,000 scans of 64 slices, 256 x 256, 16 coils, a quarter of the lines, on 64 GPUs.

    k-space is stored twice the size of the samples by oversampling; the loop with 16 coils is taken as long as with 8.
    """
    scans, gpus, slices, coils, size = 1000, 64, 64, 16, 256
    kspace = slices * coils * size * size * 8 / 1e6
    file = kspace / 4 * 2
    image = slices * size * size * 8 / 1e6
    loop = slices * gpu["8 coils, Cartesian, batch 32"]["seconds a slice"]
    maps = slices * gpu["maps, 16 coils (s a slice)"]
    rate = cohort["rates"]
    reading = file / rate["reading (MB/s)"] + file / rate["SHA-256 of the file (MB/s)"]
    digests = 2 * kspace / rate["fingerprint of k-space (MB/s)"]  # to plan, and to finish
    storing = 2 * image / rate["storing (MB/s)"]
    scan = loop + maps + reading + digests + storing
    tasks = scans * (2 + slices / 32)
    return {
        "a scan: maps (s)": maps,
        "a scan: loop on the GPU (s)": loop,
        "a scan: reading and its digest (s)": reading,
        "a scan: digests of k-space (s)": digests,
        "a scan: storing batches and image (s)": storing,
        "a scan on one worker (s)": scan,
        "1,000 scans on 64 workers (min)": scans / gpus * scan / 60,
        "read from the file system (GB)": scans * (file + image) / 1e3,
        "written to the file system (GB)": scans * 2 * image / 1e3,
        "file system, both ways (GB/s)": gpus / scan * (file + 3 * image) / 1e3,
        "tasks": tasks,
        "tasks/s needed": tasks / (scans / gpus * scan),
        "tasks/s possible": cohort["scheduling"]["tasks/s"],
        "through the scheduler (MB)": tasks * cohort["scheduling"]["bytes a task"] / 1e6,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--files", type=int, default=4)
    p.add_argument("--slices", type=int, default=4)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--batch-size", type=int, default=2)
    p.add_argument("--levels", type=int, default=15)
    p.add_argument("--json", type=Path, help="file to write the figures to")
    p.add_argument("--model", action="store_true", help="only compute the model, from the stored figures")
    args = p.parse_args()
    results = ROOT / "benchmarks/results"
    if args.model:
        figures = model(*(json.loads((results / f"{name}.json").read_text()) for name in ("cohort", "gpu")))
        print_table(["model"], {name: [float(value)] for name, value in figures.items()})
        return
    options = ["-N", str(args.levels), "--batch-size", str(args.batch_size), "--float32"]
    n_slices = args.files * args.slices
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = make_scans(Path(folder), args.files, args.slices, args.size)
        for name, files, workers in (
            ("one process", paths, None),
            ("1 worker", paths, 1),
            ("2 workers", paths, 2),
            ("one file, 2 workers", paths[:1], 2),
        ):
            output = Path(folder) / name.replace(" ", "_")
            rows[name] = run(files, output, workers, options)
            work = rows[name]["seconds"] - rows[name]["start (s)"]
            rows[name]["slices/s"] = n_slices * len(files) / len(paths) / work
        overhead = {"scheduling": scheduling(Path(folder)), "rates": rates(paths[0], Path(folder))}
    for name, figures in rows.items():
        n_workers = 2 if "2 workers" in name else 1
        figures["efficiency"] = figures["slices/s"] / (n_workers * rows["1 worker"]["slices/s"])
        figures["busy"] = figures["worker seconds"] / (n_workers * (figures["seconds"] - figures["start (s)"]))
    columns = ["seconds", "start (s)", "CPU s", "slices/s", "efficiency", "busy"]
    print_table(columns, {name: [float(figures[column]) for column in columns] for name, figures in rows.items()})
    described = {"files": args.files, "slices": args.slices, "size": args.size, "batch": args.batch_size}
    report(args, {**described, "levels": args.levels, "runs": rows, **overhead})


if __name__ == "__main__":
    main()

"""A volume end to end: ``hggdp recon`` by part, beside BART (ecalib, pics) and SigPy (EspiritCalib, L1WaveletRecon).

A phantom of 64 slices, 16 coils, 256 x 256, a quarter of the lines (24 for calibration), with a noise scan. Every
method runs in a process of its own, with the threads that our commands choose. The parts are exclusive: reading does
not contain prewhitening. What several threads do side by side counts with the time of all, divided by their number. Of
BART and SigPy a few slices are timed, which are alike. BART is that of the wheel ``bartorch``; its files go to TMPDIR,
as does the raw file of 130 MB.

    python benchmarks/volume.py --json volume.json

With ``--methods`` only some methods are measured; the others stay in the JSON file.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import elsewhere, has_bart, parser, print_table, report, run_bart

from hggdp_plugin.threads import allowed_cores, configure_threads

#: Part -> functions of the package in which its time is spent.
PARTS = {
    "reading": ["hggdp_plugin.io:read_raw"],
    "prewhitening": ["hggdp_plugin.io.mrd.measurement:Measurement._whiten"],
    "prior": ["hggdp_plugin.prior:load_prior"],
    "resume store": [
        "hggdp_plugin.volume.reconstruct:fingerprint",
        "hggdp_plugin.volume.resume:ResumeStore.save",
    ],
    "coil maps": ["hggdp_plugin.volume.calibration:CoilMapEstimator._estimate"],
    "problem": ["hggdp_plugin.problem:SenseProblem.build"],
    "network": ["hggdp_plugin.prior:ScorePrior.denoise"],
    "data consistency": ["hggdp_plugin.prox:L2DataConsistency._prox"],
    "image": ["hggdp_plugin.io.raw:RawData.to_image"],
    "writing": ["hggdp_plugin.io:write_image"],
}
LAMDA = 1e-3


class Stopwatch:
    """Seconds spent in parts of a program; the time of an inner part does not count for the outer one.

    Time of other threads than the main one is divided by their number.
    """

    def __init__(self, n_threads: int = 1, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self.clock, self.n_threads = clock, n_threads
        self._lock, self._of_thread = threading.Lock(), threading.local()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            stack = vars(self._of_thread).setdefault("stack", [])
            stack.append(0.0)
            start = self.clock()
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = self.clock() - start
                share = 1 if threading.current_thread() is threading.main_thread() else self.n_threads
                with self._lock:
                    self.seconds[part] = self.seconds.get(part, 0) + (elapsed - stack.pop()) / share
                if stack:
                    stack[-1] += elapsed

        return call

    def patch(self, part: str, where: str) -> None:
        """Time a function, given as ``module:name`` or ``module:Class.name``."""
        module, _, path = where.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for attribute in owners:
            owner = getattr(owner, attribute)
        function = vars(owner).get(name) or getattr(owner, name)
        if isinstance(function, classmethod):
            setattr(owner, name, classmethod(self.timed(part, function.__func__)))
        else:
            setattr(owner, name, self.timed(part, function))


def ours(raw: Path, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of the parts of ``hggdp recon``, and of the network alone for as many slices."""
    total, clock = (time.process_time, time.thread_time) if args.cpu else (time.perf_counter, time.perf_counter)
    start = total()
    from hggdp_plugin.apps.recon import main

    watch = Stopwatch(1 if args.cpu else allowed_cores(), clock)
    for part, functions in PARTS.items():
        for where in functions:
            watch.patch(part, where)
    watch.seconds["imports"] = total() - start
    command = [str(raw), "-o", str(folder / "ours.npy"), "--overwrite", "-q"]
    command += ["--float32"] if args.float32 else []
    if main([*command, *(["--prior", args.prior] if args.prior else [])]):
        raise SystemExit(1)
    seconds = total() - start
    parts = {part: watch.seconds.get(part, 0.0) for part in ("imports", *PARTS)}
    return {**parts, "rest": seconds - sum(parts.values()), "total": seconds, "network alone": network_alone(args)}


def network_alone(args: argparse.Namespace) -> float:
    """Seconds of the network's evaluations alone, in batches side by side as in the reconstruction."""
    import sigpy as sp
    from speed import network_seconds

    from hggdp_plugin import NoiseSchedule, load_prior
    from hggdp_plugin.volume.batching import MAX_SLICES
    from hggdp_plugin.volume.workers import side_by_side

    n, evaluations = allowed_cores(), 8
    prior, size = load_prior(*([args.prior] if args.prior else []), autocast=not args.float32), MAX_SLICES
    network_seconds(prior, size, sp.cpu_device, 1)

    def evaluate(_: int) -> float:
        network_seconds(prior, size, sp.cpu_device, 1)
        start = time.thread_time()
        wall = network_seconds(prior, size, sp.cpu_device, evaluations)
        return n * (time.thread_time() - start) if args.cpu else wall

    seconds = sum(side_by_side(evaluate, range(n), n, lambda: None)) / n
    return seconds / (n * size * evaluations) * NoiseSchedule.fast().evaluations * args.slices


def bart(raw: Path, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of BART for a few slices, times their number."""
    import numpy as np

    from hggdp_plugin import io
    from hggdp_plugin.io.cfl import write_cfl

    watch = Stopwatch(clock=time.process_time if args.cpu else time.perf_counter)
    ksp = io.read_raw(raw).ksp.reshape(args.slices, args.coils, 1, args.size, args.size)
    for one in ksp[: args.timed]:
        write_cfl(folder / "ksp.cfl", np.ascontiguousarray(one))
        watch.timed("coil maps", run_bart)("ecalib -m1 -r 24 ksp mps", folder)
        watch.timed("reconstruction", run_bart)(f"pics -S -i {args.iterations} -R W:3:0:{LAMDA} ksp mps out", folder)
    return scaled(watch, args)


def sigpy(raw: Path, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of SigPy for a few slices, times their number."""
    import numpy as np
    import sigpy.mri as mr

    from hggdp_plugin import io

    def maps(one: Any) -> Any:
        return np.nan_to_num(mr.app.EspiritCalib(one, show_pbar=False).run())

    def wavelet(one: Any, mps: Any) -> Any:
        scale = float(np.abs(mr.linop.Sense(mps).H(one)).max())
        app = mr.app.L1WaveletRecon(one, mps, LAMDA * scale, max_iter=args.iterations, show_pbar=False)
        return app.run()

    watch = Stopwatch(clock=time.process_time if args.cpu else time.perf_counter)
    ksp = io.read_raw(raw).ksp.reshape(args.slices, args.coils, args.size, args.size)
    for one in ksp[: args.timed]:
        watch.timed("reconstruction", wavelet)(one, watch.timed("coil maps", maps)(one))
    return scaled(watch, args)


def scaled(watch: Stopwatch, args: argparse.Namespace) -> dict[str, float]:
    parts = {part: seconds * args.slices / min(args.timed, args.slices) for part, seconds in watch.seconds.items()}
    return {**parts, "total": sum(parts.values())}


METHODS = {"ours": ours, "bart": bart, "sigpy": sigpy}


def write_input(path: Path, slices: int, coils: int, size: int) -> None:
    """The raw file, written in a process of its own."""
    from memory import write_volume

    write_volume(path, slices, coils, size, accel=4, calib=24, noise_scan=True)


def in_child(method: str, raw: Path, folder: str, args: argparse.Namespace) -> tuple[dict[str, float], float, float]:
    """Seconds by part, CPU seconds of the process and its peak memory in GiB."""
    options = [f"--{name}={getattr(args, name)}" for name in ("slices", "coils", "size", "timed", "iterations")]
    options += [f"--prior={args.prior}"] if args.prior else []
    options += [f"--{name}" for name in ("float32", "cpu") if getattr(args, name)]
    command = [sys.executable, __file__, *options, "--child", method, str(raw), folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{method}: failed")
    return json.loads(output.splitlines()[-1]), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def print_figures(figures: dict[str, Any]) -> None:
    """Seconds a slice by part, and peak memory."""
    names = [name for name in METHODS if name in figures]
    parts = list(dict.fromkeys(part for name in names for part in figures[name]["seconds"]))
    rows = {}
    for part in parts:
        seconds = [figures[name]["seconds"].get(part) for name in names]
        rows[part] = ["-" if value is None else f"{value / figures['slices']:.3f}" for value in seconds]
    rows["peak memory (GiB)"] = [figures[name]["peak memory (GiB)"] for name in names]
    print("seconds a slice\n")
    print_table(names, rows)
    if "ours" in names:
        total = figures["ours"]["seconds"]
        figures["total / network alone"] = total["total"] / total["network alone"]
        print(f"\nours: total / network alone: {figures['total / network alone']:.3f}")


def main() -> None:
    p = parser(__doc__)
    for name, default in {"slices": 64, "coils": 16, "size": 256}.items():
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--timed", type=int, default=4, help="slices that BART and SigPy reconstruct (default 4)")
    p.add_argument("--iterations", type=int, default=100, help="iterations of the L1-wavelet methods (default 100)")
    p.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which to measure (default all)"
    )
    p.add_argument("--float32", action="store_true", help="run the network in float32, not bfloat16")
    p.add_argument("--cpu", action="store_true", help="CPU seconds, for a machine that is not idle")
    p.add_argument("--raw", type=Path, help="raw file to use, written if it is not there (default: a temporary one)")
    p.add_argument("--child", nargs=3, metavar=("METHOD", "RAW", "FOLDER"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        method, raw, folder = args.child
        configure_threads()
        if args.cpu and has_bart():
            import bartorch

            bartorch.set_num_threads(1)
        print(json.dumps(METHODS[method](Path(raw), Path(folder), args)))
        return
    names = [name for name in args.methods if name != "bart" or has_bart()]
    figures: dict[str, Any] = {name: getattr(args, name) for name in ("slices", "coils", "size", "timed", "iterations")}
    if args.json and args.json.exists():
        stored = json.loads(args.json.read_text())
        figures |= {name: stored[name] for name in METHODS if name in stored}
    with tempfile.TemporaryDirectory() as folder:
        raw = args.raw or Path(folder) / "raw.h5"
        if not raw.exists():
            elsewhere(write_input, raw, args.slices, args.coils, args.size)
        for name in names:
            parts, cpu, memory = in_child(name, raw, folder, args)
            figures[name] = {"seconds": parts, "CPU seconds": cpu, "peak memory (GiB)": memory}
    print_figures(figures)
    report(args, figures)


if __name__ == "__main__":
    main()

"""A reconstruction on an idle machine and beside a busy process, with PyTorch's own threads and with those we set.

A phantom of 256 x 256 pixels with 8 coils, five noise levels. Every process gives the median of several runs. Of the
processes the fastest counts on the idle machine, and the median beside a process that multiplies matrices with as many
threads as there are cores, or on a machine that others use at the same time. "spin" is libgomp's GOMP_SPINCOUNT; the
commands of the package set the one with a star.

    python benchmarks/threads.py --json threads.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from common import print_table, report

from hggdp_plugin.threads import SPIN_COUNT, allowed_cores

SPINS = (0, 300_000, SPIN_COUNT, 1_000)
BUSY = "import torch; a = torch.randn(1500, 1500)\nwhile True: a @ a"


def child(repeats: int, autocast: bool) -> None:
    """Print the median seconds of a reconstruction, after one that warms up."""
    import numpy as np
    import sigpy as sp

    from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
    from hggdp_plugin.simulation import coil_maps, masks

    image, mps = np.abs(sp.shepp_logan((256, 256))), coil_maps(8, (256, 256))
    ksp = (sp.fft(mps * image, axes=(-2, -1)) * masks.random_lines(256, 3, 24)[:, None]).astype(np.complex64)
    prior, schedule, times = load_prior(autocast=autocast), NoiseSchedule.fast(levels=5), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        HGGDPRecon(ksp, mps, prior=prior, schedule=schedule, show_pbar=False).run()
        times.append(time.perf_counter() - start)
    print(statistics.median(times[1:]))


@contextmanager
def busy() -> Iterator[None]:
    """Another process that keeps all cores busy, with PyTorch's default threads."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], env=environment(0))
    try:
        time.sleep(5)  # it imports PyTorch
        yield
    finally:
        process.kill()
        process.wait()


def environment(spin: int) -> dict[str, str]:
    """The environment of a child: without the user's settings, with a spin count."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    return kept | ({} if spin == 0 else {"GOMP_SPINCOUNT": str(spin), "OMP_NUM_THREADS": str(allowed_cores())})


LOADS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "idle": nullcontext,
    "beside a busy process": busy,
    "on a shared machine": nullcontext,
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--repeats", type=int, default=5, help="timed runs in each process (default 5)")
    p.add_argument("--rounds", type=int, default=3, help="processes for each figure, in turns (default 3)")
    p.add_argument("--spins", type=int, nargs="+", default=list(SPINS), help="spin counts; 0: the default of libgomp")
    p.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS)[:2], help="default: the first two")
    p.add_argument("--child", choices=("bfloat16", "float32"), help=argparse.SUPPRESS)
    p.add_argument("--json", type=Path, help="file to write the figures to; those of other loads and spins stay there")
    args = p.parse_args()
    if args.child:
        return child(args.repeats, args.child == "bfloat16")
    stored = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    times: dict[str, dict[str, list[float]]] = {**stored.get("times", {})}
    measured = [f"{precision}, {load}" for load in args.loads for precision in ("bfloat16", "float32")]
    for spin in args.spins:
        times[str(spin)] = times.get(str(spin), {}) | {column: [] for column in measured}
    for load in args.loads:
        for _ in range(args.rounds):
            for precision in ("bfloat16", "float32"):
                for spin in args.spins:
                    with LOADS[load]():
                        command = [sys.executable, __file__, "--child", precision, "--repeats", str(args.repeats)]
                        done = subprocess.run(
                            command, env=environment(spin), capture_output=True, text=True, check=True
                        )
                    times[str(spin)][f"{precision}, {load}"].append(float(done.stdout.split()[-1]))
    columns = list(dict.fromkeys(column for row in times.values() for column in row))
    rows = {
        spin: {c: (min if "idle" in c else statistics.median)(v) for c, v in row.items()} for spin, row in times.items()
    }
    names = {"0": "default", str(SPIN_COUNT): f"spin {SPIN_COUNT} *"}
    print("seconds of a reconstruction\n")
    print_table(columns, {names.get(s, f"spin {s}"): [row.get(c, "-") for c in columns] for s, row in rows.items()})
    report(args, {"load average": os.getloadavg()[1], "seconds": rows, "times": times})


if __name__ == "__main__":
    main()

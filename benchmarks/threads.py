"""A reconstruction on an idle machine and beside a busy process, with PyTorch's own threads and with those we set.

A phantom of 256 x 256 pixels with 8 coils, five noise levels. Every process gives the median of several runs. Of the
processes the fastest counts on the idle machine, and the median beside a process that multiplies matrices with as many
threads as there are cores. "spin" is libgomp's GOMP_SPINCOUNT; the commands of the package set the one with a star.

    python benchmarks/threads.py --json threads.json
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from common import print_table, report

from hggdp_plugin.threads import SPIN_COUNT, allowed_cores

SPINS = (None, 300_000, SPIN_COUNT, 1_000)
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
    process = subprocess.Popen([sys.executable, "-c", BUSY], env=environment(None))
    try:
        time.sleep(5)  # it imports PyTorch
        yield
    finally:
        process.kill()
        process.wait()


def environment(spin: int | None) -> dict[str, str]:
    """The environment of a child: without the user's settings, with a spin count."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    return kept | ({} if spin is None else {"GOMP_SPINCOUNT": str(spin), "OMP_NUM_THREADS": str(allowed_cores())})


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--repeats", type=int, default=5, help="timed runs in each process (default 5)")
    p.add_argument("--rounds", type=int, default=3, help="processes for each figure, in turns (default 3)")
    p.add_argument("--child", choices=("bfloat16", "float32"), help=argparse.SUPPRESS)
    p.add_argument("--json", type=Path, help="file to write the figures to")
    args = p.parse_args()
    if args.child:
        return child(args.repeats, args.child == "bfloat16")
    rows: dict[str, list[float]] = {}
    times: dict[tuple[int | None, str, str], list[float]] = {}
    for load, machine in {"idle": nullcontext, "beside a busy process": busy}.items():
        for _ in range(args.rounds):
            for precision in ("bfloat16", "float32"):
                for spin in SPINS:
                    with machine():
                        command = [sys.executable, __file__, "--child", precision, "--repeats", str(args.repeats)]
                        done = subprocess.run(
                            command, env=environment(spin), capture_output=True, text=True, check=True
                        )
                    times.setdefault((spin, precision, load), []).append(float(done.stdout.split()[-1]))
    columns = list(dict.fromkeys(f"{precision}, {load}" for _, precision, load in times))
    for spin in SPINS:
        name = "default" if spin is None else f"spin {spin}" + (" *" if spin == SPIN_COUNT else "")
        rows[name] = [
            (min if load == "idle" else statistics.median)(seconds)
            for (one, _, load), seconds in times.items()
            if one == spin
        ]
    print("seconds of a reconstruction\n")
    print_table(columns, rows)
    report(args, {"columns": columns, "seconds": rows})


if __name__ == "__main__":
    main()

"""The ways to run the default prior's network on processors without bfloat16: seconds an evaluation, and of the first.

An image of 256 x 256. oneDNN is held to the instructions of older processors, each in a process of its own: AVX2 (most
laptops), AVX-512 without bfloat16 (Skylake and Cascade Lake servers), and what this processor has. Minima of several
evaluations. torch.compile needs a C++ compiler; its first evaluation is the compilation.

    python benchmarks/precision.py --json precision.json
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import print_table, report

from hggdp_plugin.checkpoint import load_model

PROCESSORS = {"AVX2": "AVX2", "AVX-512, no bfloat16": "AVX512_CORE", "this processor": "DEFAULT"}
SIZE, SIGMA = 256, 0.1


def ways() -> dict[str, Callable[[], Any]]:
    """Functions that make an evaluation, by name."""
    contiguous, network = (load_model("brain-t2")[0].eval() for _ in range(2))
    network.to(memory_format=torch.channels_last)
    x, sigma = torch.randn(1, 2, SIZE, SIZE), torch.full((1,), SIGMA)
    channels_last = x.contiguous(memory_format=torch.channels_last)

    def run(module: Any, image: torch.Tensor, context: Callable[[], Any] = nullcontext) -> Callable[[], Any]:
        def evaluate() -> Any:
            with context():
                return module(image, sigma)

        return evaluate

    import torch._inductor.config as inductor

    inductor.freezing = True
    without_onednn = partial(torch.backends.mkldnn.flags, enabled=False)
    return {
        "float32, oneDNN": run(contiguous, x),
        "float32, oneDNN, channels last": run(network, channels_last),
        "float32, PyTorch's own kernels": run(network, channels_last, without_onednn),
        "float32, torch.compile, frozen weights": run(torch.compile(network), channels_last),
        "bfloat16": run(network, channels_last, partial(torch.autocast, "cpu", torch.bfloat16)),
    }


@torch.no_grad()
def child(repeats: int) -> None:
    """Print seconds of every way: the first evaluation, and the minimum of the others."""
    rows = {}
    for name, evaluate in ways().items():
        times = []
        for _ in range(repeats + 2):
            start = time.perf_counter()
            evaluate()
            times.append(time.perf_counter() - start)
        rows[name] = [min(times[2:]), times[0]]
    print(json.dumps(rows))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--repeats", type=int, default=5, help="timed evaluations (default 5)")
    p.add_argument("--processors", nargs="+", choices=PROCESSORS, default=list(PROCESSORS), help="default: all")
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--json", type=Path, help="file to write the figures to; those of other processors stay there")
    args = p.parse_args()
    if args.child:
        return child(args.repeats)
    stored = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    results: dict[str, dict[str, list[float]]] = stored.get("seconds", {})
    for name in args.processors:
        command = [sys.executable, __file__, "--child", "--repeats", str(args.repeats)]
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": PROCESSORS[name]}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
    ways = list(next(iter(results.values())))
    print_table(
        [f"{name}, {kind} (s)" for name in results for kind in ("evaluation", "first")],
        {way: [f"{seconds:.3f}" for one in results.values() for seconds in one[way]] for way in ways},
    )
    report(args, {"seconds": results})


if __name__ == "__main__":
    main()

"""What one evaluation of each score network costs: time and GFLOP, the published network beside the default prior's.

The published network's weights are random: the cost does not depend on them. Run it on an idle machine.

    python benchmarks/cost.py --json cost.json
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from common import machine
from torch.utils.flop_counter import FlopCounterMode

from hggdp_plugin.checkpoint import DEFAULT_PRIOR, load_model
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.models.unet import UNet


def seconds(denoiser: Denoiser, x: torch.Tensor, repeats: int) -> float:
    """Return the median time of one evaluation, after a first one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        denoiser(x, 0.1)
        if x.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@torch.inference_mode()
def cost(network: RefineNet | UNet, size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Measure one evaluation of network for one image of size x size."""
    denoiser = Denoiser(network.to(device))
    x = torch.randn(1, 2 * network.views, size, size, device=device)
    with FlopCounterMode(display=False) as counter:
        denoiser(x, 0.1)
    row: dict[str, Any] = {
        "config": network.config,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop": counter.get_total_flops() / 1e9,  # a multiply-add counts as two
        "seconds_float32": seconds(denoiser, x, repeats),
    }
    with torch.autocast(device.type, torch.bfloat16):
        row["seconds_bfloat16"] = seconds(denoiser, x, repeats)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="height and width of the image (default 256)")
    parser.add_argument("--repeats", type=int, default=5, help="timed evaluations; their median counts (default 5)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="torch device (default cpu)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()

    report: dict[str, Any] = {"machine": machine(args.device), "size": args.size, "repeats": args.repeats}
    bundled: Any = load_model(DEFAULT_PRIOR)[0]
    report["networks"] = {
        "published RefineNet": cost(RefineNet(), args.size, args.repeats, args.device),
        "brain-t2": cost(bundled, args.size, args.repeats, args.device),
    }
    print(", ".join(f"{key}: {value}" for key, value in report["machine"].items() if value is not None))
    print(f"one evaluation at {args.size} x {args.size}:\n")
    print("| network | parameters (M) | GFLOP | float32 (s) | bfloat16 autocast (s) |\n|---|---:|---:|---:|---:|")
    for name, row in report["networks"].items():
        numbers = (row["parameters"] / 1e6, row["gflop"], row["seconds_float32"], row["seconds_bfloat16"])
        print(f"| {name} | " + " | ".join(f"{number:.4g}" for number in numbers) + " |")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

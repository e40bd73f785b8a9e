"""``hggdp convert``: brings a published HGGDP checkpoint into this package's format, or a prior into half precision."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hggdp_plugin.apps._cli import run
from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.hggdp_checkpoint import read_hggdp_checkpoint
from hggdp_plugin.models.refinenet import HGGDP_SIGMAS


def build_parser() -> argparse.ArgumentParser:
    """The options of ``hggdp convert``."""
    p = argparse.ArgumentParser(
        prog="hggdp convert", description="Convert a published HGGDP checkpoint (.pth), or a prior, to a prior."
    )
    p.add_argument(
        "checkpoint",
        type=Path,
        help="torch file with the network's state dict, alone or first in a list; or a prior, .safetensors",
    )
    p.add_argument("output", type=Path, help="prior to write, .safetensors")
    p.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        default=HGGDP_SIGMAS,
        help="noise level of each class, which the published file does not say (default: 10 from 1 to 0.01, geometric)",
    )
    p.add_argument("--half", action="store_true", help="store the weights as float16: half the size")
    p.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``hggdp convert``; returns the exit code."""
    return run("convert", _convert, argv, refusal=ValueError)


def _convert(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".safetensors":
        raise ValueError(f"{args.output}: the name of a prior ends in .safetensors")
    if args.output.exists() and not args.overwrite:
        raise ValueError(f"{args.output}: exists; --overwrite replaces it")
    if args.checkpoint.suffix == ".safetensors":
        network, description = load_model(args.checkpoint)
    else:
        network, description = read_hggdp_checkpoint(args.checkpoint, args.sigmas), {"source": args.checkpoint.name}
    save_model(args.output, network.half() if args.half else network, description)
    parameters = sum(weights.numel() for weights in network.parameters())
    print(f"{args.output}: {network.views} views, {parameters / 1e6:.2f} million parameters")


if __name__ == "__main__":
    sys.exit(main())

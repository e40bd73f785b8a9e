"""Command line: train a score prior on one's own images."""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``hggdp train``."""
    p = argparse.ArgumentParser(
        prog="hggdp train",
        description="Train a score prior. The same command, run again after a stop, continues where it was.",
    )
    p.add_argument("data", nargs="+", type=Path, help="files or folders of complex images (.h5, .npy, .cfl)")
    p.add_argument("-o", "--output", type=Path, required=True, help="prior to write, .safetensors")
    p.add_argument("--val", nargs="+", type=Path, default=[], help="images for the validation figures")
    p.add_argument("--init", help="prior to start from: a bundled name or a file")
    p.add_argument("--views", type=int, default=1, help="noisy views the network sees of each image (default 1)")
    p.add_argument("--widths", type=int, nargs="+", default=[64, 128, 192], help="channels per resolution level")
    p.add_argument("--steps", type=int, default=10_000, help="training steps (default 10000)")
    p.add_argument("--batch-size", type=int, default=8, help="crops per step (default 8)")
    p.add_argument("--crop", type=int, default=128, help="crop size in pixels (default 128)")
    p.add_argument("--lr", type=float, default=8e-4, help="peak learning rate (default 8e-4)")
    p.add_argument("--max-time", metavar="DD:HH:MM:SS", help="stop after this time, and write what is there")
    p.add_argument("--val-every", type=int, default=1000, help="steps between validations (default 1000)")
    p.add_argument("-s", "--seed", type=int, default=0)
    p.add_argument("--float32", action="store_true", help="full precision instead of bfloat16 autocast")
    p.add_argument("--devices", default="auto", help="number of GPUs or CPU processes (default: all GPUs)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)
    if find_spec("lightning") is None:
        print("hggdp train: needs Lightning; run: pip install 'hggdp_plugin[train]'", file=sys.stderr)
        return 2
    from hggdp_plugin.training.run import train

    try:
        train(args)
    except ValueError as e:
        print(f"hggdp train: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

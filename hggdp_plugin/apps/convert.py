"""``hggdp convert``: convert a published HGGDP checkpoint to a prior, or a prior to half precision."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hggdp_plugin.apps._cli import input_file, refusals, run
from hggdp_plugin.io.files import InputError


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``hggdp convert``."""
    p = argparse.ArgumentParser(
        prog="hggdp convert", description="Convert a published HGGDP checkpoint (.pth), or a prior, to a prior."
    )
    p.add_argument(
        "checkpoint",
        type=Path,
        help="PyTorch file with the state dict of the network, alone or first in a list; or a prior, .safetensors",
    )
    p.add_argument("output", type=Path, help="prior to write, .safetensors")
    p.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        help="noise level of each class, which the published file does not contain (default: 10 from 1 to 0.01,"
        " geometric)",
    )
    p.add_argument("--half", action="store_true", help="store the weights as float16: half the size")
    p.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hggdp convert``.

    Args:
        argv (sequence of str or None): The arguments; None: those of the process.

    Returns:
        int: The exit code.
    """
    return run("convert", _convert, argv)


def _convert(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".safetensors":
        raise InputError(args.output, "priors are .safetensors files", "choose a name that ends in .safetensors")
    if args.output.exists() and not args.overwrite:
        raise InputError(args.output, "the file exists", "choose another name, or allow it with --overwrite")
    input_file(args.checkpoint, "a checkpoint", (".safetensors", ".pth", ".pt"))

    from hggdp_plugin.checkpoint import load_model, save_model
    from hggdp_plugin.hggdp_checkpoint import read_hggdp_checkpoint
    from hggdp_plugin.models.refinenet import HGGDP_SIGMAS

    with refusals(args.checkpoint, "convert"):
        if args.checkpoint.suffix == ".safetensors":
            network, description = load_model(args.checkpoint)
        else:
            network = read_hggdp_checkpoint(args.checkpoint, args.sigmas or HGGDP_SIGMAS)
            description = {"source": args.checkpoint.name}
    save_model(args.output, network.half() if args.half else network, description)
    parameters = sum(weights.numel() for weights in network.parameters())
    print(f"{args.output}: {network.views} views, {parameters / 1e6:.2f} million parameters")


if __name__ == "__main__":
    sys.exit(main())

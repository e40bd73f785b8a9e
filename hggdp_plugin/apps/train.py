"""``hggdp train``: trains a score prior on one's own images."""

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from hggdp_plugin.apps._cli import natural, positive, run
from hggdp_plugin.io import InputError

AUGMENTATIONS = ("flip", "phase", "smooth_phase", "intensity", "shading", "zoom")


def build_parser() -> argparse.ArgumentParser:
    """The options of ``hggdp train``."""
    p = argparse.ArgumentParser(
        prog="hggdp train",
        description="Train a score prior. The same command, run again after a stop, continues where it was.",
    )
    p.add_argument(
        "data", nargs="+", type=Path, help="files or folders of complex images (.h5, .npy, .cfl, .mat), or of raw data"
    )
    p.add_argument("-o", "--output", type=Path, required=True, help="prior to write, .safetensors")
    p.add_argument("--val", nargs="+", type=Path, default=[], help="images for the validation figures")
    p.add_argument(
        "--init", help="prior to start from, a bundled name or a file, with its architecture, views and widths"
    )
    p.add_argument(
        "--keep",
        type=_part,
        default=0.0,
        metavar="PART",
        help="part of the weights of --init in those written, 0 to 1 (default 0); a finished run can be given another",
    )
    p.add_argument(
        "--architecture", choices=("unet", "refinenet"), default="unet", help="refinenet: the published network"
    )
    p.add_argument("--views", type=positive, default=1, help="noisy views the network sees of each image (default 1)")
    p.add_argument(
        "--widths",
        type=positive,
        nargs="+",
        help="channels per resolution level (default 64 128 192 224); refinenet: at full resolution (default 128)",
    )
    p.add_argument(
        "--blocks",
        type=positive,
        help="residual blocks per level (default 2); with --init, those that the prior lacks start as the identity",
    )
    p.add_argument(
        "--phase-pixels",
        type=natural,
        help="resolution of the phase taken out before the network; 0: it is left in (default 16, or the prior's)",
    )
    p.add_argument("--steps", type=positive, default=10_000, help="training steps (default 10000)")
    p.add_argument("--batch-size", type=positive, default=16, help="crops per step and device (default 16)")
    p.add_argument(
        "--reconstructions",
        type=natural,
        metavar="N",
        help="steps of reconstructions of whole images that a training step learns from too, per device, in the last "
        "quarter of the steps, with --init in all (default 1; refinenet or several views: 0)",
    )
    p.add_argument("--crop", type=positive, default=64, help="crop size in pixels (default 64)")
    p.add_argument(
        "--without",
        nargs="+",
        choices=AUGMENTATIONS,
        default=[],
        help=f"augmentation to leave out: {', '.join(AUGMENTATIONS)}",
        metavar="NAME",
    )
    p.add_argument("--optimizer", choices=("muon", "adamw"), default="muon", help="muon (default) or adamw")
    p.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default 2e-3)")
    p.add_argument(
        "--max-time",
        type=_duration,
        help="stop this start after a time, such as 9m, 1h30m or DD:HH:MM:SS, and write the prior as it is",
    )
    p.add_argument("--val-every", type=positive, default=1000, help="steps between validations (default 1000)")
    p.add_argument("-s", "--seed", type=int, default=0)
    p.add_argument("--float32", action="store_true", help="full precision instead of bfloat16 autocast")
    p.add_argument("--compile", action="store_true", help="compile the network: minutes at the start, for a GPU")
    p.add_argument(
        "--devices", type=_devices, default="auto", help="number of GPUs or CPU processes (default: all GPUs)"
    )
    return p


def _duration(text: str) -> float:
    """Seconds in ``1d2h3m4s``, any of them, or in ``DD:HH:MM:SS``."""
    short = r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?"
    found = re.fullmatch(short, text) or re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", text)
    if not found or not text:
        raise argparse.ArgumentTypeError(f"{text!r}: give a time such as 9m, 1h30m, 90s or 00:01:30:00")
    return sum(int(n or 0) * unit for n, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


def _part(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (part := float(text)) <= 1:
            return part
    raise argparse.ArgumentTypeError(f"{text}: give a number from 0 to 1")


def _devices(text: str) -> str | int:
    return text if text == "auto" else positive(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``hggdp train``; returns the exit code."""
    return run("train", _train, argv, refusal=ValueError)


def _train(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    if find_spec("lightning") is None:
        raise InputError("training", "it needs the package lightning", "pip install 'hggdp_plugin[train]'")
    from hggdp_plugin.training.run import train

    train(args)


if __name__ == "__main__":
    sys.exit(main())

"""``hggdp train``: trains a score prior on one's own images."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hggdp_plugin.apps._cli import FOREIGN_KINDS, input_file, natural, positive, run, set_quiet, sole_writer
from hggdp_plugin.io.files import InputError
from hggdp_plugin.training.config import ARCHITECTURES, OFF, OPTIMIZERS, Augmentation, ConfigError, TrainConfig


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``hggdp train``; values that are not given are absent, as TrainConfig has the defaults."""
    parser = argparse.ArgumentParser(
        prog="hggdp train",
        description="Train a score prior. The same command, started again after a stop, continues where it was.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "data",
        nargs="+",
        type=Path,
        help="files or folders of images (.h5, .npy, .cfl, .mat; magnitudes: .nii, .dcm, .png), or of raw data",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="prior to write, .safetensors")
    parser.add_argument(
        "--val", dest="validation", nargs="+", type=Path, metavar="VAL", help="images for the validation figures"
    )
    _add_network(parser)
    _add_images(parser)
    _add_course(parser)
    return parser


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--init", help="prior to start from, a bundled name or a file, with its architecture, views and widths"
    )
    group.add_argument(
        "--init-weight",
        "--keep",
        type=_fraction,
        metavar="PART",
        help="weight of --init in the average of its weights and the trained ones that is written (WiSE-FT), 0 to 1"
        " (default 0); a finished run can be given another",
    )
    group.add_argument(
        "--architecture", choices=ARCHITECTURES, help="unet (default), or refinenet: the network of Quan et al."
    )
    group.add_argument("--views", type=positive, help="noisy views the network sees of each image (default 1)")
    group.add_argument(
        "--widths",
        type=positive,
        nargs="+",
        help="channels per resolution level (default 64 128 192 224); refinenet: at full resolution (default 128)",
    )
    group.add_argument(
        "--blocks",
        type=positive,
        help="residual blocks per level (default 2); with --init, those that the prior lacks start as the identity",
    )
    group.add_argument(
        "--phase-resolution",
        "--phase-pixels",
        type=natural,
        metavar="PIXELS",
        help="resolution of the phase removed before the network; 0: none is (default 16, or the prior's)",
    )


def _add_images(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("images")
    group.add_argument("--crop", type=positive, help="crop size in pixels (default 64)")
    group.add_argument(
        "--augmentation",
        choices=("standard", "broad"),
        help="broad: also random contrasts, resolutions, bias fields and tissue phases (default standard)",
    )
    group.add_argument(
        "--without",
        nargs="+",
        choices=OFF,
        help=f"augmentation to leave out: {', '.join(OFF)}",
        metavar="NAME",
    )
    group.add_argument(
        "--domain-weights",
        nargs="+",
        type=_weight,
        metavar="NAME=WEIGHT",
        help="how often the domains of a file with several are drawn (default 1 each; 0 leaves one out)",
    )
    group.add_argument(
        "--synthetic",
        type=natural,
        metavar="N",
        help="add N images of random shapes (domain dead_leaves) and N of random regions (domain regions)",
    )


def _add_course(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=positive, help="training steps (default 10000)")
    group.add_argument(
        "--budget",
        type=_duration,
        metavar="TIME",
        help="choose the network, the batch and the number of steps such that the training takes this time, such as 4h,"
        " on this machine, whose speed is measured first; options that are given stay",
    )
    group.add_argument("--batch-size", type=positive, help="crops per step and device (default 16)")
    group.add_argument(
        "--rollouts",
        "--reconstructions",
        type=natural,
        metavar="N",
        help="steps of simulated reconstructions of whole images per training step and device, in the last quarter of"
        " the steps, with --init in all (default 1; refinenet or several views: 0)",
    )
    group.add_argument(
        "--rollout-levels",
        type=positive,
        nargs="+",
        metavar="N",
        help="numbers of levels of their schedules, all equally likely (default 25)",
    )
    group.add_argument("--optimizer", choices=OPTIMIZERS, help="muon (default) or adamw")
    group.add_argument("--lr", dest="learning_rate", type=float, metavar="LR", help="peak learning rate (default 2e-3)")
    group.add_argument(
        "--max-time",
        type=_duration,
        metavar="TIME",
        help="stop this start after a time, such as 9m, 1h30m or DD:HH:MM:SS, and write the prior as it is",
    )
    group.add_argument(
        "--val-every",
        dest="validate_every",
        type=positive,
        metavar="STEPS",
        help="steps between validations (default 1000)",
    )
    group.add_argument("-s", "--seed", type=int, help="seed of all randomness (default 0)")
    group.add_argument("--float32", action="store_true", help="full precision instead of bfloat16 autocast")
    group.add_argument("--compile", action="store_true", help="compile the network: minutes at the start, for a GPU")
    group.add_argument("--devices", type=_devices, help="number of GPUs or CPU processes (default: all GPUs)")


def _duration(text: str) -> float:
    """Parse ``1d2h3m4s``, any of them, or ``DD:HH:MM:SS``; return seconds."""
    short = r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?"
    found = re.fullmatch(short, text) or re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", text)
    if not found or not text:
        raise argparse.ArgumentTypeError(f"{text!r}: give a time such as 9m, 1h30m, 90s or 00:01:30:00")
    return sum(int(n or 0) * unit for n, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


def _fraction(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (fraction := float(text)) <= 1:
            return fraction
    raise argparse.ArgumentTypeError(f"{text}: give a number from 0 to 1")


def _weight(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    with suppress(ValueError):
        if name and (weight := float(value)) >= 0:
            return name, weight
    raise argparse.ArgumentTypeError(f"{text}: give NAME=WEIGHT, such as knee=0.5")


def _devices(text: str) -> str | int:
    return text if text == "auto" else positive(text)


def make_config(given: dict[str, Any]) -> TrainConfig:
    """Make a run's configuration of the options that were given.

    Args:
        given (dict): Values by the names of :class:`TrainConfig`, except for ``augmentation``, ``without`` and
            ``domain_weights``, which are as parsed.

    Returns:
        TrainConfig: The configuration.
    """
    broad = given.pop("augmentation", "standard") == "broad"
    augmentation = (Augmentation.broad() if broad else Augmentation()).without(given.pop("without", ()))
    weights = dict(given.pop("domain_weights", ()))
    return TrainConfig(**given, augmentation=augmentation, domain_weights=weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hggdp train`` and return the exit code."""
    return run("train", _train, argv)


def _train(argv: Sequence[str] | None) -> None:
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    set_quiet(False)
    given.update({name: [_source(path) for path in given[name]] for name in ("data", "validation") if name in given})
    budget = given.pop("budget", None)
    chosen = frozenset(given)
    is_first = "LOCAL_RANK" not in os.environ  # Lightning starts the same command for each of its other processes
    try:
        config = make_config(given)
        if find_spec("lightning") is None:
            raise InputError("training", "it needs the package lightning", "pip install 'hggdp_plugin[train]'")
        from hggdp_plugin.training.budget import fit_to_budget
        from hggdp_plugin.training.run import train

        with sole_writer(Path(config.output)) if is_first else nullcontext():
            train(config if budget is None else fit_to_budget(config, budget, chosen))
    except ConfigError as error:
        raise InputError(_option(parser, error), error.problem, error.remedy) from error


def _source(path: Path) -> Path:
    """Return a folder as it is, or a file that exists. The readers know which kinds can be training images."""
    return path if path.is_dir() else input_file(path, "training images", tuple(FOREIGN_KINDS))


def _option(parser: argparse.ArgumentParser, error: ConfigError) -> str:
    """Return the option, with its value, that a ConfigError speaks of."""
    options = {action.dest: action.option_strings for action in parser._actions}
    long = [option for option in options.get(error.name, ()) if option.startswith("--")]
    values = error.value if isinstance(error.value, list | tuple) else [error.value]
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return " ".join([*(long[:1] or [error.name]), *shown])


if __name__ == "__main__":
    sys.exit(main())

"""``hggdp adapt``: adapt a prior to one's own undersampled scans."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hggdp_plugin.apps._cli import find_device, input_file, natural, positive, refusals, run, set_quiet, sole_writer
from hggdp_plugin.apps._recon_input import read_input
from hggdp_plugin.io.files import InputError

if TYPE_CHECKING:
    import sigpy as sp

    from hggdp_plugin.selfcheck import SelfCheck, SliceData

_logger = logging.getLogger("hggdp_plugin.apps.adapt")  # whose name is __main__ under python -m

_DESCRIPTION = """
Adapt a prior to undersampled scans, which need no fully sampled reference: it learns to predict some of their samples
from the others. A few per cent of the samples, which it never learns from, say whether it got better; if it did not,
nothing is written and the exit code is 1.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``hggdp adapt``."""
    parser = argparse.ArgumentParser(prog="hggdp adapt", description=_DESCRIPTION)
    parser.add_argument(
        "scans",
        nargs="+",
        type=Path,
        help="scans of one kind: raw data, ISMRMRD (.h5) or Siemens (.dat), or k-space in .npy or .cfl",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="prior to write, .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--prior", help="prior to start from, a bundled name or a file (default: the bundled one)")
    parser.add_argument("--steps", type=positive, default=200, help="training steps (default %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-4, help="peak learning rate (default %(default)s)")
    parser.add_argument(
        "--slices", type=positive, default=24, help="slices to learn from at most, evenly spaced (default %(default)s)"
    )
    parser.add_argument(
        "--judged", type=positive, default=8, help="of these, slices to judge on at most (default %(default)s)"
    )
    parser.add_argument(
        "--noise-var", type=float, help="noise variance of a complex sample (default: as hggdp recon has it)"
    )
    parser.add_argument("--calib-width", type=positive, help="width of the calibration region")
    parser.add_argument("-s", "--seed", type=natural, default=0, help="seed of all randomness (default %(default)s)")
    parser.add_argument("--gpu", type=natural, metavar="N", help="use a GPU, by its number")
    parser.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hggdp adapt``.

    Args:
        argv (sequence of str or None): The arguments; None: those of the process.

    Returns:
        int: The exit code; 1 if the adapted prior predicts no better.
    """
    return run("adapt", _adapt, argv)


def _adapt(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    set_quiet(args.quiet)
    scans = [input_file(path, "raw data or k-space", (".dat",)) for path in args.scans]
    if args.output.suffix != ".safetensors" or not args.output.resolve().parent.is_dir():
        raise InputError(args.output, "not a .safetensors file in a folder that exists", "change the name")
    if args.output.exists() and not args.overwrite:
        raise InputError(args.output, "the file exists", "choose another name, or allow it with --overwrite")
    for option, value in (("--lr", args.lr), ("--noise-var", args.noise_var)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{option} {value:g}", "out of range", "give a positive number")
    with sole_writer(args.output):
        return _train(args, scans)


def _train(args: argparse.Namespace, scans: list[Path]) -> int:
    """Adapt, judge, and write the prior if it predicts better."""
    from hggdp_plugin import interop
    from hggdp_plugin.checkpoint import DEFAULT_PRIOR, save_model
    from hggdp_plugin.prior import ScorePrior, load_prior
    from hggdp_plugin.selfcheck import mean_prediction_error
    from hggdp_plugin.training.adaptation import adapt, judge

    device, name = find_device(args.gpu), args.prior or DEFAULT_PRIOR
    whole = read_slices(scans, args, device)
    learned = [_without_judged(one, args) for one in whole]
    with refusals("--prior", "adapt"):
        before = load_prior(name)
        network = adapt(
            before.model,
            learned,
            steps=args.steps,
            learning_rate=args.lr,
            seed=args.seed,
            device=interop.torch_device(device),
            on_step=_Progress(args.steps),
        )
    judged = whole[:: -(-len(whole) // args.judged)]
    checks = judge({"before": before, "after": ScorePrior(network)}, judged, args.seed, device=device)
    if not checks["before"].n_held_out.sum():
        raise InputError(scans[0], "no samples lie outside the calibration region", "give scans with more samples")
    first, second = (mean_prediction_error(checks[key]) for key in ("before", "after"))
    better = int((checks["after"].prediction_error < checks["before"].prediction_error).sum())
    _logger.info(
        "Error of held-out samples relative to wavelets: %.3f before, %.3f after; lower on %d of %d slices.",
        *(first, second, better, len(judged)),
    )
    if not second < first:
        _logger.error("The adapted prior predicts these scans no better than %s. Nothing was written.", name)
        return 1
    description = {**before.description, "adaptation": _describe(args, name, scans, len(whole), checks)}
    for key in ("architecture", "config"):  # which the network itself knows
        description.pop(key, None)
    save_model(args.output, network, description)
    _logger.info("Wrote %s. Use it with hggdp recon --prior %s.", args.output, args.output)
    return 0


def _without_judged(data: "SliceData", args: argparse.Namespace) -> "SliceData":
    """Return a slice without the samples that judge, with the noise variance that hggdp recon reconstructs with."""
    from hggdp_plugin.training.adaptation import without_judged
    from hggdp_plugin.volume.reconstruct import WHITENED_NOISE_VAR

    noise_var = data.noise_var
    if args.noise_var is None and noise_var is not None:  # prewhitened
        noise_var = WHITENED_NOISE_VAR * noise_var if len(data.y) > 1 else None
    return without_judged(data, args.seed)._replace(noise_var=noise_var)


def read_slices(scans: list[Path], args: argparse.Namespace, device: "sp.Device") -> "list[SliceData]":
    """Read some slices of each scan, evenly spaced.

    Args:
        scans (list of Path): The scans.
        args (Namespace): The options ``slices``, ``noise_var`` and ``calib_width``.
        device (Device): Where to compute the coil maps.

    Returns:
        list of SliceData: The slices, in host memory.

    Raises:
        InputError: A scan cannot be used.
    """
    from hggdp_plugin.volume.selfcheck import frame_data

    found: list[SliceData] = []
    for path in scans:
        raw = read_input(argparse.Namespace(coord=None, group=None, encoding=None, mps=None), path)
        _logger.info(raw.summary())
        if len(raw.grid) != 2:
            raise InputError(path, "a prior of slices cannot learn from this 3D trajectory", "give a scan of slices")
        per_scan = -(-args.slices // len(scans))
        options = {"n_frames": per_scan, "calib_width": args.calib_width, "device": device}
        found += [data for _, data in frame_data(raw, None, args.noise_var, **options)]
    return found


class _Progress:
    """Logs the mean loss and the time left ten times."""

    def __init__(self, steps: int) -> None:
        self.steps, self.losses, self.start = steps, list[float](), time.monotonic()

    def __call__(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        if step % max(self.steps // 10, 1) == 0:
            mean = sum(self.losses) / len(self.losses)
            left = (time.monotonic() - self.start) / step * (self.steps - step)
            _logger.info("step %d of %d, loss %.3f, about %.0f s left", step, self.steps, mean, left)
            self.losses.clear()


def _describe(
    args: argparse.Namespace, name: str, scans: list[Path], n_slices: int, checks: "dict[str, SelfCheck]"
) -> dict[str, Any]:
    """Describe the adaptation, for the prior's file."""
    from hggdp_plugin.selfcheck import mean_prediction_error

    return {
        "init": name,
        "scans": [path.name for path in scans],
        "slices": n_slices,
        "steps": args.steps,
        "learning_rate": args.lr,
        "prediction_error": {key: round(mean_prediction_error(check), 4) for key, check in checks.items()},
    }


if __name__ == "__main__":
    sys.exit(main())

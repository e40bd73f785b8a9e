"""``hggdp recon``: reconstruct raw data, or k-space from BART or NumPy, with a score prior."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hggdp_plugin.apps._cli import find_device, input_file, natural, positive, refusals, run, set_quiet, sole_writer
from hggdp_plugin.io.files import InputError, check_output, suffix_of

if TYPE_CHECKING:
    from hggdp_plugin._typing import Array
    from hggdp_plugin.io import RawData
    from hggdp_plugin.prior import ScorePrior
    from hggdp_plugin.schedule import NoiseSchedule

_logger = logging.getLogger("hggdp_plugin.apps.recon")  # whose name is __main__ under python -m

_DESCRIPTION = """
Reconstruct an ISMRMRD raw data file, or k-space from BART or NumPy: noise prewhitening, coil sensitivity maps by
ESPIRiT, annealed Langevin dynamics on a learned prior with data consistency at every step.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``hggdp recon``."""
    parser = argparse.ArgumentParser(prog="hggdp recon", description=_DESCRIPTION)
    parser.add_argument(
        "raw",
        type=Path,
        help="raw data: ISMRMRD (.h5) or Siemens (.dat), or k-space in .npy or .cfl (BART, also without the suffix)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="image to write: .h5 (ISMRMRD), .nii.gz, .npy, .cfl or .png (default: RAW_hggdp in the input's format)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--complex", action="store_true", help="write the complex image (.cfl: always), not its magnitude"
    )
    parser.add_argument(
        "--report", type=Path, metavar="HTML", help="write a report to read in a browser: images, mask, log, versions"
    )
    parser.add_argument("--group", help="HDF5 group of the raw data, if the file has several")
    parser.add_argument(
        "--encoding",
        type=natural,
        metavar="N",
        help="encoding to reconstruct, if the header has several (default: the one that covers most of k-space)",
    )
    parser.add_argument(
        "--mps", type=Path, help="sensitivity maps (coils, y, x) or (slices, coils, y, x), .npy, .cfl or .h5"
    )
    parser.add_argument(
        "-t", "--coord", type=Path, metavar="TRAJ", help="trajectory of .cfl or .npy k-space, in units of 1 / FOV"
    )
    parser.add_argument("--coils", type=positive, metavar="N", help="compress to N virtual coils")
    parser.add_argument("--calib-width", type=positive, metavar="N", help="width of the calibration region")
    _add_method_options(parser.add_argument_group("method"))
    _add_machine_options(parser.add_argument_group("machine"))
    return parser


def _add_method_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prior", help="name of a bundled prior, .safetensors file or published .pth (default: brain-t2)"
    )
    group.add_argument(
        "--schedule",
        choices=("fast", "hggdp"),
        default="fast",
        help="one step per level, or the published 10 x 80",
    )
    group.add_argument("-N", "--levels", type=positive, help="noise levels")
    group.add_argument("-K", "--steps", type=positive, help="steps per level (hggdp only)")
    group.add_argument(
        "--reference-noise",
        "--published-noise",
        action="store_true",
        help="noise and data consistency exactly as in the published code (hggdp only; Cartesian data)",
    )
    group.add_argument("-S", "--samples", type=positive, default=1, help="reconstructions to average (default 1)")
    group.add_argument("-s", "--seed", type=natural, default=0, help="seed of the noise (default 0)")
    group.add_argument(
        "-r",
        "--noise-var",
        "--lamda",
        type=_variance,
        metavar="VAR",
        help="noise variance of a complex k-space sample; 0: exact data consistency (default: 0 for one Cartesian coil,"
        " 0.5 if prewhitened, else estimated)",
    )
    group.add_argument(
        "--max-cg-iter",
        type=positive,
        metavar="N",
        help="conjugate gradient iterations per step (default: 2 Chebyshev iterations, non-Cartesian 4)",
    )


def _add_machine_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-g", "--gpu", type=int, nargs="?", const=0, metavar="ID", help="run on a GPU (-g alone: the first one)"
    )
    group.add_argument(
        "--batch-size", type=positive, metavar="N", help="slices at a time (default: what fits into the free memory)"
    )
    group.add_argument("--float32", action="store_true", help="run the network in full precision, not bfloat16")
    group.add_argument("-q", "--quiet", action="store_true", help="print only warnings and errors")


def _variance(text: str) -> float:
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a variance, 0 or more")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hggdp recon``.

    Args:
        argv (sequence of str or None): The arguments; None: those of the process.

    Returns:
        int: The exit code.
    """
    return run("recon", _recon, argv)


def _recon(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    set_quiet(args.quiet)
    args.raw = input_file(args.raw, "raw data or k-space", (".dat",))
    args.mps = input_file(args.mps, "coil maps") if args.mps else None
    args.coord = input_file(args.coord, "a trajectory") if args.coord else None
    output = _output(args)
    inputs = [path for path in (args.raw, args.mps, args.coord) if path]
    check_output(output, inputs=inputs, overwrite=args.overwrite)
    if args.report is None:
        with sole_writer(output):
            _reconstruct(args, output)
        return
    if args.report.suffix.lower() not in (".html", ".htm") or not args.report.resolve().parent.is_dir():
        raise InputError("--report", f"cannot write {args.report}", "give a .html file in a folder that exists")
    from hggdp_plugin.report import collected_log

    with sole_writer(output), collected_log() as messages:
        _reconstruct(args, output, messages)


def _reconstruct(args: argparse.Namespace, output: Path, messages: "list[tuple[str, str]] | None" = None) -> None:
    from hggdp_plugin.io import write_image
    from hggdp_plugin.volume.reconstruct import reconstruct
    from hggdp_plugin.volume.resume import ResumeStore

    start = time.monotonic()
    device = find_device(args.gpu)
    raw = _read(args)
    seconds = {"reading": time.monotonic() - start}
    _logger.info(raw.summary())
    prior, schedule = _method(args)
    raw, mps = _coils(args, raw)
    if args.reference_noise:
        _check_reference_noise(raw, mps)
    begin = time.monotonic()
    store = ResumeStore(output.with_name(f"{output.name}.part"))
    image = reconstruct(
        raw,
        mps,
        args.noise_var,
        prior=prior,
        schedule=schedule,
        samples=args.samples,
        seed=args.seed,
        max_cg_iter=args.max_cg_iter,
        calib_width=args.calib_width,
        batch_size=args.batch_size,
        device=device,
        resume=store,
        show_pbar=not args.quiet,
    )
    seconds["maps and reconstruction"] = time.monotonic() - begin
    history = f"hggdp_plugin {args.schedule}, {schedule.evaluations} evaluations, seed {args.seed}"
    keep_phase = args.complex or suffix_of(output) == ".cfl"  # BART's images are complex
    write_image(output, image, raw=raw, complex_=keep_phase, overwrite=args.overwrite, history=history)
    store.remove()
    _logger.info("Wrote %s in %.1f s.", output, time.monotonic() - start)
    if messages is not None:
        _write_report(args, raw, image, messages, seconds, history)


def _write_report(
    args: argparse.Namespace,
    raw: "RawData",
    image: "Array",
    messages: list[tuple[str, str]],
    seconds: dict[str, float],
    history: str,
) -> None:
    from hggdp_plugin.checkpoint import DEFAULT_PRIOR
    from hggdp_plugin.report import Report, write_report, zero_filled_image

    first = next(zip(*raw.measured_frames.nonzero(), strict=True))
    report = Report(
        title=args.raw.name,
        image=image,
        zero_filled=zero_filled_image(raw),
        mask=None if raw.mask is None else raw.mask[first],
        messages=messages,
        facts={"method": history, "prior": args.prior or DEFAULT_PRIOR, "samples averaged": args.samples},
        seconds=seconds,
    )
    write_report(args.report, report)
    _logger.info("Wrote %s.", args.report)


def _output(args: argparse.Namespace) -> Path:
    """Return the output file. For BART arrays the suffix may be left out, as BART does."""
    from_bart = suffix_of(args.raw) in (".cfl", ".hdr")
    if args.output is None:
        suffix = ".cfl" if from_bart else ".npy" if suffix_of(args.raw) == ".npy" else ".h5"
        return args.raw.with_name(f"{args.raw.stem}_hggdp{suffix}")
    if from_bart and not args.output.suffix:
        return args.output.with_name(f"{args.output.name}.cfl")
    return args.output


def _read(args: argparse.Namespace) -> "RawData":
    from hggdp_plugin import io

    is_array, is_twix = suffix_of(args.raw) in io.ARRAY_SUFFIXES, suffix_of(args.raw) == ".dat"
    if args.coord and not is_array:
        raise InputError("--coord", "raw data files contain their own trajectory", "leave it out")
    for option in ("group", "encoding"):
        if getattr(args, option) is not None and (is_array or is_twix):
            raise InputError(f"--{option}", f"only ISMRMRD files have {option}s", "leave it out")
    if is_twix:
        return io.read_twix(args.raw)
    if not is_array:
        return io.read_raw(args.raw, args.group, args.encoding)
    if args.coord is None:
        return io.read_kspace(args.raw)
    return io.read_kspace(args.raw, args.coord, mps=args.mps)


def _method(args: argparse.Namespace) -> "tuple[ScorePrior, NoiseSchedule]":
    """Load the prior and build the schedule that the options ask for."""
    from hggdp_plugin.checkpoint import DEFAULT_PRIOR
    from hggdp_plugin.prior import load_prior
    from hggdp_plugin.schedule import NoiseSchedule

    with refusals("--prior", "recon"):
        prior = load_prior(args.prior or DEFAULT_PRIOR, autocast=not args.float32)
    options = {name: value for name in ("levels", "steps") if (value := getattr(args, name)) is not None}
    with refusals("--schedule", "recon"):
        if args.schedule == "hggdp":
            return prior, NoiseSchedule.hggdp(**options, reference_noise=args.reference_noise)
        if args.reference_noise:
            raise ValueError("--reference-noise requires --schedule hggdp")
        if "steps" in options:
            raise ValueError("--steps requires --schedule hggdp; the fast schedule makes one step per level")
        return prior, NoiseSchedule.fast(**options)


def _check_reference_noise(raw: "RawData", mps: "Array | None") -> None:
    """Refuse data that the published sampler is not made for, before the reconstruction."""
    from hggdp_plugin.validation import check_reference_noise

    with refusals("--reference-noise", "recon"):
        check_reference_noise(mps, None, raw.coord)


def _coils(args: argparse.Namespace, raw: "RawData") -> "tuple[RawData, Array | None]":
    """Return the measurement in the coils that the options ask for, and the coil maps if they are given."""
    from hggdp_plugin.coil_compression import compress_coils
    from hggdp_plugin.volume.calibration import to_virtual_coils

    mps = _given_maps(args.mps, raw) if args.mps else None
    if args.coils:
        with refusals("--coils", "recon"):
            raw, matrix = to_virtual_coils(raw, args.coils)
        mps = None if mps is None else compress_coils(matrix, mps)
    return raw, mps


def _given_maps(path: Path, raw: "RawData") -> "Array":
    from hggdp_plugin.io import read_maps

    mps = read_maps(path, raw.slice_axis)
    shape = (raw.n_coils, *raw.grid)
    if mps.shape not in ((1, *shape), (raw.n_slices, *shape)):
        expected = f"(coils, y, x) = {shape}, or the same with {raw.n_slices} slices in front"
        raise InputError(path, f"maps of shape {mps.shape}, expected {expected}", "use maps of this measurement")
    return mps


if __name__ == "__main__":
    sys.exit(main())

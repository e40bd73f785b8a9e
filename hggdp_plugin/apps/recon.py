"""``hggdp recon``: reconstruct raw data, or k-space from BART or NumPy, with a score prior."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hggdp_plugin.apps._cli import input_file, log_to_file, natural, positive, run, set_quiet, sole_writer
from hggdp_plugin.apps._recon_input import AUTO, PIPE, check_number_of_images, read_input
from hggdp_plugin.io.files import FOLDER, InputError, check_output, check_std_output, suffix_of
from hggdp_plugin.log import collected_log

if TYPE_CHECKING:
    from hggdp_plugin.apps._recon_job import ReconJob

_logger = logging.getLogger("hggdp_plugin.apps.recon")  # whose name is __main__ under python -m

_DESCRIPTION = """
Reconstruct ISMRMRD or Siemens raw data, or k-space from BART or NumPy: noise prewhitening, coil sensitivity maps by
ESPIRiT, annealed Langevin dynamics on a learned prior with data consistency at every step. Beside each image a record
of what was read, estimated and used is written as JSON.
"""

#: Formats of images by the names that --format takes, and their suffixes.
FORMATS = {
    "h5": ".h5",
    "nii.gz": ".nii.gz",
    "nii": ".nii",
    "npy": ".npy",
    "cfl": ".cfl",
    "png": ".png",
    "dicom": FOLDER,
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``hggdp recon``."""
    parser = argparse.ArgumentParser(prog="hggdp recon", description=_DESCRIPTION)
    parser.add_argument(
        "raw",
        nargs="+",
        type=Path,
        help="raw data: ISMRMRD (.h5) or Siemens (.dat), or k-space in .npy or .cfl (BART, also without the suffix);"
        " several are reconstructed one after the other; -: an MRD stream from standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        help="image to write: .h5 (ISMRMRD), .nii.gz, .npy, .cfl, .png or .dcm; with a slash at its end a folder of"
        " DICOM images; -: an MRD stream to standard output (default: RAW_hggdp in the input's format)",
    )
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="folder for the images, made if necessary")
    parser.add_argument(
        "--format", choices=FORMATS, help="format of images that -o does not name (dicom: a folder for each input)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append the log to a file, whatever the screen shows")
    parser.add_argument(
        "--complex", action="store_true", help="write the complex image (.cfl: always), not its magnitude"
    )
    parser.add_argument(
        "--report", type=Path, metavar="HTML", help="write a report to read in a browser: images, mask, log, versions"
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="write the standard error beside the image: a second series of .h5, else NAME_std, in the image's units"
        " (three times as long)",
    )
    parser.add_argument("--group", help="HDF5 group of the raw data, if the file has several")
    parser.add_argument(
        "--encoding",
        type=natural,
        metavar="N",
        help="encoding to reconstruct, if the header has several (default: the one that covers most of k-space)",
    )
    parser.add_argument(
        "-t", "--coord", type=Path, metavar="TRAJ", help="trajectory of .cfl or .npy k-space, in units of 1 / FOV"
    )
    _add_coil_options(parser)
    _add_method_options(parser.add_argument_group("method"))
    _add_machine_options(parser.add_argument_group("machine"))
    _add_cohort_options(parser.add_argument_group("cohort", "many files on several workers (needs the extra cluster)"))
    return parser


def _add_coil_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mps", type=Path, help="sensitivity maps (coils, y, x) or (slices, coils, y, x), .npy, .cfl or .h5"
    )
    parser.add_argument(
        "--maps",
        type=int,
        choices=(1, 2),
        default=1,
        help="sets of sensitivity maps: 2 where the object is larger than the field of view and folds over; in files"
        " they are an axis before the coils (default 1)",
    )
    parser.add_argument("--coils", type=positive, metavar="N", help="compress to N virtual coils")
    parser.add_argument("--calib-width", type=positive, metavar="N", help="width of the calibration region")


def _add_method_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prior",
        help="name of a bundled prior (brain-t2, the default, or mri-any), .safetensors file or published .pth, or "
        "auto: the bundled one that predicts held-out samples best",
    )
    group.add_argument(
        "--self-check",
        action="store_true",
        help="check in every slice whether the prior fits: does it predict samples that were held out? "
        "(a third of the time of the reconstruction; written to log, record and image)",
    )
    group.add_argument(
        "--schedule",
        choices=("fast", "quick", "hggdp", "posterior"),
        default="fast",
        help="one step per level, fast (25 levels) or quick (10); the published 10 x 80; draws from the posterior",
    )
    group.add_argument("-N", "--levels", type=positive, help="noise levels")
    group.add_argument("-K", "--steps", type=positive, help="steps per level (hggdp and posterior)")
    group.add_argument(
        "--reference-noise",
        "--published-noise",
        action="store_true",
        help="noise and data consistency exactly as in the published code (hggdp only; Cartesian data)",
    )
    group.add_argument("-S", "--samples", type=positive, default=1, help="reconstructions to average (default 1)")
    group.add_argument(
        "--samples-out",
        type=Path,
        metavar="NPY",
        help="write each of the -S reconstructions too, complex (samples, repetition, contrast, phase, set, slice, y,"
        " x), and log their spread in the measured part of k-space and in the rest",
    )
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


def _add_cohort_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cluster",
        metavar="WHERE",
        help="reconstruct the files on Dask workers: local (of this machine), slurm (jobs), or the address of a "
        "scheduler, tcp://HOST:PORT. A manifest, cohort.json, and a page, cohort.html, are written to --output-dir; "
        "the same command again does what is missing or changed",
    )
    group.add_argument("--workers", type=positive, metavar="N", help="number of workers (local, slurm)")
    group.add_argument("--memory-per-worker", metavar="SIZE", help="such as 4GB; a worker that needs more is restarted")
    group.add_argument("--dry-run", action="store_true", help="show what would be done, and the job script of slurm")


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


def _recon(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    _check_options(args)
    if args.cluster:
        set_quiet(args.quiet)
        from hggdp_plugin.apps._recon_cohort import run_cohort

        with log_to_file(args.log):
            return run_cohort(args, _output)
    args.raw = [raw if str(raw) == PIPE else input_file(raw, "raw data or k-space", (".dat",)) for raw in args.raw]
    args.mps = input_file(args.mps, "coil maps") if args.mps else None
    args.coord = input_file(args.coord, "a trajectory") if args.coord else None
    outputs = [_output(args, raw) for raw in args.raw]
    set_quiet(args.quiet, stdout_is_free=PIPE not in outputs)
    _check_outputs(args, outputs)
    job: ReconJob | None = None
    failures = 0
    with log_to_file(args.log):
        for path, output in zip(args.raw, outputs, strict=True):
            start = time.monotonic()
            try:
                with nullcontext() if output == PIPE else sole_writer(Path(output)), collected_log() as messages:
                    raw = read_input(args, path)
                    check_number_of_images(raw, output)
                    _logger.info(raw.summary())
                    job = job or _job(args)
                    job.run(raw, path, output, messages, start)
            except (InputError, OSError) as error:
                if len(outputs) == 1:
                    raise
                _logger.error("%s", error)
                failures += 1
    return 2 if failures else 0


def _job(args: argparse.Namespace) -> "ReconJob":
    """Prepare the reconstruction, after the first input was read: an unusable one is answered before the imports."""
    from hggdp_plugin.apps._recon_job import ReconJob

    return ReconJob(args)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that only make sense for one input, or do not go together."""
    if args.raw.count(Path(PIPE)) and len(args.raw) > 1:
        raise InputError(PIPE, "standard input is one measurement", "give it alone")
    for option in ("output", "report"):
        if getattr(args, option) is not None and len(args.raw) > 1:
            problem = f"there are {len(args.raw)} inputs"
            raise InputError(f"--{option}", problem, "give one, or choose names with --output-dir and --format")
    if not args.cluster and (args.workers or args.memory_per_worker or args.dry_run):
        problem = "--workers, --memory-per-worker and --dry-run need a cluster"
        raise InputError("--cluster", problem, "choose one: --cluster local")
    if args.maps > 1:
        _check_sets(args)
    if args.output is not None and (args.output_dir or args.format):
        raise InputError("--output", "--output-dir and --format name the image too", "give either")
    if args.samples_out is not None:
        _check_samples(args)
    if args.report is not None and (
        args.report.suffix.lower() not in (".html", ".htm") or not args.report.resolve().parent.is_dir()
    ):
        raise InputError("--report", f"cannot write {args.report}", "give a .html file in a folder that exists")


def _check_sets(args: argparse.Namespace) -> None:
    """Refuse options that are for one set of maps."""
    is_given = {
        "--coord": args.coord is not None,
        "--uncertainty": args.uncertainty,
        "--self-check": args.self_check,
        "--prior auto": args.prior == AUTO,
        "--reference-noise": args.reference_noise,
        "--samples-out": args.samples_out is not None,
    }
    for option, given in is_given.items():
        if given:
            raise InputError("--maps", f"{option} is for one set of maps", "leave out either")


def _check_samples(args: argparse.Namespace) -> None:
    """Refuse to write samples where there are none, or where they can't be written."""
    if len(args.raw) > 1 or args.samples < 2:
        problem = f"there are {len(args.raw)} inputs" if len(args.raw) > 1 else "there is one sample"
        raise InputError("--samples-out", problem, "give one input, and the number of samples with -S")
    if args.samples_out.suffix.lower() != ".npy":
        raise InputError("--samples-out", f"cannot write {args.samples_out}", "give a .npy file")
    check_output(args.samples_out, overwrite=args.overwrite)


def _output(args: argparse.Namespace, raw: Path) -> str:
    """Return the output of an input. For BART arrays the suffix may be left out, as BART does."""
    from_bart = suffix_of(raw) in (".cfl", ".hdr")
    if args.output is not None:
        without_suffix = not Path(args.output).suffix and suffix_of(args.output) != FOLDER and args.output != PIPE
        return f"{args.output}.cfl" if from_bart and without_suffix else str(args.output)
    if str(raw) == PIPE and args.output_dir is None:
        return PIPE
    suffix = ".cfl" if from_bart else ".npy" if suffix_of(raw) == ".npy" else ".h5"
    suffix = FORMATS[args.format] if args.format else suffix
    folder = args.output_dir or raw.parent
    return str(folder / f"{'stream' if str(raw) == PIPE else raw.stem}_hggdp") + suffix


def _check_outputs(args: argparse.Namespace, outputs: list[str]) -> None:
    """Check before any work whether all images can be written."""
    if args.output_dir is not None:
        try:
            args.output_dir.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(args.output_dir, f"the folder cannot be made ({error})", "choose another") from None
    inputs = [path for path in (*args.raw, args.mps, args.coord) if path]
    for number, output in enumerate(outputs):
        if output in outputs[:number]:
            problem = f"it is the output of both {args.raw[outputs.index(output)]} and {args.raw[number]}"
            raise InputError(output, problem, "reconstruct them apart")
        if output != PIPE:
            check_output(output, inputs=inputs, overwrite=args.overwrite)
            if args.uncertainty:
                check_std_output(output, inputs=inputs, overwrite=args.overwrite)


if __name__ == "__main__":
    sys.exit(main())

"""``hggdp recon``: reconstructs raw data, or k-space from BART or NumPy, with a score prior."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.apps._cli import natural, positive, run, set_quiet
from hggdp_plugin.io.files import suffix_of

_DESCRIPTION = """
Reconstructs an ISMRMRD raw data file, or k-space from BART or NumPy: noise prewhitening, coil sensitivity maps by
ESPIRiT, annealed Langevin dynamics on a learned prior with data consistency at every step.
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of ``hggdp recon``."""
    parser = argparse.ArgumentParser(prog="hggdp recon", description=_DESCRIPTION)
    parser.add_argument("raw", type=Path, help="ISMRMRD file (.h5), or k-space in .cfl (BART) or .npy")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="image to write: .h5 (ISMRMRD), .nii.gz, .npy, .cfl or .png (default: RAW_hggdp in the input's format)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--complex", action="store_true", help="write the complex image, not its magnitude")
    parser.add_argument("--group", help="group of the raw data in the file, where there are several")
    parser.add_argument(
        "--mps", type=Path, help="sensitivity maps (coils, y, x) or (slices, coils, y, x), .npy, .cfl or .h5"
    )
    parser.add_argument(
        "-t", "--coord", type=Path, metavar="TRAJ", help="trajectory of .cfl or .npy k-space, in units of 1 / FOV"
    )
    parser.add_argument("--coils", type=positive, metavar="N", help="compress to N virtual coils")
    parser.add_argument("--calib-width", type=positive, metavar="N", help="width of the calibration region")
    method = parser.add_argument_group("method")
    method.add_argument("--prior", help="bundled prior, .safetensors file or published .pth (default: brain-t2)")
    method.add_argument(
        "--schedule", choices=("fast", "hggdp"), default="fast", help="one step a level, or the published 10 x 80"
    )
    method.add_argument("-N", "--levels", type=positive, help="noise levels")
    method.add_argument("-K", "--steps", type=positive, help="steps per level (hggdp only)")
    method.add_argument(
        "--published-noise",
        action="store_true",
        help="the published sampler to the letter (hggdp only; Cartesian data)",
    )
    method.add_argument("-S", "--samples", type=positive, default=1, help="reconstructions to average (default 1)")
    method.add_argument("-s", "--seed", type=natural, default=0, help="of the noise (default 0)")
    method.add_argument(
        "-r",
        "--lamda",
        type=_variance,
        help="noise variance of a k-space sample; 0: exact data consistency (default: 0 for one Cartesian coil, 0.5"
        " if prewhitened, else measured)",
    )
    method.add_argument(
        "--max-cg-iter",
        type=positive,
        metavar="N",
        help="conjugate gradient iterations a step (default: 2 of Chebyshev, non-Cartesian 4)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "-g", "--gpu", type=int, nargs="?", const=0, metavar="ID", help="use a GPU (default: the first)"
    )
    machine.add_argument(
        "--batch-size", type=positive, metavar="N", help="slices at a time (default: what fits into the free memory)"
    )
    machine.add_argument("--float32", action="store_true", help="run the network in full precision, not bfloat16")
    machine.add_argument("-q", "--quiet", action="store_true", help="print only warnings and errors")
    return parser


def _variance(text: str) -> float:
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a variance, 0 or more")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``hggdp recon``; returns the exit code."""
    return run("recon", _recon, argv)


def _recon(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    set_quiet(args.quiet)
    output = args.output or _default_output(args.raw)
    inputs = [path for path in (args.raw, args.mps, args.coord) if path]
    io.check_output(output, inputs=inputs, overwrite=args.overwrite)
    device = find_device(args.gpu)
    start = time.monotonic()
    raw = _read(args)
    _say(args, raw.summary())

    # Imported once the input is known to be sound, so that a mistake is told soon.
    from hggdp_plugin.prior import load_prior
    from hggdp_plugin.validation import check_reference_noise
    from hggdp_plugin.volume.reconstruct import reconstruct
    from hggdp_plugin.volume.resume import discard

    with _refusals("--prior"):
        prior = load_prior(*([args.prior] if args.prior else []), autocast=not args.float32)
    with _refusals("--schedule"):
        schedule = _schedule(args)
    raw, mps = _coils(args, raw)
    if args.published_noise:
        with _refusals("--published-noise"):
            check_reference_noise(mps, None, raw.coord)
    keep = output.with_name(f"{output.name}.part")
    image = reconstruct(
        raw,
        mps,
        args.lamda,
        args.samples,
        args.seed,
        args.batch_size,
        args.calib_width,
        show_pbar=not args.quiet,
        keep=keep,
        log=partial(_say, args),
        prior=prior,
        schedule=schedule,
        device=device,
        max_cg_iter=args.max_cg_iter,
    )
    history = f"hggdp_plugin {args.schedule}, {schedule.evaluations} evaluations, seed {args.seed}"
    io.write_image(output, image, raw=raw, complex_=args.complex, overwrite=args.overwrite, history=history)
    discard(keep)
    _say(args, f"Wrote {output} in {time.monotonic() - start:.1f} s.")


def _default_output(raw: Path) -> Path:
    suffix = {".cfl": ".cfl", ".hdr": ".cfl", ".npy": ".npy"}.get(suffix_of(raw), ".h5")
    return raw.with_name(f"{raw.stem}_hggdp{suffix}")


def _read(args: argparse.Namespace) -> io.RawData:
    if suffix_of(args.raw) not in io.ARRAY_SUFFIXES:
        if args.coord:
            raise io.InputError("--coord", "ISMRMRD files have their own trajectory", "leave it out")
        return io.read_raw(args.raw, args.group)
    if args.group:
        raise io.InputError("--group", "array files have no groups", "leave it out")
    if args.coord is None:
        return io.read_kspace(args.raw)
    return io.read_kspace(args.raw, args.coord, io.read_maps(args.mps).shape[-2:] if args.mps else None)


@contextmanager
def _refusals(option: str) -> Iterator[None]:
    """What an option cannot be becomes one line for the user."""
    try:
        yield
    except ValueError as error:
        raise io.InputError(option, str(error), "see hggdp recon --help") from error


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, flush=True)


def find_device(gpu: int | None) -> sp.Device:
    """The CPU, or a GPU by its number.

    Raises:
        InputError: there is no such GPU, or no CuPy to use it with.
    """
    if gpu is None:
        return sp.cpu_device
    if find_spec("cupy") is None:
        raise io.InputError("--gpu", "a GPU needs the package cupy", "pip install 'hggdp_plugin[gpu]'")
    import torch

    if not torch.cuda.is_available() or gpu >= torch.cuda.device_count():
        raise io.InputError(f"--gpu {gpu}", "torch sees no such GPU", "run without --gpu, or check the driver")
    return sp.Device(gpu)


def _schedule(args: argparse.Namespace) -> Any:
    from hggdp_plugin.schedule import NoiseSchedule

    options = {name: value for name in ("levels", "steps") if (value := getattr(args, name)) is not None}
    if args.schedule == "hggdp":
        return NoiseSchedule.hggdp(**options, reference_noise=args.published_noise)
    if args.published_noise:
        raise ValueError("--published-noise goes with the schedule hggdp")
    if "steps" in options:
        raise ValueError("--steps goes with the schedule hggdp; the fast schedule makes one step a level")
    return NoiseSchedule.fast(**options)


def _coils(args: argparse.Namespace, raw: io.RawData) -> tuple[io.RawData, Any]:
    """The measurement in the coils that are asked for, and their maps if they are given."""
    from hggdp_plugin.coil_compression import compress_coils
    from hggdp_plugin.volume.reconstruct import compress

    mps = _given_maps(args.mps, raw) if args.mps else None
    if args.coils:
        with _refusals("--coils"):
            raw, matrix = compress(raw, args.coils, partial(_say, args))
        mps = None if mps is None else compress_coils(matrix, mps)
    return raw, mps


def _given_maps(path: Path, raw: io.RawData) -> Any:
    mps = io.read_maps(path, raw.is_3d)
    coils, slices = raw.ksp.shape[5], raw.ksp.shape[4]
    if mps.shape not in ((1, coils, *raw.grid), (slices, coils, *raw.grid)):
        expected = f"(coils, y, x) = {(coils, *raw.grid)}, or with {slices} slices before"
        raise io.InputError(path, f"maps of shape {mps.shape}, expected {expected}", "make them for this measurement")
    return mps


if __name__ == "__main__":
    sys.exit(main())

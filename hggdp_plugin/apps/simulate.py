"""``hggdp simulate``: make an undersampled ISMRMRD raw file from an image or from fully sampled coil k-space."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hggdp_plugin.apps._cli import NIFTI, input_file, run
from hggdp_plugin.io.files import InputError, check_output, replacing, suffix_of

if TYPE_CHECKING:
    from hggdp_plugin._typing import Array
    from hggdp_plugin.simulation import ScanProtocol

_DESCRIPTION = """
Make an ISMRMRD raw file as a scanner would have acquired it, undersampled, from fully sampled coil k-space, or from an
image, whose coils and noise are then simulated. The fully sampled image is stored in the same file (reference/image)
for hggdp evaluate.
"""

_MASKS = """
full; uniform: every R-th line (-R is their distance; the calibration lines are added); random: lines, denser in the
center (-R is the overall acceleration); poisson: variable-density Poisson-disc points (overall acceleration), which no
2D scan can acquire: the readouts are written in full, with exact zeros where nothing was sampled; radial: spokes,
computed by NUFFT
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``hggdp simulate``."""
    parser = argparse.ArgumentParser(prog="hggdp simulate", description=_DESCRIPTION)
    parser.add_argument(
        "input",
        type=Path,
        help="k-space (.npy, .cfl): (coils, ky, kx) or (slices, coils, ky, kx), centered, orthonormal FFT; "
        "or an image: (y, x) or (slices, y, x), also .nii.gz and MRD images",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="ISMRMRD file to write (.h5)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--kind",
        choices=("image", "kspace"),
        help="what the input is (default: guessed from its axes and from where its energy is)",
    )
    parser.add_argument("--coils", type=int, default=8, help="number of coils simulated for an image (default 8)")
    _add_sampling_options(parser.add_argument_group("sampling"))
    noise = parser.add_argument_group("noise")
    noise.add_argument(
        "--snr",
        type=float,
        help="mean magnitude of the object over the noise standard deviation per real channel (default: no noise)",
    )
    noise.add_argument("--noise-scan", action="store_true", help="add a noise scan")
    noise.add_argument("-s", "--seed", type=int, default=0, help="seed of mask and noise (default 0)")
    geometry = parser.add_argument_group("geometry")
    geometry.add_argument("--fov", type=float, default=230.0, help="field of view along the readout [mm] (default 230)")
    geometry.add_argument("--slice-thickness", type=float, default=5.0, help="[mm] (default 5)")
    geometry.add_argument(
        "--trajectory-unit",
        choices=("pixel", "fov"),
        default="pixel",
        help="unit of the spokes: cycles per pixel (0.5 at the edge; default) or per field of view",
    )
    return parser


def _add_sampling_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-m", "--mask", choices=("full", "uniform", "random", "poisson", "radial"), default="uniform", help=_MASKS
    )
    group.add_argument("-R", "--accel", type=float, default=4.0, help="acceleration (default 4)")
    group.add_argument(
        "--calib", type=int, default=24, help="fully sampled central lines; for poisson, a square (default 24)"
    )
    group.add_argument("--spokes", type=int, help="number of spokes, instead of -R (relative to Nyquist)")
    group.add_argument(
        "--angle", choices=("golden", "uniform"), default="golden", help="angle between spokes (default golden)"
    )
    group.add_argument("--oversampling", type=int, choices=(1, 2), default=1, help="readout oversampling (default 1)")
    group.add_argument(
        "--partial-fourier",
        type=float,
        default=1.0,
        metavar="FRACTION",
        help="acquired fraction of the lines, such as 0.75",
    )
    group.add_argument(
        "--asymmetric-echo",
        type=float,
        default=1.0,
        metavar="FRACTION",
        help="acquired fraction of each line, such as 0.8",
    )
    group.add_argument(
        "--volume",
        action="store_true",
        help="3D scan: the readout runs through the slices, both of their axes are phase encoded",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hggdp simulate``.

    Args:
        argv (sequence of str or None): The arguments; None: those of the process.

    Returns:
        int: The exit code.
    """
    return run("simulate", _simulate, argv)


def _simulate(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    if suffix_of(args.output) != ".h5":
        raise InputError(args.output, "ISMRMRD raw files are HDF5", "choose a name that ends in .h5")
    args.input = input_file(args.input, "an image or an array of k-space", NIFTI)
    check_output(args.output, inputs=[args.input], overwrite=args.overwrite)

    from hggdp_plugin.plausibility import guess_kind
    from hggdp_plugin.simulation import ScanGeometry, acquire, make_source, write_raw

    array = _read(args.input)
    kind = args.kind or guess_kind(array)
    if kind is None:
        raise InputError(args.input, "it may be an image or k-space", "add --kind image or --kind kspace")
    try:
        protocol = _protocol(args)
        geometry = ScanGeometry(args.fov, args.slice_thickness, traj_unit=args.trajectory_unit)
        source = make_source(array, kind, args.coils, args.calib)
        scan = acquire(source.ksp, source.image, protocol)
    except ValueError as error:
        problem = f"this protocol is not possible for this input: {error}"
        raise InputError(args.input, problem, "see hggdp simulate --help") from error
    attributes = {"source": kind, "combination": source.combination, "net_accel": scan.accel, **asdict(protocol)}
    with replacing(args.output) as path:
        reference = source.image.transpose(1, 2, 0) if args.volume else source.image
        write_raw(path, scan, reference, attributes, geometry)
    coils, readouts = scan.data.shape[1:3]
    slices, ny, nx = source.image.shape
    print(f"{args.input}: {kind}, slices {slices}, coils {coils}, matrix {ny} x {nx}; reference: {source.combination}")
    unit = "volume" if args.volume else "slice"
    print(f"{args.output}: {protocol.mask}, {readouts} lines per {unit}, net acceleration {scan.accel:.2f}")


def _read(path: Path) -> "Array":
    """Read an image (slices, y, x), or an array as it is stored."""
    from hggdp_plugin.io import read_array, read_images

    suffix = suffix_of(path)
    if suffix in (".cfl", ".hdr"):
        return _bart_slices(read_array(path), path)
    if suffix == ".npy":
        return read_array(path)
    image = read_images(path)
    return image.reshape(-1, *image.shape[-2:])


def _bart_slices(array: "Array", path: Path) -> "Array":
    """Take 2D slices (slices, coils, y, x) out of the dimensions of BART; one of READ, PHS1 and PHS2 must be 1."""
    from hggdp_plugin.io.cfl import take_dims

    slices = take_dims(array, ("SLICE", "COIL", "PHS2", "PHS1", "READ"), path, "2D slices")
    matrix = [size for size in slices.shape[2:] if size > 1]
    if len(matrix) != 2:
        problem = f"READ, PHS1 and PHS2 are {slices.shape[:1:-1]}, not a 2D matrix"
        raise InputError(path, problem, "extract 2D slices with bart slice, or save them as .npy")
    return slices.reshape(*slices.shape[:2], *matrix)


def _protocol(args: argparse.Namespace) -> "ScanProtocol":
    """Build the protocol that the options ask for."""
    from hggdp_plugin.simulation import ScanProtocol

    return ScanProtocol(
        mask=args.mask,
        accel=args.accel,
        calib=args.calib,
        spokes=args.spokes,
        golden=args.angle == "golden",
        seed=args.seed,
        snr=args.snr,
        noise_scan=args.noise_scan,
        oversampling=args.oversampling,
        partial_fourier=args.partial_fourier,
        partial_echo=args.asymmetric_echo,
        volume=args.volume,
    )


if __name__ == "__main__":
    sys.exit(main())

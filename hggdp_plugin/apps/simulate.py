"""``hggdp simulate``: makes an undersampled ISMRMRD raw file of an image or of fully sampled coil k-space."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from numpy.typing import NDArray

from hggdp_plugin import io
from hggdp_plugin.apps._cli import run
from hggdp_plugin.io.files import check_output, replacing, suffix_of
from hggdp_plugin.simulation import Geometry, Protocol, acquire, from_bart, guess_kind, make_source, write_raw

_DESCRIPTION = """
Makes an ISMRMRD raw file as a scanner would have measured it, undersampled, from fully sampled coil k-space or from an
image, whose coils and noise are then simulated. The fully sampled image is stored in the same file (reference/image),
for hggdp evaluate.
"""

_MASKS = """
full; uniform: every R-th line (-R is their distance, the calibration lines come on top); random: lines, denser in the
centre (-R is the overall acceleration); poisson: variable-density Poisson-disc points (overall acceleration), which in
2D no scanner can leave out of a line: the lines are written whole, with exact zeros for what was not measured; radial:
spokes, computed by NUFFT
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of ``hggdp simulate``."""
    parser = argparse.ArgumentParser(prog="hggdp simulate", description=_DESCRIPTION)
    parser.add_argument(
        "input",
        type=Path,
        help="k-space (.npy, .cfl): (coils, ky, kx) or (slices, coils, ky, kx), centred, orthonormal FFT; "
        "or an image: (y, x) or (slices, y, x), also .nii.gz and MRD images",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="ISMRMRD file to write (.h5)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--kind",
        choices=("image", "kspace"),
        help="what the input is; by default told from its axes and from where its energy lies",
    )
    parser.add_argument("--coils", type=int, default=8, help="coils simulated for an image (default 8)")
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "-m", "--mask", choices=("full", "uniform", "random", "poisson", "radial"), default="uniform", help=_MASKS
    )
    sampling.add_argument("-R", "--accel", type=float, default=4.0, help="acceleration (default 4)")
    sampling.add_argument(
        "--calib", type=int, default=24, help="fully sampled central lines; for poisson, a square (default 24)"
    )
    sampling.add_argument("--spokes", type=int, help="number of spokes, instead of -R (which is against Nyquist)")
    sampling.add_argument("--angle", choices=("golden", "uniform"), default="golden", help="between spokes")
    sampling.add_argument("--oversampling", type=int, choices=(1, 2), default=1, help="of the readout (default 1)")
    sampling.add_argument(
        "--partial-fourier", type=float, default=1.0, metavar="PART", help="measured part of the lines, such as 0.75"
    )
    sampling.add_argument(
        "--asymmetric-echo", type=float, default=1.0, metavar="PART", help="measured part of each line, such as 0.8"
    )
    sampling.add_argument(
        "--volume",
        action="store_true",
        help="measure the slices together, in 3D: the readout runs through them, their own axes are phase encoded",
    )
    noise = parser.add_argument_group("noise")
    noise.add_argument(
        "--snr",
        type=float,
        help="mean magnitude of the object over the standard deviation of the added noise in its real part; "
        "by default none is added",
    )
    noise.add_argument("--noise-scan", action="store_true", help="write a noise acquisition too")
    noise.add_argument("-s", "--seed", type=int, default=0, help="of mask and noise (default 0)")
    geometry = parser.add_argument_group("geometry")
    geometry.add_argument("--fov", type=float, default=230.0, help="field of view along the readout [mm] (default 230)")
    geometry.add_argument("--slice-thickness", type=float, default=5.0, help="[mm] (default 5)")
    geometry.add_argument(
        "--trajectory-unit",
        choices=("pixel", "fov"),
        default="pixel",
        help="spokes in cycles per pixel (0.5 at the edge, the default) or per field of view",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``hggdp simulate``; returns the exit code."""
    return run("simulate", _simulate, argv)


def _simulate(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    if suffix_of(args.output) != ".h5":
        raise io.InputError(args.output, "ISMRMRD raw files are HDF5", "choose a name that ends in .h5")
    check_output(args.output, inputs=[args.input], overwrite=args.overwrite)
    array = _read(args.input)
    kind = args.kind or guess_kind(array)
    if kind is None:
        raise io.InputError(args.input, "it may be an image or k-space", "say which: --kind image or --kind kspace")
    try:
        protocol = _protocol(args)
        geometry = Geometry(args.fov, args.slice_thickness, traj_unit=args.trajectory_unit)
        source = make_source(array, kind, args.coils, args.calib)
        measurement = acquire(source.ksp, source.image, protocol)
    except ValueError as error:
        raise io.InputError(args.input, f"it cannot be measured so: {error}", "see hggdp simulate --help") from error
    notes = {"source": kind, "combination": source.combination, "net_accel": measurement.accel, **asdict(protocol)}
    with replacing(args.output) as path:
        reference = source.image.transpose(1, 2, 0) if args.volume else source.image
        write_raw(path, measurement, reference, notes, geometry)
    coils, lines = measurement.data.shape[1:3]
    slices, ny, nx = source.image.shape
    print(f"{args.input}: {kind}, slices {slices}, coils {coils}, matrix {ny} x {nx}; reference: {source.combination}")
    unit = "volume" if args.volume else "slice"
    print(f"{args.output}: {protocol.mask}, {lines} lines a {unit}, net acceleration {measurement.accel:.2f}")


def _read(path: Path) -> NDArray:
    """Reads an image (slices, y, x), or an array as it is stored."""
    suffix = suffix_of(path)
    if suffix in (".cfl", ".hdr"):
        try:
            return from_bart(io.read_array(path))
        except io.InputError:
            raise
        except ValueError as error:
            raise io.InputError(path, str(error), "extract the slices with bart slice, or save them as .npy") from error
    if suffix == ".npy":
        return io.read_array(path)
    image = io.read_images(path)
    return image.reshape(-1, *image.shape[-2:])


def _protocol(args: argparse.Namespace) -> Protocol:
    """What the options ask to measure."""
    return Protocol(
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

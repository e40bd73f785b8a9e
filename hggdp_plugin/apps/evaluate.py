"""``hggdp evaluate``: compare reconstructions with their fully sampled reference."""

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hggdp_plugin.apps._cli import NIFTI, input_file, run
from hggdp_plugin.io.files import InputError, check_output, replacing

if TYPE_CHECKING:
    from hggdp_plugin._typing import Array
    from hggdp_plugin.metrics import Scores

_logger = logging.getLogger("hggdp_plugin.apps.evaluate")  # also as __main__

_DESCRIPTION = """
Compare reconstructions with a reference, slice by slice: PSNR, SSIM, HFEN and NRMSE of the magnitudes after the best
real scale, and PSNR and NRMSE of the complex images after the best complex scale, where both have a phase. The maximum
magnitude of the reference counts as 1. The means over the slices are printed.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``hggdp evaluate``."""
    parser = argparse.ArgumentParser(prog="hggdp evaluate", description=_DESCRIPTION)
    parser.add_argument("recon", type=Path, nargs="+", help="image: .h5 (MRD), .npy, .cfl (BART), .nii.gz")
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        help="raw file written by hggdp simulate, or the fully sampled image in any of these formats",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="TABLE.json", help="file for the scores of every slice, as JSON"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FIGURE.png", help="file for a figure of the middle slices and their errors"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hggdp evaluate``.

    Args:
        argv (sequence of str or None): The arguments; None: those of the process.

    Returns:
        int: The exit code.
    """
    return run("evaluate", _evaluate, argv)


def _evaluate(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    args.recon = [input_file(path, "an image", NIFTI) for path in args.recon]
    args.reference = input_file(args.reference, "an image", NIFTI)
    _check_outputs(args)

    reference = _read_reference(args.reference)
    images = {path: _read(path) for path in args.recon}
    scores = {path: _score(path, image, reference) for path, image in images.items()}
    print(_table(scores))
    if args.output is not None:
        with replacing(args.output) as path:
            path.write_text(json.dumps(_report(args.reference, scores), indent=2) + "\n")
    if args.figure is not None:
        from hggdp_plugin.figures import comparison

        middle = len(reference) // 2
        titles = {path.name: image[middle] for path, image in images.items()}
        with replacing(args.figure) as path:
            comparison(titles, reference[middle]).savefig(path, dpi=150)


def _check_outputs(args: argparse.Namespace) -> None:
    """Check, before the work, that the table and the figure can be written."""
    for path, suffix in ((args.output, ".json"), (args.figure, ".png")):
        if path is not None and path.suffix.lower() != suffix:
            raise InputError(path, f"it is written as {suffix}", f"choose a name that ends in {suffix}")
    if args.output is not None and args.output.exists() and not args.overwrite:
        raise InputError(args.output, "the file exists", "choose another name, or allow it with --overwrite")
    if args.figure is not None:
        check_output(args.figure, [*args.recon, args.reference], args.overwrite)


def _read(path: Path) -> "Array":
    """Read an image (slices, y, x); frames are listed one after the other."""
    from hggdp_plugin.io import read_images
    from hggdp_plugin.plausibility import guess_kind

    image = read_images(path)
    if guess_kind(image.reshape(-1, *image.shape[-2:])) == "kspace":
        _logger.warning("%s: its energy is all in the center, as in k-space.", path)
    return image.reshape(-1, *image.shape[-2:])


def _read_reference(path: Path) -> "Array":
    """Read the reference that is stored with simulated raw data, or an image."""
    from hggdp_plugin.io.hdf5 import open_hdf5
    from hggdp_plugin.simulation import REFERENCE

    if path.suffix.lower() == ".h5":
        with open_hdf5(path, "an image or raw data of hggdp simulate") as file:
            if REFERENCE in file:
                return file[REFERENCE][()]
            if "dataset/data" in file:
                problem = "these raw data have no reference image"
                raise InputError(path, problem, "make them with hggdp simulate, or give an image")
    return _read(path)


def _score(path: Path, image: "Array", reference: "Array") -> "list[Scores]":
    from hggdp_plugin.metrics import score_slices

    try:
        return score_slices(image, reference)
    except ValueError as error:
        raise InputError(path, f"it cannot be compared: {error}", "give an image of the same scan") from error


def _table(scores: "dict[Path, list[Scores]]") -> str:
    """Return the mean scores, one image per line; each score is followed by that of the complex images."""
    from hggdp_plugin.metrics import mean_scores

    width = max(len(str(path)) for path in scores)
    lines = [f"{'':{width}}  PSNR/dB  complex  SSIM    HFEN    NRMSE   complex"]
    for path, slices in scores.items():
        mean = mean_scores(slices)
        psnr_complex = "-" if mean.psnr_complex is None else f"{mean.psnr_complex:.2f}"
        nrmse_complex = "-" if mean.nrmse_complex is None else f"{mean.nrmse_complex:.4f}"
        magnitude = f"{mean.ssim:.4f}  {mean.hfen:6.3f}  {mean.nrmse:.4f}"
        lines.append(f"{path!s:{width}}  {mean.psnr:7.2f}  {psnr_complex:>7}  {magnitude}  {nrmse_complex:>7}")
    return "\n".join(lines)


def _report(reference: Path, scores: "dict[Path, list[Scores]]") -> dict[str, object]:
    """Return the scores for JSON, which has no infinity: the PSNR of equal images is null."""
    from hggdp_plugin.metrics import mean_scores

    def numbers(one: "Scores") -> dict[str, float | None]:
        return {k: None if v is None or not math.isfinite(v) else v for k, v in asdict(one).items()}

    images = [
        {"file": str(path), "mean": numbers(mean_scores(slices)), "slices": [numbers(one) for one in slices]}
        for path, slices in scores.items()
    ]
    return {"reference": str(reference), "images": images}


if __name__ == "__main__":
    sys.exit(main())

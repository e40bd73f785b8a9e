"""``hggdp evaluate``: compares reconstructions with their fully sampled reference."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import h5py
from numpy.typing import NDArray

from hggdp_plugin import io
from hggdp_plugin.apps._cli import run
from hggdp_plugin.figures import comparison
from hggdp_plugin.io.files import check_output, replacing
from hggdp_plugin.metrics import Scores, mean_scores, score_slices
from hggdp_plugin.simulation import REFERENCE

_DESCRIPTION = """
Compares reconstructions with a reference: PSNR, SSIM and HFEN of the magnitudes, and PSNR and NRMSE of the complex
images where both are complex (else of the magnitudes); each slice after the scale that brings it nearest to the
reference, whose largest magnitude counts as 1. Of several slices, the means are printed.
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of ``hggdp evaluate``."""
    parser = argparse.ArgumentParser(prog="hggdp evaluate", description=_DESCRIPTION)
    parser.add_argument("recon", type=Path, nargs="+", help="image: .h5 (MRD), .npy, .cfl, .nii.gz")
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        help="raw file written by hggdp simulate, or the fully sampled image in any of those formats",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="TABLE.json", help="write all scores, slice by slice")
    parser.add_argument(
        "--figure", type=Path, metavar="FIGURE.png", help="write the images of the middle slice and their errors"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``hggdp evaluate``; returns the exit code."""
    return run("evaluate", _evaluate, argv)


def _evaluate(argv: Sequence[str] | None) -> None:
    args = build_parser().parse_args(argv)
    _check_outputs(args)
    reference = _read_reference(args.reference)
    images = {path: _read(path) for path in args.recon}
    scores = {path: _score(path, image, reference) for path, image in images.items()}
    print(_table(scores))
    if args.output is not None:
        with replacing(args.output) as path:
            path.write_text(json.dumps(_report(args.reference, scores), indent=2) + "\n")
    if args.figure is not None:
        middle = len(reference) // 2
        names = {path.name: image[middle] for path, image in images.items()}
        with replacing(args.figure) as path:
            comparison(names, reference[middle]).savefig(path, dpi=150)


def _check_outputs(args: argparse.Namespace) -> None:
    """Finds out before the work whether the table and the figure can be written."""
    for path, suffix in ((args.output, ".json"), (args.figure, ".png")):
        if path is not None and path.suffix.lower() != suffix:
            raise io.InputError(path, f"it is written as {suffix}", f"choose a name that ends in {suffix}")
    if args.output is not None and args.output.exists() and not args.overwrite:
        raise io.InputError(args.output, "it exists already", "choose another name, or allow it with --overwrite")
    if args.figure is not None:
        check_output(args.figure, [*args.recon, args.reference], args.overwrite)


def _read(path: Path) -> NDArray:
    """Reads an image (slices, y, x); frames follow each other."""
    image = io.read_images(path)
    return image.reshape(-1, *image.shape[-2:])


def _read_reference(path: Path) -> NDArray:
    """Reads the reference stored with simulated raw data, or an image."""
    if path.suffix.lower() == ".h5" and path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if isinstance(file.get(REFERENCE), h5py.Dataset):
                return file[REFERENCE][()]
            if "dataset/data" in file:
                raise io.InputError(
                    path, "it holds no reference image", "make it with hggdp simulate, or give an image"
                )
    return _read(path)


def _score(path: Path, image: NDArray, reference: NDArray) -> list[Scores]:
    try:
        return score_slices(image, reference)
    except ValueError as error:
        raise io.InputError(path, f"it cannot be compared: {error}", "give an image of the same measurement") from error


def _table(scores: dict[Path, list[Scores]]) -> str:
    """The mean scores, an image per line."""
    width = max(len(str(path)) for path in scores)
    lines = [f"{'':{width}}  PSNR/dB  complex  SSIM    HFEN    NRMSE"]
    for path, slices in scores.items():
        mean = mean_scores(slices)
        of_complex = "      -" if mean.psnr_complex is None else f"{mean.psnr_complex:7.2f}"
        row = f"{mean.psnr:7.2f}  {of_complex}  {mean.ssim:.4f}  {mean.hfen:6.3f}  {mean.nrmse:.4f}"
        lines.append(f"{path!s:{width}}  {row}")
    return "\n".join(lines)


def _report(reference: Path, scores: dict[Path, list[Scores]]) -> dict:
    """The scores for JSON, which has no infinity: the PSNR of equal images is null."""

    def numbers(one: Scores) -> dict[str, float | None]:
        return {k: None if v is None or not math.isfinite(v) else v for k, v in asdict(one).items()}

    images = [
        {"file": str(path), "mean": numbers(mean_scores(slices)), "slices": [numbers(one) for one in slices]}
        for path, slices in scores.items()
    ]
    return {"reference": str(reference), "images": images}


if __name__ == "__main__":
    sys.exit(main())

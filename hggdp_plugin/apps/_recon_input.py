"""Inputs of ``hggdp recon``: raw data or k-space, by what their suffixes say."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hggdp_plugin.io.files import FOLDER, InputError, suffix_of

if TYPE_CHECKING:
    from hggdp_plugin.io import RawData

#: Standard input or output.
PIPE = "-"
#: Value of ``--prior`` for the bundled prior that fits best.
AUTO = "auto"


def read_input(args: argparse.Namespace, path: Path) -> "RawData":
    """Read an input, by what its suffix says.

    Args:
        args (Namespace): The parsed options.
        path (Path): Raw data or k-space, or ``-`` for standard input.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If the input cannot be used, or an option does not go with it.
    """
    from hggdp_plugin import io

    suffix = suffix_of(path)
    is_array, is_mrd = suffix in io.ARRAY_SUFFIXES, suffix not in (*io.ARRAY_SUFFIXES, ".dat") and str(path) != PIPE
    if args.coord and not is_array:
        raise InputError("--coord", "raw data contain their own trajectory", "leave it out")
    for option, possible in (("group", is_mrd), ("encoding", is_mrd or str(path) == PIPE)):
        if getattr(args, option) is not None and not possible:
            raise InputError(f"--{option}", f"only ISMRMRD files have {option}s", "leave it out")
    if str(path) == PIPE:
        from hggdp_plugin.io.mrd.stream import read_pipe

        return read_pipe(sys.stdin.buffer, encoding=args.encoding)
    if suffix == ".dat":
        return io.read_twix(path)
    if is_mrd:
        return io.read_raw(path, args.group, args.encoding)
    return io.read_kspace(path, args.coord, mps=args.mps)


def check_number_of_images(raw: "RawData", output: str) -> None:
    """Refuse several images for a DICOM file.

    Args:
        raw (RawData): The measurement.
        output (str): The image to write.

    Raises:
        InputError: There are several images.
    """
    n_images = math.prod(raw.frame_shape[:4]) * raw.image_shape.z
    if suffix_of(output) == ".dcm" and n_images > 1:
        raise InputError(
            output,
            f"there are {n_images} images, a DICOM file holds one",
            f"give a folder ({Path(output).stem}{FOLDER})",
        )

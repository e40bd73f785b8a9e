"""BART's cfl/hdr pair: complex64 in column-major order, sizes in a text header."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError

#: BART's dimensions, in order; in a NumPy array they come in reverse.
DIMS = (
    "READ",
    "PHS1",
    "PHS2",
    "COIL",
    "MAPS",
    "TE",
    "COEFF",
    "COEFF2",
    "ITER",
    "CSHIFT",
    "TIME",
    "TIME2",
    "LEVEL",
    "SLICE",
    "AVG",
    "BATCH",
)
#: The dimensions that hold (repetition, contrast, phase, set, slice, y, x) of an image.
IMAGE_DIMS = ("TIME", "TE", "TIME2", "BATCH", "SLICE", "PHS1", "READ")


def read_cfl(path: PathLike) -> np.ndarray:
    """Read a BART array.

    Args:
        path (path): The .cfl or the .hdr file.

    Returns:
        array: complex64 in C order, which reverses BART's dimensions: (..., COIL, PHS2, PHS1, READ). Trailing
        dimensions of size 1 in BART's order are left out, but at least two remain.

    Raises:
        InputError: If a file is missing, or header and data do not agree.
    """
    header, data = Path(path).with_suffix(".hdr"), Path(path).with_suffix(".cfl")
    for file in (header, data):
        if not file.is_file():
            raise InputError(file, "there is no such file", "a BART array needs both .hdr and .cfl")
    sizes = _read_sizes(header)
    expected, found = 8 * math.prod(sizes), data.stat().st_size
    if expected != found:
        raise InputError(data, f"it has {found} bytes, its header says {expected}", "copy both files again")
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return np.fromfile(data, "<c8").astype(np.complex64, copy=False).reshape(sizes[::-1])


def _read_sizes(header: Path) -> list[int]:
    """Read the line after ``# Dimensions``."""
    with open(header, encoding="utf-8", errors="replace") as file:
        lines = file.read(1 << 16).splitlines()
    try:
        words = lines[[line.strip() for line in lines].index("# Dimensions") + 1].split()
        sizes = [int(word) for word in words]
    except (ValueError, IndexError):
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InputError(header, "it does not give the dimensions of the array", "write the array again with BART")
    return sizes + [1] * (2 - len(sizes))


def write_cfl(path: Path, array: np.ndarray) -> None:
    """Write a BART array.

    Args:
        path (Path): The .cfl file; the .hdr is written beside it.
        array (array): Array in C order, with axes as :func:`read_cfl` returns them.
    """
    sizes = [*array.shape[::-1], *[1] * (len(DIMS) - array.ndim)]
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, sizes))}\n")
    np.ascontiguousarray(array, "<c8").tofile(path)


def image_to_dims(image: np.ndarray, is_3d: bool) -> np.ndarray:
    """Put an image into BART's dimensions, reversed.

    Args:
        image (array): Image (repetition, contrast, phase, set, slice, y, x).
        is_3d (bool): Whether the slices are partitions of a volume (PHS2) rather than a stack (SLICE).

    Returns:
        array: Sixteen axes.
    """
    names = [("PHS2" if is_3d and name == "SLICE" else name) for name in IMAGE_DIMS]
    order = sorted(range(len(names)), key=lambda axis: -DIMS.index(names[axis]))
    sizes = dict(zip(names, image.shape, strict=True))
    return image.transpose(order).reshape([sizes.get(name, 1) for name in DIMS[::-1]])


def dims_to_image(array: np.ndarray, path: PathLike) -> np.ndarray:
    """Take an image out of BART's dimensions, reversed.

    Args:
        array (array): Array with axes as :func:`read_cfl` returns them.
        path (path): Its file, for messages.

    Returns:
        array: Image (repetition, contrast, phase, set, slice, y, x); partitions (PHS2) and slices become one axis.

    Raises:
        InputError: If a dimension that images do not have, such as COIL, is larger than 1.
    """
    image = take_dims(array, (*IMAGE_DIMS[:5], "PHS2", *IMAGE_DIMS[5:]), path, "images")
    return image.reshape(*image.shape[:4], -1, *image.shape[-2:])


def take_dims(array: np.ndarray, names: Sequence[str], path: PathLike, what: str) -> np.ndarray:
    """Order the axes of an array by the names of BART's dimensions.

    Args:
        array (array): Array with axes as :func:`read_cfl` returns them.
        names (sequence of str): The dimensions wanted, in order.
        path (path): Its file, for messages.
        what (str): What such arrays are called, in the plural, for messages.

    Returns:
        array: One axis per name.

    Raises:
        InputError: If a dimension that is not wanted is larger than 1.
    """
    array = array.reshape((1,) * (len(DIMS) - array.ndim) + array.shape)
    sizes: tuple[int, ...] = array.shape
    for name, size in zip(DIMS[::-1], sizes, strict=True):
        if size > 1 and name not in names:
            problem = f"it has {size} entries along {name}, which {what} do not have"
            raise InputError(path, problem, f"take one of them with bart slice {DIMS.index(name)} N")
    wanted = [len(DIMS) - 1 - DIMS.index(name) for name in names]
    rest = [axis for axis in range(len(DIMS)) if axis not in wanted]
    return array.transpose(rest + wanted)[(0,) * len(rest)]

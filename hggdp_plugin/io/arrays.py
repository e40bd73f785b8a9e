"""Read plain arrays of numbers: NumPy's .npy and BART's .cfl."""

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.cfl import read_cfl
from hggdp_plugin.io.files import InputError, check_input, suffix_of

#: Suffixes of files that hold an array rather than acquisitions.
ARRAY_SUFFIXES = (".cfl", ".hdr", ".npy")


def read_array(path: PathLike) -> np.ndarray:
    """Read an array of numbers: coil maps, coordinates or k-space.

    Args:
        path (path): A NumPy .npy file, or a BART .cfl (or .hdr) file.

    Returns:
        array: As stored in .npy; from .cfl, complex64 with BART's dimensions reversed, (..., COIL, PHS2, PHS1, READ).

    Raises:
        InputError: If the file is missing or damaged, or does not hold finite numbers.
    """
    suffix = suffix_of(path)
    if suffix in (".cfl", ".hdr"):
        array = read_cfl(path)
    elif suffix == ".npy":
        check_input(path)
        try:
            mapped = np.lib.format.open_memmap(path, mode="r")  # fails, without allocating, if the file is too short
            array = np.array(mapped)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise InputError(path, f"it is not a readable .npy file ({error})", "save the array again") from None
    else:
        raise InputError(path, f"no array format has the suffix {suffix!r}", "give a .npy or .cfl file")
    if array.dtype.kind not in "buifc" or not np.isfinite(array).all():
        raise InputError(path, "it does not hold finite numbers", "save the array again")
    return array


def is_bart(path: PathLike) -> bool:
    """Return whether a file is an array of BART's."""
    return suffix_of(path) in (".cfl", ".hdr")


def peak_magnitude(array: np.ndarray) -> float:
    """Return the largest magnitude in an array, 0 for an empty one."""
    with np.errstate(over="ignore"):  # infinite is large enough
        return float(np.abs(array).max(initial=0))

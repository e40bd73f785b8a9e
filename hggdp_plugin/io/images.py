"""Images in and out, in the format that the suffix names."""

import os
from pathlib import Path

import numpy as np

from hggdp_plugin.io.cfl import dims_to_image, image_to_dims, read_cfl, write_cfl
from hggdp_plugin.io.files import InputError, check_output, replacing, suffix_of
from hggdp_plugin.io.mrd.images import WINDOW_PERCENTILE, read_mrd_images, write_mrd_images
from hggdp_plugin.io.nifti import read_nifti, write_nifti
from hggdp_plugin.io.raw import RawData


def write_image(
    path: str | os.PathLike[str],
    image: np.ndarray,
    *,
    raw: RawData | None = None,
    complex_: bool = False,
    overwrite: bool = False,
    history: str = "hggdp_plugin",
) -> None:
    """Writes an image in the format that the suffix names: .h5 (MRD), .nii, .nii.gz, .npy, .cfl or .png.

    The file appears under its name only when it is complete.

    Args:
        path (path): the file.
        image (array): (repetition, contrast, phase, set, slice, y, x), or without some of the leading axes.
        raw (RawData or None): the measurement that the image was made of, for geometry and headers.
        complex_ (bool): whether to keep the phase; else the magnitude is written.
        overwrite (bool): whether an existing file may be replaced.
        history (str): how the image was made; kept where the format has a place for it.

    Raises:
        InputError: the path cannot be written to, or the format cannot hold the image.
        ValueError: ``image`` has not between 2 and 7 axes, or does not fit ``raw``.
    """
    check_output(path, overwrite=overwrite)
    image = np.asarray(image)
    if not 2 <= image.ndim <= 7:
        raise ValueError(f"image must have 2 to 7 axes (..., slice, y, x), got shape {image.shape}")
    image = image.reshape((1,) * (7 - image.ndim) + image.shape)
    if raw is not None and image.shape != (expected := raw.ksp.shape[:4] + raw.image_shape):
        raise ValueError(f"image must have shape {expected} to go with raw, got {image.shape}")
    magnitude = np.abs(image).astype(np.float32)
    window = (0.0, float(np.percentile(magnitude, WINDOW_PERCENTILE)))
    values = image.astype(np.complex64) if complex_ else magnitude
    suffix = suffix_of(path)
    if suffix == ".png" and complex_:
        raise InputError(path, "a PNG file holds no complex image", "choose another format, or write the magnitude")
    with replacing(path) as temporary:
        if suffix == ".h5":
            write_mrd_images(temporary, values, raw, window, history)
        elif suffix == ".npy":
            np.save(temporary, values)
        elif suffix == ".cfl":
            write_cfl(temporary, image_to_dims(values, raw is not None and raw.is_3d))
        elif suffix == ".png":
            _write_png(temporary, magnitude, window, history)
        else:
            write_nifti(temporary, values, raw, history)


def read_images(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an image from an MRD image file (.h5), .npy, .cfl, .nii or .nii.gz.

    Args:
        path (path): the file.

    Returns:
        array: (repetition, contrast, phase, set, slice, y, x).

    Raises:
        InputError: the file is missing, damaged, or no image.
    """
    suffix = suffix_of(path)
    if suffix == ".h5":
        return read_mrd_images(path)
    if suffix in (".nii", ".nii.gz"):
        return read_nifti(path)
    array = read_array(path)
    if suffix in (".cfl", ".hdr"):
        return dims_to_image(array, path)
    if not 2 <= array.ndim <= 7:
        raise InputError(path, f"an array of shape {array.shape} is no image", "give axes (..., slice, y, x)")
    return array.reshape((1,) * (7 - array.ndim) + array.shape)


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an array of numbers: coil maps, coordinates or k-space.

    Args:
        path (path): a NumPy .npy file, or a BART .cfl (or .hdr) file.

    Returns:
        array: as stored in .npy; of cfl files complex64 with BART's dimensions reversed, (..., COIL, PHS2, PHS1, READ).

    Raises:
        InputError: the file is missing, damaged, or holds no finite numbers.
    """
    suffix = suffix_of(path)
    if suffix in (".cfl", ".hdr"):
        array = read_cfl(path)
    elif suffix == ".npy":
        if not Path(path).is_file():
            raise InputError(path, "there is no such file", "check the path")
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


def _write_png(path: Path, magnitude: np.ndarray, window: tuple[float, float], history: str) -> None:
    """Writes all slices and frames side by side, in grey from the window's lower to its upper end."""
    from matplotlib import image

    tiles = magnitude.reshape(-1, *magnitude.shape[-2:])
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    mosaic = np.zeros((rows * columns, *tiles.shape[1:]), np.float32)
    mosaic[: len(tiles)] = tiles
    mosaic = mosaic.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2).reshape(rows * tiles.shape[1], -1)
    about = {"Description": f"grey scale from {window[0]:g} to {window[1]:g}", "Software": history}
    image.imsave(path, mosaic, vmin=window[0], vmax=window[1] or 1.0, cmap="gray", metadata=about)

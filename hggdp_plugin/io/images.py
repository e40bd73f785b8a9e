"""Images in and out, in the format that the suffix names."""

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.arrays import is_bart, read_array
from hggdp_plugin.io.cfl import dims_to_image, image_to_dims, write_cfl
from hggdp_plugin.io.dicom import write_dicom
from hggdp_plugin.io.dicom_map import write_dicom_map
from hggdp_plugin.io.files import FOLDER, InputError, check_output, check_std_output, replacing, std_path, suffix_of
from hggdp_plugin.io.mrd.images import WINDOW_PERCENTILE, read_mrd_images, write_mrd_images
from hggdp_plugin.io.nifti import read_nifti, write_nifti
from hggdp_plugin.io.png import write_map, write_png
from hggdp_plugin.io.raw import RawData


def write_image(
    path: PathLike,
    image: np.ndarray,
    *,
    raw: RawData | None = None,
    std: np.ndarray | None = None,
    complex_: bool = False,
    overwrite: bool = False,
    history: str = "hggdp_plugin",
) -> None:
    """Write an image in the format that the suffix names: .h5 (MRD), .nii, .nii.gz, .npy, .cfl, .png or .dcm.

    With a slash at its end the path is a folder, which gets a DICOM file per image. The output appears under its name
    only when it is complete.

    Args:
        path (path): The file.
        image (array): Image (repetition, contrast, phase, set, slice, y, x), or without some of the leading axes.
        raw (RawData or None): The measurement that the image was made of, for geometry and headers.
        std (array or None): Standard error of the image, of its shape and in its units. It becomes the second series of
            an MRD file, and a file of its own, ``NAME_std.SUFFIX``, in every other format: a parametric map in DICOM.
        complex_ (bool): Whether to keep the phase; otherwise the magnitude is written.
        overwrite (bool): Whether an existing file may be replaced.
        history (str): How the image was made; kept where the format has a place for it.

    Raises:
        InputError: If the path cannot be written to, or the format cannot hold the image.
        ValueError: If ``image`` does not have 2 to 7 axes, does not fit ``raw``, or ``std`` does not fit it.
    """
    check_output(path, overwrite=overwrite)
    if std is not None:
        check_std_output(path, overwrite=overwrite)
    image = np.asarray(image)
    if std is not None and std.shape != image.shape:
        raise ValueError(f"std must have the shape of the image, {image.shape}, got {std.shape}")
    if not 2 <= image.ndim <= 7:
        raise ValueError(f"image must have 2 to 7 axes (..., slice, y, x), got shape {image.shape}")
    image = image.reshape((1,) * (7 - image.ndim) + image.shape)
    if raw is not None and image.shape != (expected := raw.frame_shape[:4] + raw.image_shape):
        raise ValueError(f"image must have shape {expected} to go with raw, got {image.shape}")
    std = None if std is None else std.reshape(image.shape).astype(np.float32)
    magnitude = np.abs(image).astype(np.float32)
    window = (0.0, float(np.percentile(magnitude, WINDOW_PERCENTILE)))
    values = image.astype(np.complex64) if complex_ else magnitude
    suffix = suffix_of(path)
    if suffix in (".png", ".dcm", FOLDER) and complex_:
        kind = "a PNG file holds" if suffix == ".png" else "DICOM images hold"
        raise InputError(path, f"{kind} no complex image", "choose another format, or write the magnitude")
    with replacing(path) as temporary:
        if suffix == ".h5":
            write_mrd_images(temporary, values, raw, window, history, std)
        elif suffix == ".npy":
            np.save(temporary, values)
        elif suffix == ".cfl":
            write_cfl(temporary, image_to_dims(values, raw is not None and raw.is_3d))
        elif suffix == ".png":
            write_png(temporary, magnitude, window, history, transpose=raw is not None and is_bart(raw.source))
        elif suffix in (".dcm", FOLDER):
            write_dicom(temporary, magnitude, raw, window, history)
        elif suffix in (".nii", ".nii.gz"):
            write_nifti(temporary, values, raw, history)
        else:
            raise AssertionError(f"no writer for {suffix}, which is in IMAGE_SUFFIXES")
    if std is not None and suffix != ".h5":
        _write_std(std_path(path), std, magnitude, raw, history)


def _write_std(path: str, std: np.ndarray, magnitude: np.ndarray, raw: RawData | None, history: str) -> None:
    """Write the standard error of an image to a file of its own."""
    suffix, window = suffix_of(path), (0.0, float(np.percentile(std, WINDOW_PERCENTILE)))
    with replacing(path) as temporary:
        if suffix == ".npy":
            np.save(temporary, std)
        elif suffix == ".cfl":
            write_cfl(temporary, image_to_dims(std, raw is not None and raw.is_3d))
        elif suffix == ".png":
            write_map(
                temporary, std, window, f"standard error; {history}", transpose=raw is not None and is_bart(raw.source)
            )
        elif suffix in (".dcm", FOLDER):
            write_dicom_map(temporary, std, magnitude, raw, window, history)
        else:
            write_nifti(temporary, std, raw, f"standard error; {history}")


def read_images(path: PathLike) -> np.ndarray:
    """Read an image from an MRD image file (.h5), .npy, .cfl, .nii or .nii.gz.

    Args:
        path (path): The file.

    Returns:
        array: Image (repetition, contrast, phase, set, slice, y, x).

    Raises:
        InputError: If the file is missing, damaged, or not an image.
    """
    suffix = suffix_of(path)
    if suffix == ".h5":
        return read_mrd_images(path)
    if suffix in (".nii", ".nii.gz"):
        return read_nifti(path)
    array = read_array(path)
    if is_bart(path):
        return dims_to_image(array, path)
    if not 2 <= array.ndim <= 7:
        raise InputError(path, f"an array of shape {array.shape} is not an image", "give axes (..., slice, y, x)")
    return array.reshape((1,) * (7 - array.ndim) + array.shape)

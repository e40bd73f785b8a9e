"""MRD (ISMRMRD) image files."""

import os
import warnings
from pathlib import Path

import h5py
import numpy as np

from hggdp_plugin.io.files import InputError, hdf5_file
from hggdp_plugin.io.mrd.classify import COUNTERS
from hggdp_plugin.io.raw import RawData

with warnings.catch_warnings():  # the package resets the interpreter's warning filters when it is imported
    from ismrmrd import constants
    from ismrmrd.hdf5 import image_header_dtype
    from ismrmrd.image import Image
    from ismrmrd.meta import Meta

#: Largest grey value of images that are sent to a scanner: 12 bits, as in its DICOM images.
MAX_GREY = 4095
#: Upper end of the grey scale, percentile of the magnitude.
WINDOW_PERCENTILE = 99.8

_COMPLEX = np.dtype([("real", "<f4"), ("imag", "<f4")])  # the names that the standard's other readers expect
_COPIED = ("version", "measurement_uid", "patient_table_position", "acquisition_time_stamp", "physiology_time_stamp",
           "user_int", "user_float")  # fmt: skip


def image_headers(image: np.ndarray, raw: RawData | None) -> np.ndarray:
    """Makes the headers of the MRD images that an array is split into.

    Args:
        image (array): (repetition, contrast, phase, set, slice, y, x), float32 or complex64.
        raw (RawData or None): the measurement that the image was made of; None gives voxels of 1 mm.

    Returns:
        array: headers (repetition, contrast, phase, set, image), one image per slice, or per volume in 3D.
    """
    z, y, x = image.shape[-3:]
    depth = 1 if raw is None or not raw.is_3d else z // raw.acq_headers.shape[-1]
    heads = np.zeros((*image.shape[:4], z // depth), image_header_dtype)
    heads["version"] = 1
    if raw is None:
        heads["field_of_view"] = x, y, 1
        heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = np.eye(3)
        heads["position"][..., 2] = np.arange(z)
        for axis, name in enumerate(COUNTERS):
            heads[name] = np.indices(heads.shape)[axis]
    else:
        for name in (*_COPIED, "position", "read_dir", "phase_dir", "slice_dir"):
            heads[name] = raw.acq_headers[name]
        for name in (*COUNTERS, "average"):
            heads[name] = raw.acq_headers["idx"][name]
        heads["field_of_view"] = raw.fov[::-1]
    heads["data_type"] = constants.DATATYPE_CXFLOAT if np.iscomplexobj(image) else constants.DATATYPE_FLOAT
    heads["image_type"] = constants.IMTYPE_COMPLEX if np.iscomplexobj(image) else constants.IMTYPE_MAGNITUDE
    heads["matrix_size"] = x, y, depth
    heads["channels"] = 1
    heads["image_index"] = np.arange(1, heads.size + 1).reshape(heads.shape)
    return heads


def image_meta(head: np.ndarray, window: tuple[float, float], history: str) -> str:
    """Makes the meta attributes (XML) of one MRD image.

    Args:
        head (array): its header.
        window (tuple): lower and upper end of the grey scale.
        history (str): how it was made.

    Returns:
        str: the XML text.
    """
    meta = Meta(
        DataRole="Image",
        ImageProcessingHistory=history,
        WindowCenter=f"{(window[0] + window[1]) / 2:.6g}",
        WindowWidth=f"{window[1] - window[0]:.6g}",
        ImageRowDir=[f"{v:.18g}" for v in head["read_dir"]],
        ImageColumnDir=[f"{v:.18g}" for v in head["phase_dir"]],
    )
    return str(meta.serialize())


def mrd_images(image: np.ndarray, raw: RawData, history: str) -> list[Image]:
    """Makes MRD image objects for sending: magnitudes in 16-bit integers, the brightest voxel :data:`MAX_GREY`.

    Args:
        image (array): (repetition, contrast, phase, set, slice, y, x).
        raw (RawData): the measurement that the image was made of.
        history (str): how the image was made.

    Returns:
        list of ismrmrd.Image: one per slice, or per volume in 3D, with data (1, z, y, x).
    """
    magnitude = np.abs(image)
    grey = np.rint(magnitude * (MAX_GREY / (magnitude.max() or 1))).astype(np.int16)
    window = (0.0, float(np.percentile(grey, WINDOW_PERCENTILE)))
    heads = image_headers(grey, raw).reshape(-1)
    data = grey.reshape(len(heads), 1, -1, *grey.shape[-2:])
    return [
        Image(head.tobytes(), image_meta(head, window, history), data=values)
        for head, values in zip(heads, data, strict=True)
    ]


def write_mrd_images(
    path: Path, image: np.ndarray, raw: RawData | None, window: tuple[float, float], history: str
) -> None:
    """Writes an MRD image file: ``/dataset/image_0`` with data (n, channel, z, y, x), headers and attributes.

    Args:
        path (Path): HDF5 file.
        image (array): (repetition, contrast, phase, set, slice, y, x), float32 or complex64.
        raw (RawData or None): the measurement that the image was made of.
        window (tuple): lower and upper end of the grey scale.
        history (str): how the image was made.
    """
    heads = image_headers(image, raw).reshape(-1)
    data = image.reshape(len(heads), 1, -1, *image.shape[-2:])
    data = np.ascontiguousarray(data).view(_COMPLEX) if np.iscomplexobj(data) else data
    meta = [image_meta(head, window, history) for head in heads]
    heads["attribute_string_len"] = [len(text) for text in meta]
    with hdf5_file(path) as file:
        group = file.create_group("dataset/image_0")
        group["data"] = data
        group["header"] = heads
        group.create_dataset("attributes", data=meta, dtype=h5py.string_dtype())


def read_mrd_images(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the first image series of an MRD image file.

    Args:
        path (path): HDF5 file.

    Returns:
        array: (repetition, contrast, phase, set, slice, y, x), float32 or complex64; the partitions of volumes follow
        each other along the slice axis.

    Raises:
        InputError: the file holds no MRD images.
    """
    if not os.path.isfile(path):
        raise InputError(path, "there is no such file", "check the path")
    try:
        with h5py.File(path, "r") as file:
            names = [f"{group}/{name}" for group in file for name in sorted(file[group]) if name.startswith("image_")]
            series = file[names[0]]
            data, heads = series["data"][()], series["header"][()]
        if data.dtype.names:
            data = data["real"] + 1j * data["imag"]
        values = [np.unique(heads[name], return_inverse=True) for name in COUNTERS]
        image = np.zeros((*(len(v) for v, __ in values), *data.shape[2:]), data.dtype)
        image[tuple(place for __, place in values)] = data[:, 0]
    except Exception as error:  # anything that a damaged or foreign HDF5 file provokes
        raise InputError(path, f"it is not a readable MRD image file ({error})", "give another file") from None
    return image.reshape(*image.shape[:4], -1, *image.shape[-2:])

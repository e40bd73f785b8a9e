"""MRD (ISMRMRD) image files and image series."""

from pathlib import Path

import h5py
import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.hdf5 import open_hdf5
from hggdp_plugin.io.mrd._ismrmrd import constants, image_header_dtype, ismrmrd
from hggdp_plugin.io.mrd.frames import COUNTERS
from hggdp_plugin.io.mrd.hdf5 import hdf5_file
from hggdp_plugin.io.raw import RawData

#: Largest gray value of images that are sent to a scanner: 12 bits, as in its DICOM images.
MAX_GRAY = 4095
#: Upper end of the gray scale, as a percentile of the magnitude.
WINDOW_PERCENTILE = 99.8
#: Comment of images that are the standard error of others.
STD_COMMENT = "Standard error of the complex image of series 0, in its units"

_COMPLEX = np.dtype([("real", "<f4"), ("imag", "<f4")])  # the names that other readers of the standard expect
_COPIED_FIELDS = (
    "version",
    "measurement_uid",
    "patient_table_position",
    "acquisition_time_stamp",
    "physiology_time_stamp",
    "user_int",
    "user_float",
    "position",
    "read_dir",
    "phase_dir",
    "slice_dir",
)


def image_headers(image: np.ndarray, raw: RawData | None) -> np.ndarray:
    """Make the headers of the MRD images that an array is split into.

    Args:
        image (array): Image (repetition, contrast, phase, set, slice, y, x), float32 or complex64.
        raw (RawData or None): The measurement that the image was made of. None gives voxels of 1 mm.

    Returns:
        array: Headers (repetition, contrast, phase, set, image), one image per slice, or per volume in 3D.
    """
    z, y, x = image.shape[-3:]
    depth = 1 if raw is None or not raw.is_3d else z // raw.n_slabs
    headers = np.zeros((*image.shape[:4], z // depth), image_header_dtype)
    headers["version"] = 1
    if raw is None:
        headers["field_of_view"] = x, y, 1
        headers["read_dir"], headers["phase_dir"], headers["slice_dir"] = np.eye(3)
        headers["position"][..., 2] = np.arange(z)
        for axis, name in enumerate(COUNTERS):
            headers[name] = np.indices(headers.shape)[axis]
    else:
        for name in _COPIED_FIELDS:
            headers[name] = raw.acq_headers[name]
        for name in (*COUNTERS, "average"):
            headers[name] = raw.acq_headers["idx"][name]
        headers["field_of_view"] = raw.fov.x, raw.fov.y, raw.fov.z
    is_complex = np.iscomplexobj(image)
    headers["data_type"] = constants.DATATYPE_CXFLOAT if is_complex else constants.DATATYPE_FLOAT
    headers["image_type"] = constants.IMTYPE_COMPLEX if is_complex else constants.IMTYPE_MAGNITUDE
    headers["matrix_size"] = x, y, depth
    headers["channels"] = 1
    headers["image_index"] = np.arange(1, headers.size + 1).reshape(headers.shape)
    return headers


def image_meta(header: np.ndarray, window: tuple[float, float], history: str, comment: str = "") -> str:
    """Make the meta attributes (XML) of one MRD image.

    Args:
        header (array): Its header.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How it was made.
        comment (str): What it shows, if not the object.

    Returns:
        str: The XML text.
    """
    meta = ismrmrd.Meta(
        DataRole="Image",
        ImageProcessingHistory=history,
        WindowCenter=f"{(window[0] + window[1]) / 2:.6g}",
        WindowWidth=f"{window[1] - window[0]:.6g}",
        ImageRowDir=[f"{v:.18g}" for v in header["read_dir"]],
        ImageColumnDir=[f"{v:.18g}" for v in header["phase_dir"]],
    )
    if comment:
        meta["ImageComments"] = comment
    return str(meta.serialize())


def mrd_images(image: np.ndarray, raw: RawData, history: str) -> list["ismrmrd.Image"]:
    """Make MRD images for sending: magnitudes as 16-bit integers, the brightest voxel :data:`MAX_GRAY`.

    Args:
        image (array): Image (repetition, contrast, phase, set, slice, y, x).
        raw (RawData): The measurement that the image was made of.
        history (str): How the image was made.

    Returns:
        list of ismrmrd.Image: One per slice, or per volume in 3D, with data (1, z, y, x).
    """
    magnitude = np.abs(image)
    gray = np.rint(magnitude * (MAX_GRAY / (magnitude.max() or 1))).astype(np.int16)
    return image_objects(gray, raw, (0.0, float(np.percentile(gray, WINDOW_PERCENTILE))), history)


def image_objects(
    image: np.ndarray, raw: RawData, window: tuple[float, float], history: str, *, is_std: bool = False
) -> list["ismrmrd.Image"]:
    """Make MRD images for sending, with the values as they are.

    Args:
        image (array): Image (repetition, contrast, phase, set, slice, y, x), int16, float32 or complex64.
        raw (RawData): The measurement that the image was made of.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made.
        is_std (bool): Whether it is the standard error of an image: series 1 in place of 0.

    Returns:
        list of ismrmrd.Image: One per slice, or per volume in 3D, with data (1, z, y, x).
    """
    headers = image_headers(image, raw).reshape(-1)
    headers["image_series_index"] = int(is_std)
    data = image.reshape(len(headers), 1, -1, *image.shape[-2:])
    comment = STD_COMMENT if is_std else ""
    return [
        ismrmrd.Image(header.tobytes(), image_meta(header, window, history, comment), data=values)
        for header, values in zip(headers, data, strict=True)
    ]


def write_mrd_images(
    path: Path,
    image: np.ndarray,
    raw: RawData | None,
    window: tuple[float, float],
    history: str,
    std: np.ndarray | None = None,
) -> None:
    """Write an MRD image file: ``/dataset/image_0`` with data (n, channel, z, y, x), headers and attributes.

    Args:
        path (Path): HDF5 file.
        image (array): Image (repetition, contrast, phase, set, slice, y, x), float32 or complex64.
        raw (RawData or None): The measurement that the image was made of.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made.
        std (array or None): Standard error of the image, float32, for a second series ``/dataset/image_1``.
    """
    with hdf5_file(path) as file:
        _write_series(file.create_group("dataset/image_0"), image, raw, window, history)
        if std is not None:
            window = (0.0, float(np.percentile(std, WINDOW_PERCENTILE)))
            _write_series(file.create_group("dataset/image_1"), std, raw, window, history, STD_COMMENT)


def _write_series(
    group: h5py.Group,
    image: np.ndarray,
    raw: RawData | None,
    window: tuple[float, float],
    history: str,
    comment: str = "",
) -> None:
    headers = image_headers(image, raw).reshape(-1)
    headers["image_series_index"] = int(group.name.rpartition("_")[2])
    data = image.reshape(len(headers), 1, -1, *image.shape[-2:])
    data = np.ascontiguousarray(data).view(_COMPLEX) if np.iscomplexobj(data) else data
    meta = [image_meta(header, window, history, comment) for header in headers]
    headers["attribute_string_len"] = [len(text) for text in meta]
    group["data"] = data
    group["header"] = headers
    group.create_dataset("attributes", data=meta, dtype=h5py.string_dtype())


def read_mrd_images(path: PathLike) -> np.ndarray:
    """Read the first image series of an MRD image file.

    Args:
        path (path): HDF5 file.

    Returns:
        array: Image (repetition, contrast, phase, set, slice, y, x), float32 or complex64; the partitions of volumes
        follow each other along the slice axis.

    Raises:
        InputError: If the file holds no MRD images.
    """
    try:
        with open_hdf5(path, "an MRD image file") as file:
            groups = {name: item for name, item in file.items() if isinstance(item, h5py.Group)}
            series = [item[name] for item in groups.values() for name in sorted(item) if name.startswith("image_")]
            if not series:
                is_raw = any("xml" in item and "data" in item for item in groups.values())
                problem = "it is raw data, not an image" if is_raw else "it holds no MRD images"
                raise InputError(path, problem, "reconstruct it with hggdp recon" if is_raw else "give an image file")
            image = read_series(series[0], COUNTERS)[:, :, :, :, :, 0]
    except InputError:
        raise
    except Exception as error:  # whatever a damaged or foreign HDF5 file provokes
        raise InputError(path, f"it is not a readable MRD image file ({error})", "give another file") from None
    return image.reshape(*image.shape[:4], -1, *image.shape[-2:])


def read_series(series: h5py.Group, counters: tuple[str, ...]) -> np.ndarray:
    """Read an ISMRMRD image series and arrange its images by their counters.

    Args:
        series (Group): Group with ``data`` (n, channel, z, y, x) and ``header`` (n,).
        counters (tuple of str): Header fields that number the images.

    Returns:
        array: Images (*counters, channel, z, y, x).

    Raises:
        ValueError: If several images have the same counters.
    """
    data, headers = complex_values(series["data"][()]), series["header"][()].reshape(-1)
    values = [np.unique(headers[name], return_inverse=True) for name in counters]
    images = np.zeros((*(len(v) for v, _ in values), *data.shape[1:]), data.dtype)
    index = tuple(i for _, i in values)
    if len(headers) != len(data) or len(np.unique(np.stack(index), axis=1).T) != len(data):
        raise ValueError(f"it holds {len(data)} images of {images[..., 0, 0, 0, 0].size} {counters[-1]}s")
    images[index] = data
    return images


def complex_values(values: np.ndarray) -> np.ndarray:
    """Turn the pairs of real and imaginary parts that HDF5 files hold into complex numbers."""
    names = values.dtype.names
    return values if names is None else values[names[0]] + 1j * values[names[1]]

"""NIfTI images, with the affine that puts them where the patient was."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError, check_package
from hggdp_plugin.io.raw import RawData, SliceGeometry

_logger = logging.getLogger(__name__)

#: Deviation from orthonormal directions that still counts as a stack.
DIRECTION_TOLERANCE = 1e-2
#: Difference of directions between slices that still counts as a stack.
ROTATION_TOLERANCE = 1e-3
#: Deviation from equal distances, relative to the distance, that still counts as a stack.
SPACING_TOLERANCE = 1e-2


def nifti_affine(geometry: SliceGeometry, shape: tuple[int, int, int], voxel: tuple[float, float, float]) -> np.ndarray:
    """Compute the affine from array indices [x, y, z] to scanner coordinates in mm (RAS).

    Args:
        geometry (SliceGeometry): Position and directions of each slice, in LPS coordinates as MRD has them.
        shape (tuple of int): Shape of the array, (x, y, z).
        voxel (tuple of float): Voxel size in mm, (x, y, z); z is used if there is a single slice.

    Returns:
        array: (4, 4). If directions or positions make no sense, a scaled unit matrix, and a warning is logged.
    """
    affine = np.diag([*voxel, 1.0])
    position = geometry.position
    axes = np.stack([geometry.read_dir[0], geometry.phase_dir[0], geometry.slice_dir[0]], axis=1)
    columns = axes * voxel
    steps = np.diff(position, axis=0)
    if len(steps):
        columns[:, 2] = steps.mean(axis=0)
    unit = np.abs(axes.T @ axes - np.eye(3)).max() < DIRECTION_TOLERANCE  # false for NaN
    directions = np.concatenate([geometry.read_dir, geometry.phase_dir], axis=1)
    parallel = np.ptp(directions, axis=0).max() < ROTATION_TOLERANCE
    largest = SPACING_TOLERANCE * np.linalg.norm(columns[:, 2])
    even = not len(steps) or np.abs(steps - steps.mean(axis=0)).max() < largest
    if not (unit and parallel and even and np.isfinite(position).all() and abs(np.linalg.det(columns)) > 0):
        _logger.warning("The positions or directions of the slices are not those of a stack: the affine only scales.")
        affine[:3, 3] = [-v * (n // 2) for v, n in zip(voxel, shape, strict=True)]
        return affine
    affine[:3, :3] = columns
    affine[:3, 3] = position[0] - columns[:, :2] @ [shape[0] // 2, shape[1] // 2]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def write_nifti(path: Path, image: np.ndarray, raw: RawData | None, history: str) -> None:
    """Write a NIfTI image (needs nibabel).

    Args:
        path (Path): .nii or .nii.gz file.
        image (array): Image (repetition, contrast, phase, set, slice, y, x), float32 or complex64; in the file the
            axes are (x, y, slice, repetition, contrast, phase, set), and slices are in the order of their positions.
        raw (RawData or None): Source of the geometry; None gives voxels of 1 mm, centered.
        history (str): How the image was made, at most 79 characters of which are kept.
    """
    import nibabel

    geometry = None
    if raw is not None:
        order = raw.geometry.spatial_order
        geometry, image = raw.geometry.take(order), image[..., order, :, :]
    array = image.transpose(6, 5, 4, 0, 1, 2, 3)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    x, y, z = array.shape[:3]
    if raw is None or geometry is None:
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        affine[:3, 3] = -(x // 2), -(y // 2), -(z // 2)
    else:
        slices = z // raw.n_slabs if raw.is_3d else 1
        affine = nifti_affine(geometry, (x, y, z), (raw.fov.x / x, raw.fov.y / y, raw.fov.z / slices))
    file = nibabel.Nifti1Image(array, affine)
    file.header.set_xyzt_units("mm")
    file.header["descrip"] = history.encode("ascii", "replace")[:79]
    nibabel.save(file, path)


def read_nifti(path: PathLike) -> np.ndarray:
    """Read a NIfTI image (needs nibabel).

    Args:
        path (path): .nii or .nii.gz file.

    Returns:
        array: Image (repetition, contrast, phase, set, slice, y, x).

    Raises:
        InputError: If nibabel is not installed, or cannot read the file.
    """
    check_package(path, "nibabel", "nifti", "NIfTI files")
    import nibabel

    try:
        file: Any = nibabel.load(path)
        array = np.asanyarray(file.dataobj)
    except Exception as error:  # nibabel passes on whatever a damaged header provokes
        raise InputError(path, f"it is not a readable NIfTI file ({error})", "give another file") from None
    array = array.reshape(*array.shape, *[1] * (7 - array.ndim))
    return array.transpose(3, 4, 5, 6, 2, 1, 0)

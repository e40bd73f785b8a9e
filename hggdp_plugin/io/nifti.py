"""NIfTI images, with the affine that puts them where the patient was."""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.raw import RawData, SliceGeometry

_logger = logging.getLogger(__name__)


def nifti_affine(geometry: SliceGeometry, shape: tuple[int, int, int], voxel: tuple[float, float, float]) -> np.ndarray:
    """Works out the affine from array indices [x, y, z] to scanner coordinates in mm (RAS).

    Args:
        geometry (SliceGeometry): position and directions of each slice, in LPS coordinates as MRD has them.
        shape (tuple): of the array, (x, y, z).
        voxel (tuple): size in mm, (x, y, z); z is used where there is a single slice.

    Returns:
        array: (4, 4). Where directions or positions make no sense, a scaled unit matrix (and a warning is logged).
    """
    affine = np.diag([*voxel, 1.0])
    position = geometry.position
    axes = np.stack([geometry.read_dir[0], geometry.phase_dir[0], geometry.slice_dir[0]], axis=1)
    columns = axes * voxel
    steps = np.diff(position, axis=0)
    if len(steps):
        columns[:, 2] = steps.mean(axis=0)
    unit = np.abs(axes.T @ axes - np.eye(3)).max() < 1e-2  # false for NaN
    turned = np.ptp(np.concatenate([geometry.read_dir, geometry.phase_dir], axis=1), axis=0).max() < 1e-3
    even = not len(steps) or np.abs(steps - steps.mean(axis=0)).max() < 1e-2 * np.linalg.norm(columns[:, 2])
    if not (unit and turned and even and np.isfinite(position).all() and abs(np.linalg.det(columns)) > 0):
        _logger.warning("The slices' positions or directions are not those of a stack: the affine only scales.")
        affine[:3, 3] = [-v * (n // 2) for v, n in zip(voxel, shape, strict=True)]
        return affine
    affine[:3, :3] = columns
    affine[:3, 3] = position[0] - columns[:, :2] @ [shape[0] // 2, shape[1] // 2]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def write_nifti(path: Path, image: np.ndarray, raw: RawData | None, history: str) -> None:
    """Writes a NIfTI image (needs nibabel).

    Args:
        path (Path): .nii or .nii.gz file.
        image (array): (repetition, contrast, phase, set, slice, y, x), float32 or complex64; in the file the axes are
            (x, y, slice, repetition, contrast, phase, set).
        raw (RawData or None): source of the geometry; None gives voxels of 1 mm, centred.
        history (str): how the image was made, at most 79 characters of which are kept.
    """
    import nibabel

    array = image.transpose(6, 5, 4, 0, 1, 2, 3)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    x, y, z = array.shape[:3]
    if raw is None:
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        affine[:3, 3] = -(x // 2), -(y // 2), -(z // 2)
    else:
        slices = z // raw.acq_headers.shape[-1] if raw.is_3d else 1
        affine = nifti_affine(raw.geometry, (x, y, z), (raw.fov.x / x, raw.fov.y / y, raw.fov.z / slices))
    file = nibabel.Nifti1Image(array, affine)
    file.header.set_xyzt_units("mm")
    file.header["descrip"] = history.encode("ascii", "replace")[:79]
    nibabel.save(file, path)


def read_nifti(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a NIfTI image (needs nibabel) to axes (repetition, contrast, phase, set, slice, y, x).

    Raises:
        InputError: nibabel is not installed, or cannot read the file.
    """
    if find_spec("nibabel") is None:
        raise InputError(path, "NIfTI files need the package nibabel", "pip install 'hggdp_plugin[nifti]'")
    import nibabel

    try:
        file: Any = nibabel.load(path)
        array = np.asanyarray(file.dataobj)
    except Exception as error:  # nibabel lets through whatever a damaged header provokes
        raise InputError(path, f"it is not a readable NIfTI file ({error})", "give another file") from None
    array = array.reshape(*array.shape, *[1] * (7 - array.ndim))
    return array.transpose(3, 4, 5, 6, 2, 1, 0)

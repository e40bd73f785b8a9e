"""Write the standard error of an image as DICOM parametric maps, which refer to its MR images."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hggdp_plugin import __version__
from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.dicom import mr_images, save, slice_geometry
from hggdp_plugin.io.raw import RawData

if TYPE_CHECKING:
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom import Dataset

DESCRIPTION = "standard error, learned prior (HGGDP)"
COMMENTS = "Standard error of the complex image of the MR series, in its units. Research use only."


def write_dicom_map(
    path: PathLike,
    std: np.ndarray,
    image: np.ndarray,
    raw: RawData | None,
    window: tuple[float, float],
    history: str,
) -> None:
    """Write the standard error of an image as a series of parametric maps (needs highdicom).

    Each map is multi-frame: the slices of one repetition, contrast, phase and set. Slices that are not parallel, or at
    the same place, are in maps of their own.

    Args:
        path (path): File to write, for a single slice, or a folder that exists and is empty.
        std (array): Standard error (repetition, contrast, phase, set, slice, y, x).
        image (array): The magnitude that :func:`hggdp_plugin.io.dicom.write_dicom` wrote.
        raw (RawData or None): Source of geometry and patient, as for the image.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made, as for the image.

    Raises:
        InputError: If several maps are to be written to one file.
    """
    sources = mr_images(image, raw, window, history)
    order = slice_geometry(std, raw)[0].spatial_order
    planes = std[..., order, :, :].reshape(len(sources), *std.shape[-2:]).astype(np.float32)
    digest = hashlib.sha256(planes.tobytes()).hexdigest()
    maps: list[ParametricMap] = []
    for first in range(0, len(sources), len(order)):
        for numbers in _stacks(sources[first : first + len(order)]):
            of_stack = [sources[first + number] for number in numbers]
            maps.append(_map(planes[first + numbers], of_stack, window, digest, len(maps) + 1))
    save(path, maps)


def _stacks(images: "Sequence[Dataset]") -> list[np.ndarray]:
    """Sort images into stacks of parallel slices at different places; return their numbers."""
    stacks: dict[tuple[object, ...], list[int]] = {}
    seen: Counter[tuple[object, ...]] = Counter()
    for number, image in enumerate(images):
        orientation = tuple(image.ImageOrientationPatient)
        place = (*orientation, *image.ImagePositionPatient)
        stacks.setdefault((*orientation, seen[place]), []).append(number)
        seen[place] += 1
    return [np.array(numbers) for numbers in stacks.values()]


def _map(
    std: np.ndarray, sources: "Sequence[Dataset]", window: tuple[float, float], digest: str, number: int
) -> "ParametricMap":
    """Make the parametric map of one stack."""
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap
    from pydicom.uid import generate_uid

    series = [sources[0].SeriesInstanceUID, digest]
    width = window[1] - window[0] or 1.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The string .* single component")  # names of phantoms
        result = ParametricMap(
            sources,
            std,
            series_instance_uid=generate_uid(entropy_srcs=series),
            series_number=2,
            sop_instance_uid=generate_uid(entropy_srcs=[*series, str(number)]),
            instance_number=number,
            manufacturer="hggdp_plugin",
            manufacturer_model_name="hggdp_plugin",
            software_versions=__version__,
            device_serial_number="none",
            contains_recognizable_visual_features=True,  # a volume of the head may show the face
            real_world_value_mappings=[_mapping(float(std.max()))],
            voi_lut_transformations=[VOILUTTransformation(window[0] + width / 2, width, None, "LINEAR_EXACT")],
            content_label="STANDARD_ERROR",
            content_description="Standard error of the complex image",
            series_description=DESCRIPTION,
        )
    result.ImageComments, result.DerivationDescription = COMMENTS, sources[0].DerivationDescription
    return result


def _mapping(maximum: float) -> "RealWorldValueMapping":
    """Say what the values are: a standard deviation of the MR signal, in the arbitrary units of the image."""
    from highdicom.pm import RealWorldValueMapping
    from highdicom.sr import CodeContentItem, CodedConcept
    from pydicom.sr.codedict import codes

    mapping = RealWorldValueMapping(
        "standard error",
        "Standard error, in the units of the image",
        codes.UCUM.ArbitraryUnit,
        (0.0, maximum),
        quantity_definition=codes.DCM.MRSignalIntensity,
    )
    name, value = (CodedConcept.from_code(c) for c in (codes.DCM.Derivation, codes.SCT.StandardDeviation))
    mapping.QuantityDefinitionSequence.append(CodeContentItem(name, value))
    return mapping

"""Write DICOM images: one MR image per slice and frame, placed in the patient."""

import hashlib
import logging
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.raw import RawData, SliceGeometry

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_logger = logging.getLogger(__name__)

#: Largest stored value: 12 bits, as scanners write.
MAX_STORED = 4095
#: Added to the series description, and said in the comments of every image.
SERIES_SUFFIX = "learned prior (HGGDP)"
COMMENTS = "Reconstructed from undersampled data with a learned prior (HGGDP). Research use only."
#: Longest description of how an image was made (VR ST); that of a self-check of many slices is longer.
MAX_DESCRIPTION = 1024
#: Deviation from orthonormal directions that is still a geometry.
DIRECTION_TOLERANCE = 1e-2
#: DICOM keywords of elements of the MRD header.
PATIENT_FIELDS = {
    "PatientName": "subjectInformation/patientName",
    "PatientID": "subjectInformation/patientID",
    "PatientBirthDate": "subjectInformation/patientBirthdate",
    "PatientSex": "subjectInformation/patientGender",
    "PatientWeight": "subjectInformation/patientWeight_kg",
    "StudyInstanceUID": "studyInformation/studyInstanceUID",
    "StudyDate": "studyInformation/studyDate",
    "StudyTime": "studyInformation/studyTime",
    "StudyID": "studyInformation/studyID",
    "AccessionNumber": "studyInformation/accessionNumber",
    "ReferringPhysicianName": "studyInformation/referringPhysicianName",
    "StudyDescription": "studyInformation/studyDescription",
    "FrameOfReferenceUID": "measurementInformation/frameOfReferenceUID",
    "PatientPosition": "measurementInformation/patientPosition",
    "ProtocolName": "measurementInformation/protocolName",
    "SequenceName": "measurementInformation/sequenceName",
    "Manufacturer": "acquisitionSystemInformation/systemVendor",
    "ManufacturerModelName": "acquisitionSystemInformation/systemModel",
    "InstitutionName": "acquisitionSystemInformation/institutionName",
    "StationName": "acquisitionSystemInformation/stationName",
    "MagneticFieldStrength": "acquisitionSystemInformation/systemFieldStrength_T",
    "RepetitionTime": "sequenceParameters/TR",
    "EchoTime": "sequenceParameters/TE",
    "InversionTime": "sequenceParameters/TI",
    "FlipAngle": "sequenceParameters/flipAngle_deg",
}


def write_dicom(
    path: PathLike, image: np.ndarray, raw: RawData | None, window: tuple[float, float], history: str
) -> None:
    """Write an image as DICOM (needs pydicom).

    Args:
        path (path): File to write, for a single slice, or a folder that exists and is empty.
        image (array): Magnitude (repetition, contrast, phase, set, slice, y, x).
        raw (RawData or None): Source of geometry and patient; None gives voxels of 1 mm.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made.

    Raises:
        InputError: If several images are to be written to one file.
    """
    if raw is not None and not _is_geometry(raw.geometry):
        _logger.warning("The positions or directions of the slices make no sense: the DICOM images are axial.")
    save(path, mr_images(image, raw, window, history))


def save(path: PathLike, images: "Sequence[Dataset]") -> None:
    """Write data sets to files, named by their instance number.

    Args:
        path (path): File to write, for a single data set, or a folder that exists and is empty.
        images (sequence of Dataset): What to write.

    Raises:
        InputError: If several images are to be written to one file.
    """
    if os.path.isdir(path):
        for image in images:
            image.save_as(Path(path) / f"IM{image.InstanceNumber:05d}.dcm", enforce_file_format=True)
        return
    if len(images) > 1:
        raise InputError(path, f"there are {len(images)} images, a DICOM file holds one", "give a folder (NAME/)")
    images[0].save_as(path, enforce_file_format=True)


def mr_images(image: np.ndarray, raw: RawData | None, window: tuple[float, float], history: str) -> "list[Dataset]":
    """Make the MR images of all slices and frames. The same arguments give the same identifiers.

    Args:
        image (array): Magnitude (repetition, contrast, phase, set, slice, y, x).
        raw (RawData or None): Source of geometry and patient; None gives voxels of 1 mm.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made.

    Returns:
        list of Dataset: The images, frame after frame, each with its slices in the order of their positions.
    """
    from pydicom.uid import generate_uid

    geometry, spacing = slice_geometry(image, raw)
    order = geometry.spatial_order
    geometry, image = geometry.take(order), image[..., order, :, :]
    slope = float(image.max()) / MAX_STORED or 1.0
    stored = np.rint(image / slope).astype("<u2")
    digest = hashlib.sha256(image.astype("<f4").tobytes()).hexdigest()
    common = _common(raw, history)
    entropy = [digest, history, "" if raw is None else raw.source]
    common.SeriesInstanceUID = generate_uid(entropy_srcs=[*entropy, "series"])
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if name not in common:
            setattr(common, name, generate_uid(entropy_srcs=[*entropy, name]))
    images = []
    for number, (repetition, contrast, phase, set_, place) in enumerate(np.ndindex(image.shape[:5]), start=1):
        uid = generate_uid(entropy_srcs=[*entropy, str(number)])
        dataset = _one(common, stored[repetition, contrast, phase, set_, place], uid)
        dataset.InstanceNumber = number
        dataset.AcquisitionNumber = repetition + 1
        dataset.TemporalPositionIdentifier = repetition * image.shape[2] + phase + 1
        dataset.EchoNumbers = contrast + 1
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, f"{slope:.10g}", "US"
        dataset.WindowCenter = f"{(window[0] + window[1]) / 2:.8g}"
        dataset.WindowWidth = f"{max(window[1] - window[0], slope):.8g}"
        dataset.VOILUTFunction = "LINEAR_EXACT"  # the default function needs windows of one or more
        _place(dataset, geometry, spacing, place)
        images.append(dataset)
    return images


def slice_geometry(image: np.ndarray, raw: RawData | None) -> tuple[SliceGeometry, tuple[float, float, float]]:
    """Return the geometry of the slices, and the voxel size in mm; axial slices where the measurement has no geometry.

    Args:
        image (array): Image (..., slice, y, x).
        raw (RawData or None): The measurement.

    Returns:
        tuple: The geometry, and the voxel size (z, y, x).
    """
    n_slices, y, x = image.shape[-3:]
    axes = np.repeat(np.eye(3)[:, None], n_slices, axis=1)
    if raw is None:
        return SliceGeometry(np.arange(n_slices)[:, None] * axes[2], *axes), (1.0, 1.0, 1.0)
    thickness = raw.fov.z * raw.n_slabs / n_slices if raw.is_3d else raw.fov.z
    spacing = (thickness, raw.fov.y / y, raw.fov.x / x)
    if _is_geometry(raw.geometry):
        return raw.geometry, spacing
    return SliceGeometry(thickness * np.arange(n_slices)[:, None] * axes[2], *axes), spacing


def _is_geometry(geometry: SliceGeometry) -> bool:
    """Whether positions are finite and directions orthonormal."""
    frame = np.stack([geometry.read_dir, geometry.phase_dir, geometry.slice_dir], axis=1)
    deviation = np.abs(frame @ frame.swapaxes(1, 2) - np.eye(3)).max()
    return bool(deviation < DIRECTION_TOLERANCE and np.isfinite(geometry.position).all())  # false for NaN


def _place(dataset: "Dataset", geometry: SliceGeometry, spacing: tuple[float, float, float], number: int) -> None:
    """Set position, orientation and size of a slice. MRD and DICOM both have LPS coordinates in mm."""
    dz, dy, dx = spacing
    rows, columns = dataset.Rows, dataset.Columns
    read_dir, phase_dir = geometry.read_dir[number], geometry.phase_dir[number]
    first = geometry.position[number] - columns // 2 * dx * read_dir - rows // 2 * dy * phase_dir
    dataset.ImagePositionPatient = [f"{v:.9g}" for v in first]
    dataset.ImageOrientationPatient = [f"{v:.9g}" for v in (*read_dir, *phase_dir)]
    dataset.PixelSpacing = [f"{dy:.9g}", f"{dx:.9g}"]
    dataset.SliceThickness = f"{dz:.9g}"
    dataset.SliceLocation = f"{geometry.position[number] @ geometry.slice_dir[number]:.9g}"
    if len(geometry.position) > 1:
        distance = float(np.linalg.norm(geometry.position[1] - geometry.position[0]))
        dataset.SpacingBetweenSlices = f"{distance:.9g}"


def _common(raw: RawData | None, history: str) -> "Dataset":
    """Make what all images of the series have in common: patient, study, scanner, protocol."""
    from pydicom import Dataset

    dataset = Dataset()
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                 "AccessionNumber", "ReferringPhysicianName", "Manufacturer", "EchoTime", "RepetitionTime",
                 "EchoTrainLength", "PositionReferenceIndicator", "Laterality"):  # fmt: skip
        setattr(dataset, name, None)  # required, but may be empty
    root = _header(raw)
    for name, element in PATIENT_FIELDS.items():
        text = (root.findtext(element) or "").strip()
        if text:
            _set(dataset, name, text)
    frequency = root.findtext("experimentalConditions/H1resonanceFrequency_Hz")
    if frequency:
        _set(dataset, "ImagingFrequency", f"{float(frequency) / 1e6:.9g}")
    protocol = str(dataset.get("ProtocolName") or "")
    room = 64 - len(SERIES_SUFFIX) - 1
    dataset.SeriesDescription = f"{protocol[:room]} {SERIES_SUFFIX}".strip()
    dataset.ImageComments = COMMENTS
    dataset.DerivationDescription = history[:MAX_DESCRIPTION]
    dataset.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", None
    dataset.MRAcquisitionType = "3D" if raw is not None and raw.is_3d else "2D"
    dataset.Modality, dataset.SeriesNumber = "MR", 1
    return dataset


def _header(raw: RawData | None) -> ET.Element:
    """Return the MRD header without its namespace. The reader has parsed and checked it before."""
    if raw is None or not raw.header:
        return ET.Element("none")
    root = ET.fromstring(raw.header)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _set(dataset: "Dataset", name: str, text: str) -> None:
    """Set an element, unless its text does not fit what DICOM allows there."""
    from pydicom import config
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import DataElement
    from pydicom.valuerep import DA, TM

    vr = dictionary_VR(name)
    value = text.replace("-", "") if vr == "DA" else text.replace(":", "") if vr == "TM" else text
    if name == "PatientSex":
        value = value if value in ("M", "F", "O") else "O"
    try:
        {"DA": DA, "TM": TM}.get(vr, str)(value)  # refuses dates that the calendar does not have
        dataset.add(DataElement(name, vr, value, validation_mode=config.RAISE))
    except (ValueError, TypeError, OverflowError):
        _logger.info("%s of the header does not fit into DICOM: left out.", name)


def _one(common: "Dataset", pixels: np.ndarray, uid: "UID") -> "Dataset":
    """Make the data set of one image."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    dataset = deepcopy(common)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.tobytes()
    return dataset

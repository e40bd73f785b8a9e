"""Writes a simulated measurement as an ISMRMRD raw file, with its reference image beside the raw data."""

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hggdp_plugin.io.files import hdf5_file
from hggdp_plugin.simulation.acquire import Measurement

with warnings.catch_warnings():  # the package resets the interpreter's warning filters when it is imported
    import ismrmrd

REFERENCE = "reference/image"
"""Where the fully sampled image lies in the file: complex64 (slices, y, x), the simulation as attributes."""


@dataclass(frozen=True)
class Geometry:
    """Where the slices lie: transverse, head first, supine, with square pixels.

    Attributes:
        fov: Field of view along the readout [mm]; of a volume, whose readout runs through the slices, along y.
        thickness: Thickness and distance of the slices [mm].
        dwell: Time from one sample to the next without oversampling [us].
        traj_unit: Unit of stored trajectories, which the format leaves open: ``"pixel"`` for cycles per pixel (0.5 at
            the edge of k-space), ``"fov"`` for cycles per field of view (half the matrix size there).
    """

    fov: float = 230.0
    thickness: float = 5.0
    dwell: float = 5.0
    traj_unit: str = "pixel"

    def __post_init__(self) -> None:
        if not (0 < self.fov < 1e4 and 0 < self.thickness < 1e4):
            raise ValueError(f"field of view and slice thickness must be positive, got {self.fov}, {self.thickness} mm")
        if self.traj_unit not in ("pixel", "fov"):
            raise ValueError(f"the trajectory's unit is pixel or fov, not {self.traj_unit!r}")


def write_raw(
    path: str | os.PathLike[str],
    measurement: Measurement,
    reference: NDArray[np.complex64],
    attributes: Mapping[str, Any],
    geometry: Geometry | None = None,
) -> None:
    """Writes an ISMRMRD file; an existing one is replaced.

    Args:
        path: The file, written in place: give a temporary name and rename.
        measurement: What was measured.
        reference: Fully sampled image (slices, y, x), of a volume (z, y, x), stored as ``REFERENCE``.
        attributes: What to note at the reference; None values are left out.
        geometry: Field of view and slices.

    Raises:
        ValueError: If the reference has not the measurement's slices and matrix.
        OSError: If the file cannot be written.
    """
    geometry = geometry or Geometry()
    expected = (len(measurement.data), *measurement.matrix)[-3:]
    if reference.shape != expected:
        raise ValueError(f"reference must have shape {expected}, got {reference.shape}")
    with hdf5_file(Path(path)) as file:
        dataset = ismrmrd.file.Folder(file)["dataset"]
        dataset.header = make_header(measurement, geometry)
        dataset.acquisitions = list(_acquisitions(measurement, geometry))
        image = file.create_dataset(REFERENCE, data=reference.astype(np.complex64), compression="gzip", shuffle=True)
        image.attrs.update({name: value for name, value in attributes.items() if value is not None})


def make_header(measurement: Measurement, geometry: Geometry) -> "ismrmrd.xsd.ismrmrdHeader":
    """The XML header of a measurement."""
    xsd = ismrmrd.xsd
    slices, coils, _, samples = measurement.data.shape
    radial, volume = measurement.trajectory is not None, measurement.partitions is not None
    pixel = geometry.fov / measurement.matrix[1]
    voxel = (pixel, pixel, geometry.thickness) if volume else (geometry.thickness, pixel, pixel)

    def space(matrix: tuple[int, ...]) -> Any:
        sizes = (1, *matrix)[-3:]
        z, y, x = (size * length for size, length in zip(sizes, voxel, strict=True))
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("zyx", sizes, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(x=x, y=y, z=z),
        )

    def limit(count: int, center: int = 0) -> Any:
        return xsd.limitType(minimum=0, maximum=count - 1, center=center)

    counters = len(measurement.rows) if radial else measurement.encoded[-2] - _missing_rows(measurement)
    partitions = measurement.encoded[0] if volume else 1
    encoding = xsd.encodingType(
        encodedSpace=space(measurement.encoded),
        reconSpace=space(measurement.matrix),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_0=limit(samples, measurement.centre_sample),
            kspace_encoding_step_1=limit(counters, measurement.centre_row),
            kspace_encoding_step_2=limit(partitions, partitions // 2),
            slice=limit(slices, slices // 2),
        ),
        trajectory=xsd.trajectoryType.RADIAL if radial else xsd.trajectoryType.CARTESIAN,
    )
    return xsd.ismrmrdHeader(
        measurementInformation=xsd.measurementInformationType(
            patientPosition=xsd.patientPositionType.HFS, protocolName="simulated"
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="simulated",
            systemFieldStrength_T=3.0,
            relativeReceiverNoiseBandwidth=1.0,
            receiverChannels=coils,
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=127_732_436),
        encoding=[encoding],
    )


def _missing_rows(measurement: Measurement) -> int:
    """Lines that partial Fourier leaves out."""
    return measurement.encoded[-2] // 2 - measurement.centre_row


def _acquisitions(measurement: Measurement, geometry: Geometry) -> Iterator["ismrmrd.Acquisition"]:
    """The noise scan, if any, then slice after slice the lines in the order of their counter."""
    oversampling = measurement.encoded[-1] / measurement.matrix[-1]
    if measurement.trajectory is not None:
        oversampling = measurement.data.shape[-1] / max(measurement.matrix)
    left, back, head = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # of the patient
    directions = (left, back, head) if measurement.partitions is None else (head, left, back)
    common: dict[str, Any] = dict(zip(("read_dir", "phase_dir", "slice_dir"), directions, strict=True))
    common["sample_time_us"] = geometry.dwell / oversampling
    scan = 1
    if measurement.noise is not None:
        noise = ismrmrd.Acquisition.from_array(measurement.noise, scan_counter=scan, **common)
        noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        yield noise
        scan += 1
    trajectory = measurement.trajectory
    if trajectory is not None and geometry.traj_unit == "fov":
        trajectory = trajectory * np.array(measurement.matrix[::-1], np.float32)
    slices, last = len(measurement.data), len(measurement.rows) - 1
    for index, lines in enumerate(measurement.data):
        for number, row in enumerate(measurement.rows):
            acquisition = ismrmrd.Acquisition.from_array(
                np.ascontiguousarray(lines[:, number]),
                None if trajectory is None else trajectory[number],
                scan_counter=scan,
                center_sample=measurement.centre_sample,
                position=(0.0, 0.0, geometry.thickness * (index - (slices - 1) / 2)),
                **common,
            )
            acquisition.idx.kspace_encode_step_1 = row
            acquisition.idx.slice = index
            if measurement.partitions is not None:
                acquisition.idx.kspace_encode_step_2 = measurement.partitions[number]
            for flag in _flags(number == 0, number == last, index == slices - 1, bool(measurement.calib[number])):
                acquisition.set_flag(flag)
            yield acquisition
            scan += 1


def _flags(first: bool, last: bool, last_slice: bool, calib: bool) -> Iterator[int]:
    """Flags of the first or last line of a slice, and of calibration lines."""
    if first:
        yield from (ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1, ismrmrd.ACQ_FIRST_IN_SLICE)
    if last:
        yield from (ismrmrd.ACQ_LAST_IN_ENCODE_STEP1, ismrmrd.ACQ_LAST_IN_SLICE)
    if last and last_slice:
        yield from (ismrmrd.ACQ_LAST_IN_REPETITION, ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    if calib:
        yield ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING

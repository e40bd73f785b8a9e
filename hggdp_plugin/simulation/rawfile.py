"""Write a simulated scan as an ISMRMRD raw file, with its reference image beside the raw data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.mrd._ismrmrd import ismrmrd
from hggdp_plugin.io.mrd.hdf5 import hdf5_file
from hggdp_plugin.simulation.acquire import SimulatedScan

#: Dataset of the fully sampled image in the file: complex64 (slices, y, x), the protocol as attributes.
REFERENCE = "reference/image"


@dataclass(frozen=True)
class ScanGeometry:
    """Position of the slices: transverse, head first, supine, with square pixels.

    Attributes:
        fov (float): Field of view along the readout [mm]; in 3D, where the readout runs through the slices, along y.
        thickness (float): Thickness and distance of the slices [mm].
        dwell (float): Dwell time without oversampling [us].
        traj_unit (str): Unit of stored trajectories, which the format leaves open: ``"pixel"`` for cycles per pixel
            (0.5 at the edge of k-space), ``"fov"`` for cycles per field of view (half the matrix size there).

    Raises:
        ValueError: A length is not positive, or the unit is unknown.
    """

    fov: float = 230.0
    thickness: float = 5.0
    dwell: float = 5.0
    traj_unit: str = "pixel"

    def __post_init__(self) -> None:
        if not (0 < self.fov < 1e4 and 0 < self.thickness < 1e4):
            raise ValueError(f"field of view and slice thickness must be positive, got {self.fov}, {self.thickness} mm")
        if self.traj_unit not in ("pixel", "fov"):
            raise ValueError(f"the unit of the trajectory is pixel or fov, not {self.traj_unit!r}")


def write_raw(
    path: PathLike,
    scan: SimulatedScan,
    reference: NDArray[np.complex64],
    attributes: Mapping[str, object],
    geometry: ScanGeometry | None = None,
) -> None:
    """Write an ISMRMRD file; an existing one is replaced.

    Args:
        path (path): The file. It is written in place: pass a temporary name and rename.
        scan (SimulatedScan): The scan.
        reference (array): Fully sampled image, complex64 (slices, y, x), in 3D (z, y, x), stored as
            :data:`REFERENCE`.
        attributes (mapping): Attributes of the reference; None values are left out.
        geometry (ScanGeometry or None): Field of view and position of the slices.

    Raises:
        ValueError: The reference does not have the slices and the matrix of the scan.
        OSError: The file can't be written.
    """
    geometry = geometry or ScanGeometry()
    expected = (len(scan.data), *scan.matrix)[-3:]
    if reference.shape != expected:
        raise ValueError(f"reference must have shape {expected}, got {reference.shape}")
    with hdf5_file(Path(path)) as file:
        dataset = ismrmrd.file.Folder(file)["dataset"]
        dataset.header = make_header(scan, geometry)
        dataset.acquisitions = list(_acquisitions(scan, geometry))
        image = file.create_dataset(REFERENCE, data=reference.astype(np.complex64), compression="gzip", shuffle=True)
        image.attrs.update({name: value for name, value in attributes.items() if value is not None})


def make_header(scan: SimulatedScan, geometry: ScanGeometry) -> "ismrmrd.xsd.ismrmrdHeader":
    """Return the XML header of a scan.

    Args:
        scan (SimulatedScan): The scan.
        geometry (ScanGeometry): Field of view and position of the slices.

    Returns:
        ismrmrdHeader: The header.
    """
    xsd = ismrmrd.xsd
    slices, coils, _, samples = scan.data.shape
    radial, is_3d = scan.trajectory is not None, scan.kz is not None
    pixel = geometry.fov / scan.matrix[1]
    voxel = (pixel, pixel, geometry.thickness) if is_3d else (geometry.thickness, pixel, pixel)

    def space(matrix: tuple[int, ...]) -> "ismrmrd.xsd.encodingSpaceType":
        sizes = (1, *matrix)[-3:]
        z, y, x = (size * length for size, length in zip(sizes, voxel, strict=True))
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("zyx", sizes, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(x=x, y=y, z=z),
        )

    def limit(count: int, center: int = 0) -> "ismrmrd.xsd.limitType":
        return xsd.limitType(minimum=0, maximum=count - 1, center=center)

    ky_steps = len(scan.ky) if radial else scan.encoded_matrix[-2] - _missing_steps(scan)
    kz_steps = scan.encoded_matrix[0] if is_3d else 1
    encoding = xsd.encodingType(
        encodedSpace=space(scan.encoded_matrix),
        reconSpace=space(scan.matrix),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_0=limit(samples, scan.center_sample),
            kspace_encoding_step_1=limit(ky_steps, scan.center_ky),
            kspace_encoding_step_2=limit(kz_steps, kz_steps // 2),
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


def _missing_steps(scan: SimulatedScan) -> int:
    """Return the number of phase encoding steps that partial Fourier leaves out."""
    return scan.encoded_matrix[-2] // 2 - scan.center_ky


def _acquisitions(scan: SimulatedScan, geometry: ScanGeometry) -> Iterator["ismrmrd.Acquisition"]:
    """Yield the noise scan, if any, then slice after slice the readouts in their order."""
    oversampling = scan.encoded_matrix[-1] / scan.matrix[-1]
    if scan.trajectory is not None:
        oversampling = scan.data.shape[-1] / max(scan.matrix)
    left, back, head = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # LPS: patient coordinates
    directions = (left, back, head) if scan.kz is None else (head, left, back)
    common: dict[str, tuple[float, ...] | float] = dict(
        zip(("read_dir", "phase_dir", "slice_dir"), directions, strict=True)
    )
    common["sample_time_us"] = geometry.dwell / oversampling
    counter = 1
    if scan.noise is not None:
        noise = ismrmrd.Acquisition.from_array(scan.noise, scan_counter=counter, **common)
        noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        yield noise
        counter += 1
    trajectory = scan.trajectory
    if trajectory is not None and geometry.traj_unit == "fov":
        trajectory = trajectory * np.array(scan.matrix[::-1], np.float32)
    slices, last = len(scan.data), len(scan.ky) - 1
    for index, readouts in enumerate(scan.data):
        for number, step in enumerate(scan.ky):
            acquisition = ismrmrd.Acquisition.from_array(
                np.ascontiguousarray(readouts[:, number]),
                None if trajectory is None else trajectory[number],
                scan_counter=counter,
                center_sample=scan.center_sample,
                position=(0.0, 0.0, geometry.thickness * (index - (slices - 1) / 2)),
                **common,
            )
            acquisition.idx.kspace_encode_step_1 = step
            acquisition.idx.slice = index
            if scan.kz is not None:
                acquisition.idx.kspace_encode_step_2 = scan.kz[number]
            for flag in _flags(number == 0, number == last, index == slices - 1, bool(scan.is_calib[number])):
                acquisition.set_flag(flag)
            yield acquisition
            counter += 1


def _flags(first: bool, last: bool, last_slice: bool, calib: bool) -> Iterator[int]:
    """Yield the flags of the first and last readout of a slice, and of calibration lines."""
    if first:
        yield from (ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1, ismrmrd.ACQ_FIRST_IN_SLICE)
    if last:
        yield from (ismrmrd.ACQ_LAST_IN_ENCODE_STEP1, ismrmrd.ACQ_LAST_IN_SLICE)
    if last and last_slice:
        yield from (ismrmrd.ACQ_LAST_IN_REPETITION, ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    if calib:
        yield ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING

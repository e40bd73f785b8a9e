"""Siemens raw data files (twix, ``meas_*.dat``), read with the package twixtools as if they were MRD."""

import io as streams
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError, check_input, check_package
from hggdp_plugin.io.mrd._ismrmrd import acquisition_header_dtype, constants
from hggdp_plugin.io.mrd.acquisitions import Acquisitions
from hggdp_plugin.io.mrd.reader import read_acquisitions
from hggdp_plugin.io.raw import RawData

if TYPE_CHECKING:
    from twixtools.mdb import Mdb

_logger = logging.getLogger(__name__)

#: Flags of Siemens' measurement data headers, and what they are called in MRD.
FLAGS = {
    "NOISEADJSCAN": constants.ACQ_IS_NOISE_MEASUREMENT,
    "PATREFANDIMASCAN": constants.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING,
    "PATREFSCAN": constants.ACQ_IS_PARALLEL_CALIBRATION,
    "REFLECT": constants.ACQ_IS_REVERSE,
    "PHASCOR": constants.ACQ_IS_PHASECORR_DATA,
    "HPFEEDBACK": constants.ACQ_IS_HPFEEDBACK_DATA,
    "RTFEEDBACK": constants.ACQ_IS_RTFEEDBACK_DATA,
    "RETRO_DUMMYSCAN": constants.ACQ_IS_DUMMYSCAN_DATA,
    "REFPHASESTABSCAN": constants.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
    "PHASESTABSCAN": constants.ACQ_IS_PHASE_STABILIZATION,
}
#: MRD's counters, and what they are called in Siemens' headers.
COUNTERS = {
    "kspace_encode_step_1": "Lin",
    "kspace_encode_step_2": "Par",
    "average": "Ave",
    "slice": "Sli",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
    "segment": "Seg",
}
#: Values of ``ucTrajectory`` in the protocol.
TRAJECTORIES = {1: "cartesian", 2: "radial", 4: "spiral", 8: "blade"}
#: Readout oversampling where the protocol does not give it.
DEFAULT_OVERSAMPLING = 2.0
#: Readout time of a noise adjustment in microseconds, and the dwell time of coil adjustments, which have their own.
NOISE_READOUT_US, COIL_ADJUSTMENT_DWELL_US = 7680.0, 5.0
#: Smallest block of a file: a measurement data header of software VB.
MIN_BLOCK_BYTES = 128

_REMEDY = "export the raw data from the scanner again, or copy the file again if it was cut short"


@dataclass(frozen=True)
class _Scan:
    """One measurement of a multi-raid file: its protocol and its readouts."""

    protocol: Mapping[str, Any]
    blocks: "list[Mdb]"
    is_complete: bool

    @classmethod
    def read(cls, file: BinaryIO, start: int, stop: int, is_multi_raid: bool) -> "_Scan":
        """Read the protocol and all measurement data headers, as far as they go."""
        from twixtools.hdr_def import SingleMeasInit
        from twixtools.mdb import Mdb
        from twixtools.twixprot import parse_twix_hdr

        file.seek(start)
        length = int(np.frombuffer(file.read(SingleMeasInit.itemsize), SingleMeasInit)[0]["hdr_len"])
        file.seek(start)
        protocol = parse_twix_hdr(file)
        blocks, position, ended = [], start + length, False
        while position + MIN_BLOCK_BYTES <= stop and not ended:
            file.seek(position)
            block = Mdb(file, is_multi_raid)
            size = int(block.dma_len)
            if size < MIN_BLOCK_BYTES or position + size > stop:
                break
            ended = block.is_flag_set("ACQEND")
            if not ended and not block.is_flag_set("SYNCDATA"):
                blocks.append(block)
            position += size
        return cls(protocol, blocks, ended or bool(blocks and blocks[-1].is_flag_set("LASTSCANINMEAS")))

    @property
    def name(self) -> str:
        return str(self.meas("tProtocolName", ""))

    def meas(self, key: str, default: Any) -> Any:
        """Return an entry of the protocol, whichever of its parts holds it."""
        for part in ("MeasYaps", "Meas", "Dicom", "Config"):
            if (value := self.protocol.get(part, {}).get(key)) not in (None, "", []):
                return value
        return default

    def number(self, key: str, default: float) -> float:
        """Return an entry as a number."""
        try:
            return float(self.meas(key, default))
        except (TypeError, ValueError):
            return default


def read_twix(path: PathLike) -> RawData:
    """Read a Siemens raw data file.

    Of a multi-raid file the last measurement is read; noise adjustments of the others whiten it. Matrix and fields of
    view come from the protocol, as far as it agrees with the readouts: sequences of one's own may not fill it in.

    Args:
        path (path): The .dat file.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If the file cannot be used, or twixtools is not installed.
    """
    check_input(path)
    check_package(path, "twixtools", "twix", "Siemens raw files")
    with open(path, "rb") as file:
        try:
            with redirect_stdout(streams.StringIO()):  # twixtools prints
                scans = [_Scan.read(file, *extent) for extent in _measurements(file)]
        except Exception as error:  # twixtools passes on whatever a damaged header provokes
            problem = f"it is not a readable Siemens raw file ({type(error).__name__}: {error})"
            raise InputError(path, problem, _REMEDY) from None
        return _read(scans, str(path))


def _measurements(file: BinaryIO) -> list[tuple[int, int, bool]]:
    """Find the measurements of a file: where each starts and stops, and whether the file is a multi-raid file."""
    from twixtools.hdr_def import MultiRaidFileHeader
    from twixtools.helpers import idea_version_check

    size = file.seek(0, 2)
    is_multi_raid, count = idea_version_check(file)
    if not is_multi_raid:
        return [(0, size, False)]
    file.seek(0)
    content = file.read(MultiRaidFileHeader.itemsize)
    entries = np.frombuffer(content, MultiRaidFileHeader)[0]["entry"][: int(count)]
    extents = [(int(entry["off_"]), int(entry["off_"]) + int(entry["len_"])) for entry in entries]
    return [(start, min(size, stop) if stop > start else size, True) for start, stop in extents]


def _read(scans: list[_Scan], source: str) -> RawData:
    """Read the last measurement that has images, with the noise adjustments of all."""
    with_images = [scan for scan in scans if any(block.is_image_scan() for block in scan.blocks)]
    if not with_images:
        raise InputError(source, "it holds no image readouts", "give the raw data file (.dat) of an image measurement")
    scan = with_images[-1]
    if not scan.is_complete:
        _logger.warning("%s: the measurement has no end; it was aborted, or the file was cut short.", source)
    if len(scans) > 1:
        _logger.info("%d measurements in the file: %s is read.", len(scans), scan.name or "the last")
    if "pulseq" in str(scan.meas("tSequenceFileName", "")).lower():
        _logger.warning(
            "%s: a Pulseq sequence, whose own gradients decide how the axes of the image run: the orientation of NIfTI"
            " and DICOM images may be turned or mirrored.",
            source,
        )
    noise = [(s, b) for s in scans if s is not scan for b in s.blocks if b.is_flag_set("NOISEADJSCAN")]
    blocks = [*noise, *((scan, block) for block in scan.blocks)]
    headers = _headers([block for _, block in blocks])
    headers["sample_time_us"] = [_dwell_time(*block) for block in blocks]

    def fetch(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        data, traj = np.empty(stop - start, object), np.empty(stop - start, object)
        for i, (_, block) in enumerate(blocks[start:stop]):
            data[i] = np.ascontiguousarray(block.data).view(np.float32).reshape(-1)
            traj[i] = np.zeros(0, np.float32)
        return data, traj

    return read_acquisitions(_xml(scan, headers, source).encode(), Acquisitions(headers, fetch, source))


def _headers(blocks: "list[Mdb]") -> np.ndarray:
    """Translate measurement data headers to MRD's acquisition headers."""
    from twixtools.mdh_def import mask_dict

    mdh = np.frombuffer(b"".join(bytes(b.mdh) for b in blocks), np.dtype(type(blocks[0].mdh)))
    headers = np.zeros(len(blocks), acquisition_header_dtype)
    headers["version"] = 1
    is_set = {name: (mdh["EvalInfoMask"] >> np.uint64(mask_dict[name])) & np.uint64(1) == 1 for name in FLAGS}
    is_set["PATREFSCAN"] &= ~is_set["PATREFANDIMASCAN"]
    for name, flag in FLAGS.items():
        headers["flags"] |= is_set[name].astype(np.uint64) << np.uint64(flag - 1)
    headers["number_of_samples"] = mdh["SamplesInScan"]
    headers["active_channels"] = headers["available_channels"] = mdh["UsedChannels"]
    headers["scan_counter"] = mdh["ScanCounter"]
    headers["acquisition_time_stamp"] = mdh["TimeStamp"]
    headers["physiology_time_stamp"][:, 0] = mdh["PMUTimeStamp"]
    headers["center_sample"] = mdh["CenterCol"]
    headers["discard_pre"], headers["discard_post"] = mdh["CutOff"]["Pre"], mdh["CutOff"]["Post"]
    for name, counter in COUNTERS.items():
        headers["idx"][name] = mdh["Counter"][counter]
    headers["idx"]["user"][:, 5], headers["idx"]["user"][:, 6] = mdh["CenterLin"], mdh["CenterPar"]
    position = mdh["SliceData"]["SlicePos"]
    headers["position"] = np.stack([position["Sag"], position["Cor"], position["Tra"]], axis=1)
    directions = _rotation(mdh["SliceData"]["Quaternion"].astype(float))
    # The columns of Siemens' rotation matrix are the phase-encoding, readout and slice directions.
    headers["phase_dir"], headers["read_dir"], headers["slice_dir"] = np.moveaxis(directions, 2, 0)
    return headers


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """Return the rotation matrices (n, 3, 3) of quaternions (n, 4), the scalar part first."""
    w, x, y, z = quaternion.T
    rows = [
        [1 - 2 * (y**2 + z**2), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x**2 + z**2), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x**2 + y**2)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)


def _dwell_time(scan: _Scan, block: "Mdb") -> float:
    """Return the dwell time of a readout in microseconds; that of noise adjustments is not in the protocol."""
    if block.is_flag_set("NOISEADJSCAN"):
        if scan.name.startswith("AdjCoilSens"):
            return COIL_ADJUSTMENT_DWELL_US
        return np.floor(10 * NOISE_READOUT_US / max(1, block.mdh.SamplesInScan)) / 10
    dwell = scan.meas("sRXSPEC", {}).get("alDwellTime", [0])
    echo = min(block.mdh.Counter.Eco, len(dwell) - 1)
    return float(dwell[echo] or dwell[0]) / 1000


def _xml(scan: _Scan, headers: np.ndarray, source: str) -> str:
    """Write the MRD header of a measurement."""
    kspace, trajectory = scan.meas("sKSpace", {}), _trajectory(scan, source)
    slices = scan.meas("sSliceArray", {}).get("asSlice") or [{}]
    first: dict[str, float] = next((s for s in slices if s), {})
    fov = {axis: float(first.get(f"d{name}", 0)) for axis, name in zip("xyz", _FOV_NAMES, strict=True)}
    x = _readout(scan, headers, fov["x"])
    oversampling = [float(kspace.get(f"d{axis}OversamplingForDialog") or 0) for axis in ("Phase", "Slice")]
    y = _phase_encoding(headers, "kspace_encode_step_1", 5, scan.number("iPEFTLength", 0), 1 + oversampling[0])
    z = _phase_encoding(headers, "kspace_encode_step_2", 6, scan.number("i3DFTLength", 0), 1 + oversampling[1])
    if z.encoded == 1:
        z = _Axis(1, 1, 1.0, None)
    multiband = int(scan.meas("sSliceAcceleration", {}).get("lMultiBandFactor", 1) or 1)
    spaces = "".join(
        f"<{name}><matrixSize>{_xyz(matrix)}</matrixSize><fieldOfView_mm>{_xyz(size)}</fieldOfView_mm></{name}>"
        for name, matrix, size in (
            ("encodedSpace", (x.encoded, y.encoded, z.encoded), (fov["x"] * x.oversampling, fov["y"] * y.oversampling,
                                                                 fov["z"] * z.oversampling)),
            ("reconSpace", (x.recon, y.recon, z.recon), tuple(fov.values())),
        )
    )  # fmt: skip
    limits = "".join(
        f"<{step}><minimum>0</minimum><maximum>{axis.encoded - 1}</maximum><center>{axis.center}</center></{step}>"
        for step, axis in (("kspace_encoding_step_1", y), ("kspace_encoding_step_2", z))
        if axis.center is not None
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        f"<subjectInformation><patientName>{escape(str(scan.meas('tPatientName', '')))}</patientName>"
        f"</subjectInformation><measurementInformation><protocolName>{escape(scan.name)}</protocolName>"
        "</measurementInformation><acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor>"
        f"</acquisitionSystemInformation><encoding>{spaces}<encodingLimits>{limits}</encodingLimits>"
        f"<trajectory>{trajectory}</trajectory><parallelImaging><multiband><multiband_factor>{multiband}"
        "</multiband_factor></multiband></parallelImaging></encoding></ismrmrdHeader>"
    )


_FOV_NAMES = ("ReadoutFOV", "PhaseFOV", "Thickness")


@dataclass(frozen=True)
class _Axis:
    """Matrix sizes of an axis, how much larger its encoded field of view is, and its k-space center."""

    encoded: int
    recon: int
    oversampling: float
    center: int | None


def _xyz(values: tuple[float, ...]) -> str:
    return "".join(f"<{axis}>{value:g}</{axis}>" for axis, value in zip("xyz", values, strict=True))


def _trajectory(scan: _Scan, source: str) -> str:
    name = TRAJECTORIES.get(int(scan.meas("sKSpace", {}).get("ucTrajectory", 1) or 1), "unknown")
    if name != "cartesian":
        raise InputError(
            source,
            f"its trajectory is {name}, and Siemens raw files do not contain trajectories",
            "convert it to MRD with the trajectory",
        )
    return "epi" if int(scan.meas("sFastImaging", {}).get("lEPIFactor", 1) or 1) > 1 else name


def _image_rows(headers: np.ndarray) -> np.ndarray:
    """Return which readouts belong to the image: those without a flag, but for reversal and calibration."""
    harmless = (constants.ACQ_IS_REVERSE, constants.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    others = headers["flags"] & ~np.uint64(sum(1 << (flag - 1) for flag in harmless))
    return np.asarray(others == 0)


def _readout(scan: _Scan, headers: np.ndarray, fov: float) -> _Axis:
    image = headers[_image_rows(headers)]
    count = image["number_of_samples"].astype(int) - image["discard_pre"] - image["discard_post"]
    center = image["center_sample"].astype(int) - image["discard_pre"]
    off_middle = np.abs(center - count // 2) > 1
    complete = int(np.where(off_middle, 2 * np.maximum(center, count - center), count).max())
    oversampling = scan.number("flReadoutOSFactor", DEFAULT_OVERSAMPLING)
    return _Axis(complete, max(1, round(complete / oversampling)), oversampling, None)


def _phase_encoding(headers: np.ndarray, counter: str, user: int, expected: float, oversampling: float) -> _Axis:
    """Find the matrix along a phase encoding: that of the protocol, unless there are more encoding steps."""
    image = headers[_image_rows(headers)]
    steps = int(image["idx"][counter].max()) + 1
    if steps == 1:
        return _Axis(1, 1, 1.0, None)
    center = int(np.median(image["idx"]["user"][:, user]))
    if not 0 < center < steps:  # not filled in by the sequence
        return _Axis(steps, steps, 1.0, None)
    needed = 2 * max(center, steps - center)
    encoded = int(expected) if needed <= expected <= 4 * needed else needed
    return _Axis(encoded, max(1, round(encoded / oversampling)), oversampling, center)

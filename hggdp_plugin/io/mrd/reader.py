"""Read ISMRMRD (MRD) raw data, from a file or a stream, to k-space that is ready for reconstruction."""

import logging
from collections.abc import Sequence

import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import ismrmrd
from hggdp_plugin.io.mrd.acquisitions import Acquisitions
from hggdp_plugin.io.mrd.cartesian import read_cartesian
from hggdp_plugin.io.mrd.hdf5 import open_acquisitions
from hggdp_plugin.io.mrd.header import parse_header
from hggdp_plugin.io.mrd.measurement import Measurement
from hggdp_plugin.io.mrd.noncartesian import read_noncartesian
from hggdp_plugin.io.raw import RawData

_logger = logging.getLogger(__name__)

#: Readouts whose trajectories are looked at where the header says Cartesian, and the slope that counts as parallel.
N_PROBES, PARALLEL_TOLERANCE = 32, 0.1


def read_raw(path: PathLike, group: str | None = None, encoding: int | None = None) -> RawData:
    """Read an ISMRMRD raw data file.

    Acquisitions are sorted by their flags and counters, reversed and aligned, cropped to the field of view along the
    readout, prewhitened with the noise scan if there is one, and averaged. The file is opened for reading only.

    Args:
        path (path): HDF5 file.
        group (str or None): Group of the file that holds the measurement. None: ``dataset``, else the only one.
        encoding (int or None): Number of the encoding to read, if the header has several. None: the one whose image
            acquisitions cover the largest part of k-space.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If the file cannot be used; the message says in one line why, and what to do.
    """
    with open_acquisitions(path, group) as (xml, acquisitions):
        return read_acquisitions(xml, acquisitions, encoding)


def read_stream(
    xml: bytes, acquisitions: Sequence["ismrmrd.Acquisition"], source: str, encoding: int | None = None
) -> RawData:
    """Read acquisitions that are in memory, such as those that a scanner has sent.

    Args:
        xml (bytes): The XML header.
        acquisitions (sequence of ismrmrd.Acquisition): At least one.
        source (str): Where they come from, for messages.
        encoding (int or None): Number of the encoding to read, see :func:`read_raw`.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If header and acquisitions do not make up a measurement.
    """
    return read_acquisitions(xml, Acquisitions.from_objects(acquisitions, source), encoding)


def read_acquisitions(xml: bytes, acquisitions: Acquisitions, encoding: int | None = None) -> RawData:
    """Read acquisitions from wherever they are.

    Args:
        xml (bytes): The XML header.
        acquisitions (Acquisitions): All acquisitions.
        encoding (int or None): Number of the encoding to read, see :func:`read_raw`.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If header and acquisitions do not make up a measurement.
    """
    measurement = Measurement.prepare(parse_header(xml, acquisitions.source), acquisitions, encoding)
    cartesian = measurement.is_cartesian
    if cartesian:
        _check_lines(measurement)
    if not measurement.encoding.trajectory:
        _logger.info("The header names no trajectory: read as %s.", "Cartesian" if cartesian else "non-Cartesian")
    raw = read_cartesian(measurement) if cartesian else read_noncartesian(measurement)
    if not raw.ksp.any():
        raise InputError(acquisitions.source, "all samples are zero", "measure again, or convert the raw data again")
    return raw


def _check_lines(measurement: Measurement) -> None:
    """Refuse readouts that are called Cartesian and carry trajectories that are not parallel lines."""
    image = np.flatnonzero(measurement.classes.image & (measurement.headers["trajectory_dimensions"] >= 2))
    wanted = np.zeros(len(measurement.acquisitions), bool)
    wanted[image[:: max(1, len(image) // N_PROBES)]] = True
    extents = [np.ptp(coord[..., :2], axis=1) for _, _, coord in measurement.trajectories(wanted) if coord.shape[1]]
    if not extents:
        return
    across, along = np.sort(np.concatenate(extents), axis=1).T
    if np.mean(across > PARALLEL_TOLERANCE * along) > 0.5:
        raise InputError(
            measurement.acquisitions.location,
            f"the header says {measurement.encoding.trajectory or 'Cartesian'}, but the readouts have trajectories that"
            " are not parallel to an axis",
            "correct the trajectory in the header, such as radial",
        )

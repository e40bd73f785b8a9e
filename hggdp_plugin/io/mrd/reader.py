"""ISMRMRD (MRD) raw data: from an HDF5 file to k-space ready for reconstruction."""

import logging
import os

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.cartesian import nearest_heads, place_cartesian, plan_cartesian
from hggdp_plugin.io.mrd.classify import Frames, Selection, central_heads, find_frames, select
from hggdp_plugin.io.mrd.hdf5 import Lines, open_lines
from hggdp_plugin.io.mrd.header import Encoding, Header, parse_header
from hggdp_plugin.io.mrd.noise import measure_noise, noise_scale, whitening_matrix
from hggdp_plugin.io.mrd.noncartesian import read_trajectory
from hggdp_plugin.io.raw import RawData, Shape3, Size3

CARTESIAN = ("cartesian", "epi")

_logger = logging.getLogger(__name__)


def read_raw(path: str | os.PathLike[str], group: str | None = None) -> RawData:
    """Reads an ISMRMRD raw-data file.

    Lines are sorted by their flags and counters, reversed and aligned, cropped to the field of view along the readout,
    whitened with the noise scan where there is one, and averaged. The file is opened for reading only.

    Args:
        path (path): HDF5 file.
        group (str or None): group of the file that holds the measurement; by default ``dataset``, else the only one.

    Returns:
        RawData: the measurement.

    Raises:
        InputError: the file cannot be used; its text says in one line why, and what to do.
    """
    with open_lines(path, group) as (xml, lines):
        return sort_lines(parse_header(xml, lines.where), lines)


def sort_lines(header: Header, lines: Lines) -> RawData:
    """Makes k-space of acquisitions, from a file or from elsewhere.

    Args:
        header (Header): the parsed XML header.
        lines (Lines): the acquisitions.

    Returns:
        RawData: the measurement.

    Raises:
        InputError: header and acquisitions do not make up a measurement.
    """
    selection = select(lines, header)
    frames = find_frames(lines.heads, selection.image)
    _logger.info(
        f"{len(lines.heads)} lines: {int(selection.image.sum())} image, {int(selection.calibration.sum())}"
        f" calibration, {int(selection.noise.sum())} noise."
    )
    whiten, noise_cov = _whitening(header, lines, selection)
    if _is_cartesian(selection, lines):
        raw = _cartesian(header, lines, selection, frames, whiten, noise_cov)
    else:
        raw = _other(header, lines, selection, frames, whiten, noise_cov)
    if not raw.ksp.any():
        raise InputError(lines.where, "all samples are zero", "measure again, or convert the raw data again")
    return raw


def _is_cartesian(selection: Selection, lines: Lines) -> bool:
    name = selection.encoding.trajectory
    if name in CARTESIAN:
        return True
    if not name and not lines.heads["trajectory_dimensions"][selection.image].any():
        _logger.info("The header names no trajectory and the lines carry none: read as Cartesian.")
        return True
    return False


def _whitening(header: Header, lines: Lines, selection: Selection) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Finds the whitening matrix, complex64 (coils, coils), and the noise covariance; None where there are none."""
    cov = measure_noise(lines, selection)
    if cov is None:
        return None, None
    whiten = whitening_matrix(cov)
    if whiten is None:
        _logger.info("The noise covariance is singular: the data are not whitened.")
        return None, cov.astype(np.complex64)
    whiten = whiten * noise_scale(lines, selection, header.noise_bandwidth)
    return whiten.astype(np.complex64), cov.astype(np.complex64)


def _cartesian(
    header: Header,
    lines: Lines,
    selection: Selection,
    frames: Frames,
    whiten: np.ndarray | None,
    noise_cov: np.ndarray | None,
) -> RawData:
    plan = plan_cartesian(lines, selection, frames)
    ksp, mask, calib, calib_mask = place_cartesian(lines, selection, frames, plan, whiten)
    filled = np.bincount(frames.number[selection.image], minlength=1)
    if empty := int(np.prod(frames.shape)) - np.count_nonzero(filled):
        _logger.info(f"{empty} of {int(np.prod(frames.shape))} frames have no lines: they are zero.")
    fov_shape, image_shape, fov = _image_matrix(selection.encoding, plan.is_3d, frames.shape[-1], plan.readout.cropped)
    return RawData(
        ksp=ksp,
        mask=mask,
        coord=None,
        calib=calib,
        calib_mask=calib_mask,
        trajectory=selection.encoding.trajectory or "cartesian",
        is_3d=plan.is_3d,
        whitened=whiten is not None,
        noise_cov=noise_cov,
        grid=(ksp.shape[-2], ksp.shape[-1]),
        fov_shape=fov_shape,
        image_shape=image_shape,
        fov=fov,
        acq_headers=nearest_heads(lines, frames, plan),
        header=header.xml,
        source=lines.where,
    )


def _other(
    header: Header,
    lines: Lines,
    selection: Selection,
    frames: Frames,
    whiten: np.ndarray | None,
    noise_cov: np.ndarray | None,
) -> RawData:
    ksp, coord, distance = read_trajectory(lines, selection, frames, whiten)
    __, image_shape, fov = _image_matrix(selection.encoding, False, frames.shape[-1], None)
    return RawData(
        ksp=ksp,
        mask=None,
        coord=coord,
        calib=None,
        calib_mask=None,
        trajectory=selection.encoding.trajectory,
        is_3d=False,
        whitened=whiten is not None,
        noise_cov=noise_cov,
        grid=image_shape[1:],
        fov_shape=image_shape,
        image_shape=image_shape,
        fov=fov,
        acq_headers=central_heads(lines.heads, frames, distance),
        header=header.xml,
        source=lines.where,
    )


def _image_matrix(encoding: Encoding, is_3d: bool, slices: int, readout: int | None) -> tuple[Shape3, Shape3, Size3]:
    """Works out fov_shape , image_shape and fov of the final image."""
    encoded, recon = encoding.encoded, encoding.recon
    measured = [max(1, round(n * r / e)) for n, r, e in zip(encoded.matrix, recon.fov, encoded.fov, strict=True)]
    x, y, z = measured
    nx, ny, nz = recon.matrix
    image_shape = Shape3(nz * slices if is_3d else slices, ny, nx)
    return Shape3(z if is_3d else slices, y, x), image_shape, Size3(*recon.fov[::-1])

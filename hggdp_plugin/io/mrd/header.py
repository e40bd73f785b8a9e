"""The XML header of an ISMRMRD file, reduced to what a reconstruction needs."""

import logging
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import NoReturn

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.raw import MAX_MATRIX, Shape3, Size3

_logger = logging.getLogger(__name__)

#: Elements of the encoding limits along ky and kz.
ENCODING_STEPS = ("kspace_encoding_step_1", "kspace_encoding_step_2")
#: Largest plausible field of view, in mm.
MAX_FOV = 1e5
#: Largest plausible ratio of recon matrix to encoded matrix.
MAX_ZOOM = 8
#: Ratio of recon to encoded field of view up to which they count as equal.
FOV_EXCESS = 1.05
#: Range of plausible relative receiver noise bandwidths.
BANDWIDTH_RANGE = (0.1, 10.0)


@dataclass(frozen=True)
class Space:
    """Matrix and field of view of an encoding or image space."""

    matrix: Shape3
    fov: Size3


@dataclass(frozen=True)
class Encoding:
    """One ``<encoding>`` of the header.

    Attributes:
        trajectory (str): Name of the trajectory, in lower case.
        encoded (Space): What is measured, oversampling included.
        recon (Space): The final image.
        ky_center (int or None): ``kspace_encode_step_1`` at the k-space center; None if the header has no limits.
        kz_center (int or None): ``kspace_encode_step_2`` at the k-space center.
        multiband_factor (int): Number of slices that are excited simultaneously.
    """

    trajectory: str
    encoded: Space
    recon: Space
    ky_center: int | None
    kz_center: int | None
    multiband_factor: int = 1

    @property
    def fov_shape(self) -> Shape3:
        """Voxels in the field of view of the image, at the measured resolution: the oversampling is cropped."""
        matrix, encoded, recon = self.encoded.matrix, self.encoded.fov, self.recon.fov
        return Shape3(*(max(1, round(n * r / e)) for n, r, e in zip(matrix, recon, encoded, strict=True)))


@dataclass(frozen=True)
class Header:
    """What the XML header says.

    Attributes:
        xml (str): The header as it stands in the file.
        encodings (tuple of Encoding): In file order; ``encoding_space_ref`` of an acquisition counts them.
        noise_bandwidth (float or None): ``relativeReceiverNoiseBandwidth``.
        vendor (str): ``systemVendor``, in lower case.
    """

    xml: str
    encodings: tuple[Encoding, ...]
    noise_bandwidth: float | None
    vendor: str = ""

    @property
    def against_directions(self) -> bool:
        """Whether image axes run against the directions in the acquisition headers.

        Siemens gives directions that fit a forward Fourier transform from k-space to the image. The inverse transform,
        which is usual, mirrors the image along all encoded axes.
        """
        return "siemens" in self.vendor


class _Builder(ET.TreeBuilder):
    """Build the tree, but refuse a document type: that is where entities, and bombs made of them, are declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("it has a DOCTYPE (entity declarations), which no MRD header needs")


def parse_header(xml: bytes, source: str) -> Header:
    """Parse an ISMRMRD XML header, without expanding any entity.

    Args:
        xml (bytes): The document.
        source (str): File and group, for messages.

    Returns:
        Header: Matrices, fields of view, trajectories and limits.

    Raises:
        InputError: If the XML is broken or unsafe, or lacks a valid encoding.
    """
    where = f"{source}/xml"
    parser = ET.XMLParser(target=_Builder())
    try:
        parser.feed(xml)
        root = parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InputError(where, f"the XML header cannot be parsed ({error})", "convert the raw data again") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != "ismrmrdHeader":
        raise InputError(where, f"the XML is a <{root.tag}>, not an <ismrmrdHeader>", "convert the raw data again")
    encodings = tuple(_encoding(node, f"{where} encoding {i}") for i, node in enumerate(root.findall("encoding")))
    if not encodings:
        raise InputError(where, "the header has no <encoding>", "convert the raw data again")
    bandwidth = _number(root, "acquisitionSystemInformation/relativeReceiverNoiseBandwidth", where)
    if bandwidth is not None and not BANDWIDTH_RANGE[0] < bandwidth < BANDWIDTH_RANGE[1]:
        _logger.warning("The receiver noise bandwidth of %g in the header is not plausible: ignored.", bandwidth)
        bandwidth = None
    vendor = (root.findtext("acquisitionSystemInformation/systemVendor") or "").lower()
    return Header(xml.decode("utf-8", errors="replace"), encodings, bandwidth, vendor)


def _encoding(node: ET.Element, where: str) -> Encoding:
    encoded = _space(node.find("encodedSpace"), f"{where} encodedSpace")
    if encoded is None:
        raise InputError(where, "there is no <encodedSpace>", "add the encoded matrix and field of view")
    recon = _space(node.find("reconSpace"), f"{where} reconSpace")
    if recon is None:
        _logger.warning("The header has no reconSpace: the encoded matrix is used.")
        recon = encoded
    if max(recon.matrix) > MAX_ZOOM * max(encoded.matrix):
        raise InputError(
            where,
            f"the recon matrix {recon.matrix[::-1]} is far beyond the encoded one {encoded.matrix[::-1]}",
            "correct the matrix sizes",
        )
    for axis in ("x", "y"):
        inner, outer = getattr(recon.fov, axis), getattr(encoded.fov, axis)
        if inner > FOV_EXCESS * outer:
            _logger.warning(
                "The field of view of the image along %s is %g mm in the header, beyond the encoded %g mm:"
                " the rest is zero.",
                axis,
                inner,
                outer,
            )
    trajectory = (node.findtext("trajectory") or "").strip().lower()
    limits = node.find("encodingLimits")
    ky_center, kz_center = (_center(limits, step, where) for step in ENCODING_STEPS)
    multiband = _number(node, "parallelImaging/multiband/multiband_factor", where) or 1.0
    return Encoding(trajectory, encoded, recon, ky_center, kz_center, int(multiband))


def _center(limits: ET.Element | None, step: str, where: str) -> int | None:
    limit = None if limits is None else limits.find(step)
    center = None if limit is None else _number(limit, "center", f"{where} {step}")
    if center is not None and abs(center) > MAX_MATRIX:
        raise InputError(where, f"the center of {step} is {center:g}", "correct the encoding limits")
    return None if center is None else int(center)


def _space(node: ET.Element | None, where: str) -> Space | None:
    if node is None:
        return None
    matrix = [_number(node, f"matrixSize/{axis}", where) for axis in "xyz"]
    fov = [_number(node, f"fieldOfView_mm/{axis}", where) for axis in "xyz"]
    if any(n is None or not 1 <= n <= MAX_MATRIX or n != int(n) for n in matrix):
        raise InputError(
            where,
            f"the matrix {_show(matrix)} is not three whole numbers from 1 to {MAX_MATRIX}",
            "correct the matrix size",
        )
    if any(f is None or not 0 < f < MAX_FOV for f in fov[:2]):
        raise InputError(where, f"the field of view {_show(fov)} mm is not positive", "correct the field of view")
    thickness = fov[2]
    if thickness is None or not 0 < thickness < MAX_FOV:
        _logger.warning("The field of view along z is %s in the header: 1 mm is used.", thickness)
        thickness = 1.0
    nx, ny, nz = (int(n or 0) for n in matrix)
    return Space(Shape3(nz, ny, nx), Size3(thickness, float(fov[1] or 0), float(fov[0] or 0)))


def _show(values: list[float | None]) -> str:
    return " x ".join("missing" if v is None else f"{v:g}" for v in values)


def _number(node: ET.Element, path: str, where: str) -> float | None:
    text = node.findtext(path)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(where, f"{path} is {text[:40]!r}, not a number", "correct the header")
    return value

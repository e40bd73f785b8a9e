"""The XML header of an ISMRMRD file, reduced to what a reconstruction needs."""

import logging
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import NoReturn

from hggdp_plugin.io.files import InputError

_logger = logging.getLogger(__name__)

#: Counters are 16 bit, so no matrix of a readable file is larger.
MAX_MATRIX = 65535


@dataclass(frozen=True)
class Space:
    """Matrix and field of view of an encoding or image space, both in the order (x, y, z)."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]  # mm


@dataclass(frozen=True)
class Encoding:
    """One ``<encoding>``: the trajectory's name in lower case, the spaces and the centres of the encoding steps."""

    trajectory: str
    encoded: Space
    recon: Space
    centre_1: int | None  # kspace_encode_step_1 at the k-space centre; None where the header has no limits
    centre_2: int | None


@dataclass(frozen=True)
class Header:
    """What the XML header says.

    Attributes:
        xml (str): the header as it stands in the file.
        encodings (tuple of Encoding): in file order; an acquisition's ``encoding_space_ref`` counts them.
        noise_bandwidth (float or None): ``relativeReceiverNoiseBandwidth``.
    """

    xml: str
    encodings: tuple[Encoding, ...]
    noise_bandwidth: float | None


class _Builder(ET.TreeBuilder):
    """Builds the tree, but takes no document type: that is where entities, and bombs made of them, are declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("it has a DOCTYPE (entity declarations), which no MRD header needs")


def parse_header(xml: bytes, where: str) -> Header:
    """Parses an ISMRMRD XML header, without expanding any entity.

    Args:
        xml (bytes): the document.
        where (str): file and group, for messages.

    Returns:
        Header: matrices, fields of view, trajectories and limits.

    Raises:
        InputError: the XML is broken or unsafe, or lacks a valid encoding.
    """
    where = f"{where}/xml"
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
    if bandwidth is not None and not 0.1 < bandwidth < 10:
        _logger.warning(f"The receiver's noise bandwidth of {bandwidth:g} in the header is not plausible.")
        bandwidth = None
    return Header(xml.decode("utf-8", errors="replace"), encodings, bandwidth)


def _encoding(node: ET.Element, where: str) -> Encoding:
    encoded = _space(node.find("encodedSpace"), f"{where} encodedSpace")
    if encoded is None:
        raise InputError(where, "there is no <encodedSpace>", "add the encoded matrix and field of view")
    recon = _space(node.find("reconSpace"), f"{where} reconSpace")
    if recon is None:
        _logger.warning("The header has no reconSpace: the encoded matrix is taken.")
        recon = encoded
    if max(recon.matrix) > 8 * max(encoded.matrix):
        raise InputError(
            where,
            f"the recon matrix {recon.matrix} is far beyond the encoded one {encoded.matrix}",
            "correct the matrix sizes",
        )
    trajectory = (node.findtext("trajectory") or "").strip().lower()
    limits = node.find("encodingLimits")
    centres = []
    for step in ("1", "2"):
        limit = None if limits is None else limits.find(f"kspace_encoding_step_{step}")
        centre = None if limit is None else _number(limit, "center", f"{where} kspace_encoding_step_{step}")
        if centre is not None and abs(centre) > MAX_MATRIX:
            raise InputError(where, f"the centre of encoding step {step} is {centre:g}", "correct the encoding limits")
        centres.append(None if centre is None else int(centre))
    return Encoding(trajectory, encoded, recon, *centres)


def _space(node: ET.Element | None, where: str) -> Space | None:
    if node is None:
        return None
    matrix = tuple(_number(node, f"matrixSize/{axis}", where) for axis in "xyz")
    fov = tuple(_number(node, f"fieldOfView_mm/{axis}", where) for axis in "xyz")
    if any(n is None or not 1 <= n <= MAX_MATRIX or n != int(n) for n in matrix):
        raise InputError(
            where,
            f"the matrix {_show(matrix)} is not three whole numbers from 1 to {MAX_MATRIX}",
            "correct the matrix size",
        )
    if any(f is None or not 0 < f < 1e5 for f in fov[:2]):
        raise InputError(where, f"the field of view {_show(fov)} mm is not positive", "correct the field of view")
    thickness = fov[2]
    if thickness is None or not 0 < thickness < 1e5:
        _logger.warning(f"The field of view along z is {thickness}: 1 mm is taken.")
        thickness = 1.0
    nx, ny, nz = (int(n or 0) for n in matrix)
    return Space((nx, ny, nz), (float(fov[0] or 0), float(fov[1] or 0), thickness))


def _show(values: tuple[float | None, ...]) -> str:
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

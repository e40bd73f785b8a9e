"""Which encoding of a file is reconstructed, where the header has several."""

import logging

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.acquisitions import Acquisitions
from hggdp_plugin.io.mrd.header import Encoding, Header

_logger = logging.getLogger(__name__)


def choose_encoding(acquisitions: Acquisitions, header: Header, image: np.ndarray, number: int | None) -> int:
    """Choose the encoding to reconstruct: the one of the finest resolution, and among equals of most acquisitions.

    Args:
        acquisitions (Acquisitions): All acquisitions.
        header (Header): The XML header.
        image (array): Which of them are image acquisitions, bool (acquisitions,).
        number (int or None): The encoding that the user asks for.

    Returns:
        int: Number of the encoding in the header.

    Raises:
        InputError: If the encoding asked for has no image acquisitions, or none that is used is in the header.
    """
    spaces = acquisitions.headers["encoding_space_ref"]
    used = [int(n) for n in np.unique(spaces[image])]
    present = [n for n in used if n < len(header.encodings)]
    if number is not None:
        if number not in present:
            names = ", ".join(map(str, present)) or "no encoding"
            raise InputError(
                acquisitions.source, f"encoding {number} has no image acquisitions", f"choose one of: {names}"
            )
        return number
    if not present:
        raise InputError(
            acquisitions.location_of(int(np.argmax(image))),
            f"it refers to encoding {used[0]}, the header has {len(header.encodings)}",
            "correct encoding_space_ref or the header",
        )
    headers = {n: acquisitions.headers[image & (spaces == n)] for n in present}
    chosen = max(present, key=lambda n: (_resolution(headers[n], header.encodings[n]), len(headers[n]), -n))
    if len(present) > 1:
        others = ", ".join(_describe(n, header.encodings[n], spaces[image]) for n in present if n != chosen)
        described = _describe(chosen, header.encodings[chosen], spaces[image])
        _logger.warning("Encoding %s is reconstructed, not %s; --encoding chooses another.", described, others)
    return chosen


def _resolution(headers: np.ndarray, encoding: Encoding) -> int:
    """Return voxels per volume, by the extent of k-space that acquisitions cover, as a number of 10 % steps."""
    fov, idx = encoding.encoded.fov, headers["idx"]
    extent = [np.ptp(idx[name].astype(int)) + 1 for name in ("kspace_encode_step_2", "kspace_encode_step_1")]
    voxels = np.prod([*extent, headers["number_of_samples"].max()], dtype=float)
    return round(np.log(max(voxels, 1) / np.prod(fov)) / np.log(1.1))


def _describe(number: int, encoding: Encoding, spaces: np.ndarray) -> str:
    matrix = encoding.recon.matrix
    size = f"{matrix.y} x {matrix.x}" if matrix.z == 1 else " x ".join(map(str, matrix))
    return f"{number} ({size}, {int((spaces == number).sum())} image acquisitions)"

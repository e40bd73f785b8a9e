"""Sort acquisitions by purpose: image, calibration or noise."""

import logging
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import constants
from hggdp_plugin.io.mrd.acquisitions import Acquisitions
from hggdp_plugin.io.mrd.header import Encoding, Header

_logger = logging.getLogger(__name__)

#: Flags of acquisitions that belong to no image, with their names in log lines.
NOT_IMAGE = {
    constants.ACQ_IS_NOISE_MEASUREMENT: "noise",
    constants.ACQ_IS_NAVIGATION_DATA: "navigation",
    constants.ACQ_IS_PHASECORR_DATA: "phase correction",
    constants.ACQ_IS_HPFEEDBACK_DATA: "HP feedback",
    constants.ACQ_IS_DUMMYSCAN_DATA: "dummy",
    constants.ACQ_IS_RTFEEDBACK_DATA: "real-time feedback",
    constants.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA: "surface-coil correction",
    constants.ACQ_IS_PHASE_STABILIZATION_REFERENCE: "phase stabilization reference",
    constants.ACQ_IS_PHASE_STABILIZATION: "phase stabilization",
}


@dataclass(frozen=True)
class Classes:
    """The acquisitions of one encoding by purpose.

    Attributes:
        encoding (Encoding): The encoding of the image.
        image (array): Image acquisitions, bool (acquisitions,). They agree in channels and samples.
        calibration (array): Acquisitions for coil calibration, some of which may be image acquisitions too.
        noise (array): Noise acquisitions.
    """

    encoding: Encoding
    image: np.ndarray
    calibration: np.ndarray
    noise: np.ndarray


def classify(acquisitions: Acquisitions, header: Header) -> Classes:
    """Sort acquisitions by purpose and leave out those that cannot be used together.

    Args:
        acquisitions (Acquisitions): All acquisitions.
        header (Header): The XML header.

    Returns:
        Classes: One encoding, with at least one image acquisition.

    Raises:
        InputError: If there is no image acquisition, or image acquisitions contradict each other.
    """
    flagged = acquisitions.flagged
    noise = flagged(constants.ACQ_IS_NOISE_MEASUREMENT)
    other = _not_image(acquisitions)
    both = flagged(constants.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    calibration_only = flagged(constants.ACQ_IS_PARALLEL_CALIBRATION) & ~both
    image = ~other & ~calibration_only
    calibration = ~other & (both | calibration_only)
    if not image.any():
        kinds = sorted({name for flag, name in NOT_IMAGE.items() if flagged(flag).any()})
        kinds += ["calibration"] if calibration.any() else []
        raise InputError(
            acquisitions.location,
            f"there are no image acquisitions, only {', '.join(kinds)}",
            "give the file of the image measurement",
        )
    for flag, name in NOT_IMAGE.items():
        if flag != constants.ACQ_IS_NOISE_MEASUREMENT and (count := int((flagged(flag) & other).sum())):
            _logger.info("%d %s acquisitions are left out.", count, name)

    number = int(acquisitions.headers["encoding_space_ref"][image].min())
    encoding = _encoding(acquisitions, header, number, image)
    image, calibration = _of_encoding(acquisitions, header, number, image, calibration)
    _check_agreement(acquisitions, image, "active_channels", "channels")
    _check_agreement(acquisitions, image, "number_of_samples", "samples")
    return Classes(encoding, image, _matching(acquisitions, image, calibration), noise)


def _not_image(acquisitions: Acquisitions) -> np.ndarray:
    surface_coil = acquisitions.flagged(constants.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA)
    flags = [flag for flag in NOT_IMAGE if flag != constants.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA]
    other: np.ndarray = np.any([acquisitions.flagged(flag) for flag in flags], axis=0)
    # Some converters set this flag on all image acquisitions.
    return other | surface_coil if (~other & ~surface_coil).any() else other


def _encoding(acquisitions: Acquisitions, header: Header, number: int, image: np.ndarray) -> Encoding:
    if number < len(header.encodings):
        return header.encodings[number]
    raise InputError(
        acquisitions.location_of(int(np.argmax(image & (acquisitions.headers["encoding_space_ref"] == number)))),
        f"it refers to encoding {number}, the header has {len(header.encodings)}",
        "correct encoding_space_ref or the header",
    )


def _of_encoding(
    acquisitions: Acquisitions, header: Header, number: int, image: np.ndarray, calibration: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image acquisitions of an encoding, and the calibration acquisitions on the same matrix."""
    spaces = acquisitions.headers["encoding_space_ref"]
    mine = spaces == number
    alike = [i for i, other in enumerate(header.encodings) if other.encoded == header.encodings[number].encoded]
    usable = np.isin(spaces, alike)
    dropped = int((image & ~mine).sum()) + int((calibration & ~image & ~usable).sum())
    if dropped:
        _logger.info("%d acquisitions of other encodings than number %d are left out.", dropped, number)
    return image & mine, calibration & np.where(image, mine, usable)


def _check_agreement(acquisitions: Acquisitions, image: np.ndarray, field: str, unit: str) -> None:
    numbers = np.flatnonzero(image)
    values = acquisitions.headers[field][numbers]
    if values[0] == 0:
        raise InputError(acquisitions.location, "the image acquisitions hold no samples", "convert the raw data again")
    odd = np.flatnonzero(values != values[0])
    if odd.size:
        raise InputError(
            acquisitions.location_of(numbers[odd[0]]),
            f"it has {values[odd[0]]} {unit}, acquisition {numbers[0]} has {values[0]}",
            "convert one kind of readout per file",
        )


def _matching(acquisitions: Acquisitions, image: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Return the calibration acquisitions with as many channels and samples as the image acquisitions."""
    headers = acquisitions.headers
    first = headers[image][0]
    alike = (headers["active_channels"] == first["active_channels"]) & (
        headers["number_of_samples"] == first["number_of_samples"]
    )
    if (calibration & ~alike).any():
        _logger.info(
            "%d calibration acquisitions of another size than the image's are left out.",
            int((calibration & ~alike).sum()),
        )
    return calibration & alike

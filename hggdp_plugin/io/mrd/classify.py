"""Sort acquisitions by purpose: image, calibration or noise."""

import logging
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import constants
from hggdp_plugin.io.mrd.acquisitions import Acquisitions
from hggdp_plugin.io.mrd.encodings import choose_encoding
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
        calibration (array): Acquisitions for coil calibration on the matrix of the image, some of which may be image
            acquisitions too.
        noise (array): Noise acquisitions.
        reference_encoding (Encoding or None): The encoding of a reference scan on another matrix.
        reference (array): Its acquisitions.
    """

    encoding: Encoding
    image: np.ndarray
    calibration: np.ndarray
    noise: np.ndarray
    reference_encoding: Encoding | None
    reference: np.ndarray


def classify(acquisitions: Acquisitions, header: Header, encoding: int | None = None) -> Classes:
    """Sort acquisitions by purpose and leave out those that cannot be used together.

    Args:
        acquisitions (Acquisitions): All acquisitions.
        header (Header): The XML header.
        encoding (int or None): Number of the encoding to reconstruct; None: see :func:`choose_encoding`.

    Returns:
        Classes: One encoding, with at least one image acquisition.

    Raises:
        InputError: If there is no image acquisition, image acquisitions contradict each other, or slices were excited
            simultaneously.
    """
    flagged = acquisitions.flagged
    noise = flagged(constants.ACQ_IS_NOISE_MEASUREMENT)
    other = _not_image(acquisitions)
    both = flagged(constants.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    calibration_only = flagged(constants.ACQ_IS_PARALLEL_CALIBRATION) & ~both
    image = ~other & ~calibration_only
    calibration = ~other & (both | calibration_only)
    _check_any(acquisitions, image, calibration)
    for flag, name in NOT_IMAGE.items():
        if flag != constants.ACQ_IS_NOISE_MEASUREMENT and (count := int((flagged(flag) & other).sum())):
            _logger.info("%d %s acquisitions are left out.", count, name)

    spaces = acquisitions.headers["encoding_space_ref"]
    number = choose_encoding(acquisitions, header, image, encoding)
    chosen = header.encodings[number]
    if chosen.multiband_factor > 1:
        raise InputError(
            acquisitions.source,
            f"{chosen.multiband_factor} slices were excited simultaneously (multiband) and cannot be separated",
            "separate the slices first, or measure without multiband",
        )
    mine = spaces == number
    _check_agreement(acquisitions, image & mine, "active_channels", "channels")
    _check_agreement(acquisitions, image & mine, "number_of_samples", "samples")
    same_matrix = np.isin(spaces, [i for i, e in enumerate(header.encodings) if e.encoded == chosen.encoded])
    usable = calibration & np.where(image, mine, same_matrix)
    reference_number, reference = _reference(acquisitions, header, image, calibration, same_matrix)
    dropped = int(((image | calibration) & ~(image & mine) & ~usable & ~reference).sum())
    if dropped:
        _logger.info("%d acquisitions of other encodings than number %d are left out.", dropped, number)
    return Classes(
        chosen,
        image & mine,
        _with_channels(acquisitions, usable, image & mine),
        noise,
        None if reference_number is None else header.encodings[reference_number],
        _with_channels(acquisitions, reference, image & mine),
    )


def _not_image(acquisitions: Acquisitions) -> np.ndarray:
    surface_coil = acquisitions.flagged(constants.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA)
    flags = [flag for flag in NOT_IMAGE if flag != constants.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA]
    other: np.ndarray = np.any([acquisitions.flagged(flag) for flag in flags], axis=0)
    # Some converters set this flag on all image acquisitions.
    return other | surface_coil if (~other & ~surface_coil).any() else other


def _check_any(acquisitions: Acquisitions, image: np.ndarray, calibration: np.ndarray) -> None:
    if image.any():
        return
    kinds = sorted({name for flag, name in NOT_IMAGE.items() if acquisitions.flagged(flag).any()})
    kinds += ["calibration"] if calibration.any() else []
    raise InputError(
        acquisitions.location,
        f"there are no image acquisitions, only {', '.join(kinds)}",
        "give the file of the image measurement",
    )


def _reference(
    acquisitions: Acquisitions, header: Header, image: np.ndarray, calibration: np.ndarray, same_matrix: np.ndarray
) -> tuple[int | None, np.ndarray]:
    """Find a reference scan on another matrix: calibration acquisitions, or else those of another image."""
    spaces = acquisitions.headers["encoding_space_ref"]
    elsewhere = ~same_matrix & (spaces < len(header.encodings))
    for candidates in (elsewhere & calibration, elsewhere & image):
        if candidates.any():
            number = int(np.bincount(spaces[candidates]).argmax())
            return number, candidates & (spaces == number)
    return None, np.zeros(len(acquisitions), bool)


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


def _with_channels(acquisitions: Acquisitions, wanted: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the calibration acquisitions with as many channels as the image acquisitions, and with samples."""
    headers = acquisitions.headers
    alike = headers["active_channels"] == headers["active_channels"][image][0]
    alike &= headers["number_of_samples"] > 0
    if (wanted & ~alike).any():
        _logger.warning("%d calibration acquisitions of other channels are left out.", int((wanted & ~alike).sum()))
    return wanted & alike

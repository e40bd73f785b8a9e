"""Readout oversampling, where header and acquisitions disagree on it."""

import logging
from dataclasses import replace

import numpy as np
from scipy import fft

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import constants
from hggdp_plugin.io.mrd.acquisitions import Acquisitions, flagged
from hggdp_plugin.io.mrd.header import Encoding

_logger = logging.getLogger(__name__)

#: Readouts that are looked at to find how much of the field of view the object fills.
N_PROBES = 32
#: Part of the energy outside the field of view of the image from which on the object reaches beyond it, and fills it.
BEYOND_FRACTION, FILLED_FRACTION = 0.03, 0.15


def fit_readout(encoding: Encoding, acquisitions: Acquisitions, image: np.ndarray) -> Encoding:
    """Correct the readout of an encoding to what the acquisitions hold.

    Some scanners and converters give the encoded matrix without the oversampling that the acquisitions still have;
    others remove the oversampling from the acquisitions but not from the header.

    Args:
        encoding (Encoding): The encoding in the header.
        acquisitions (Acquisitions): All acquisitions.
        image (array): Which of them belong to the encoding, bool (acquisitions,).

    Returns:
        Encoding: With the matrix and the field of view of a complete readout.

    Raises:
        InputError: If the acquisitions fit neither the encoded matrix nor a multiple of it.
    """
    n_encoded, n_image = encoding.encoded.matrix.x, encoding.fov_shape.x
    lengths = _complete_lengths(acquisitions, image)
    length = int(lengths[0])
    if len(lengths) > 1:
        return encoding
    if length > n_encoded and length % n_encoded == 0:
        factor = length // n_encoded
        outside = _fraction_outside(acquisitions, image, factor)
        if outside > FILLED_FRACTION:
            raise InputError(
                acquisitions.location,
                f"the readouts have {length} samples, the encoded matrix {n_encoded}, and the object fills the field of"
                f" view of all {length} ({100 * outside:.0f} % of the energy lies outside the middle)",
                "correct the encoded matrix and field of view in the header",
            )
        report = _logger.info if outside < BEYOND_FRACTION else _logger.warning
        report(
            "Readouts have %d samples, the encoded matrix %d: read as %d-fold oversampling that the header leaves out.",
            length,
            n_encoded,
            factor,
        )
        return _with_readout(encoding, length, encoding.encoded.fov.x * factor)
    if length < n_encoded and length == n_image and n_encoded % length == 0:
        factor = n_encoded // length
        certain = _fraction_outside(acquisitions, image, factor) > BEYOND_FRACTION
        report = _logger.info if certain else _logger.warning
        report(
            "Readouts have %d samples, the encoded matrix %d: read as %d-fold oversampling that was removed before.",
            length,
            n_encoded,
            factor,
        )
        return _with_readout(encoding, length, encoding.recon.fov.x)
    return encoding


def _with_readout(encoding: Encoding, length: int, fov: float) -> Encoding:
    encoded = encoding.encoded
    encoded = replace(encoded, matrix=encoded.matrix._replace(x=length), fov=encoded.fov._replace(x=fov))
    return replace(encoding, encoded=encoded)


def _complete_lengths(acquisitions: Acquisitions, image: np.ndarray) -> np.ndarray:
    """Return the lengths of the readouts once asymmetric echoes are complete."""
    headers = acquisitions.headers[image]
    count = acquisitions.kept_samples(image)[image]
    center = headers["center_sample"].astype(np.int64) - headers["discard_pre"]
    center = np.where(flagged(headers, constants.ACQ_IS_REVERSE), count - 1 - center, center)
    # A center one sample off the middle follows from flipping, a center of 0 from not being set.
    complete = (np.abs(center - count // 2) <= 1) | (headers["center_sample"] == 0)
    return np.unique(np.where(complete, count, 2 * np.maximum(center, count - center)))


def _fraction_outside(acquisitions: Acquisitions, image: np.ndarray, factor: int) -> float:
    """Return the part of the energy outside the middle 1 / factor of the field of view of whole readouts."""
    idx = acquisitions.headers["idx"]
    wanted = np.zeros(len(acquisitions), bool)
    steps = [idx[name].astype(int) for name in ("kspace_encode_step_1", "kspace_encode_step_2")]
    distance = np.hypot(*[step - np.median(step[image]) for step in steps])
    numbers = np.flatnonzero(image)
    wanted[numbers[np.argsort(distance[numbers], kind="stable")[:N_PROBES]]] = True
    inside = total = 0.0
    for _, samples in acquisitions.samples(wanted):
        n = samples.shape[-1]
        with np.errstate(over="ignore", invalid="ignore"):  # refused when the data are read
            energy = (np.abs(fft.fftshift(fft.ifft(samples), axes=-1)) ** 2).sum(axis=(0, 1), dtype=np.float64)
        first = n // 2 - n // (2 * factor)
        inside += energy[first : first + n // factor].sum()
        total += energy.sum()
    return 1 - inside / total if total > 0 else 0.0

"""Noise covariance and prewhitening."""

import logging

import numpy as np

from hggdp_plugin.io.mrd.classify import Selection
from hggdp_plugin.io.mrd.hdf5 import Lines, check_finite

_logger = logging.getLogger(__name__)

#: Effective over nominal bandwidth of a Siemens receiver, assumed where the header does not say.
DEFAULT_BANDWIDTH = 0.793


def covariance(samples: np.ndarray) -> np.ndarray:
    r"""Estimates the covariance :math:`E[n n^H]` of noise between coils.

    Args:
        samples (array): noise of shape (lines, coils, samples).

    Returns:
        array: complex128, shape (coils, coils).
    """
    flat = np.moveaxis(samples, 1, 0).reshape(samples.shape[1], -1).astype(np.complex128)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat @ flat.conj().T / max(1, flat.shape[1] - 1)


def whitening_matrix(cov: np.ndarray) -> np.ndarray | None:
    r"""Inverts the Cholesky factor of a noise covariance.

    Args:
        cov (array): covariance, shape (coils, coils).

    Returns:
        array or None: :math:`W` such that :math:`E|(W n)_i|^2 = 1` and coils are uncorrelated; None if the covariance
        is singular.
    """
    scale = np.sqrt(np.abs(np.diag(cov)))
    if not (scale > 1e-20).all():  # a coil without noise; its inverse would overflow single precision
        return None
    correlation = cov / np.outer(scale, scale)  # condition number without the coils' gains
    try:
        factor = np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        return None
    if np.linalg.cond(factor) > 1e6:
        return None
    return np.linalg.inv(factor) / scale


def measure_noise(lines: Lines, selection: Selection) -> np.ndarray | None:
    """Reads the noise scan, if there is one that fits the image lines.

    Args:
        lines (Lines): all acquisitions.
        selection (Selection): which are noise and which image lines.

    Returns:
        array or None: noise covariance between coils as measured, complex128 (coils, coils).

    Raises:
        InputError: a noise sample is not finite.
    """
    coils = int(lines.heads["active_channels"][selection.image][0])
    usable = selection.noise & (lines.heads["active_channels"] == coils) & (lines.heads["number_of_samples"] > 0)
    if (count := int((selection.noise & ~usable).sum())) > 0:
        _logger.info(f"{count} noise lines without samples of {coils} channels are left out.")
    if not usable.any():
        _logger.info("There is no noise scan: the data are not whitened.")
        return None
    total: np.ndarray | float = 0.0
    weight = 0
    for numbers, samples in lines.samples(usable):
        check_finite(samples, numbers, lines.where)
        degrees = samples.shape[0] * samples.shape[2] - 1
        total = total + degrees * covariance(samples)
        weight += degrees
    if weight < coils:
        _logger.info(f"The noise scan has too few samples for {coils} channels: the data are not whitened.")
        return None
    return np.asarray(total) / weight


def noise_scale(lines: Lines, selection: Selection, bandwidth: float | None) -> float:
    r"""Scales noise of the noise scan to noise of the image lines.

    A sample's noise variance goes with the bandwidth, that is with one over the dwell time; the noise scan's effective
    bandwidth is smaller than its nominal one.

    Args:
        lines (Lines): all acquisitions.
        selection (Selection): which are noise and which image lines.
        bandwidth (float or None): effective over nominal receiver bandwidth of the noise scan.

    Returns:
        float: :math:`\sqrt{b\, t_\text{image} / t_\text{noise}}`, with which the whitening matrix is multiplied.
    """
    dwell = lines.heads["sample_time_us"]
    image, noise = float(np.median(dwell[selection.image])), float(np.median(dwell[selection.noise]))
    if not (0 < image < 1e6 and 0 < noise < 1e6):
        _logger.info("The file does not say the dwell times of noise and image: the noise scale is 1.")
        return 1.0
    if np.ptp(dwell[selection.image]) > 0.01 * image:
        _logger.info("The image lines' dwell times differ: their median scales the noise.")
    if bandwidth is None:
        bandwidth = DEFAULT_BANDWIDTH
        _logger.info(f"The header gives no receiver noise bandwidth: {bandwidth} is taken.")
    scale = float(np.sqrt(bandwidth * image / noise))
    _logger.info(
        f"Noise scale {scale:.3f} (dwell time {image:g} us, noise scan {noise:g} us, bandwidth {bandwidth:g})."
    )
    return scale

"""The noise scan: covariance of the noise between coils, and the prewhitening that follows from it."""

import logging
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.mrd.acquisitions import Acquisitions
from hggdp_plugin.io.mrd.classify import Classes
from hggdp_plugin.prewhitening import noise_covariance, whitening_matrix

_logger = logging.getLogger(__name__)

#: Effective over nominal bandwidth of a Siemens receiver, assumed where the header gives none.
DEFAULT_BANDWIDTH = 0.793
#: Dwell times in microseconds above this are not plausible.
MAX_DWELL_TIME = 1e6
#: Relative spread of dwell times above which a single noise scale is only approximate.
DWELL_TIME_TOLERANCE = 0.01


@dataclass(frozen=True)
class Prewhitening:
    """What the noise scan gives.

    Attributes:
        matrix (array or None): Whitening matrix, complex64 (coils, coils), scaled to the bandwidth of the image.
        covariance (array or None): Covariance of the noise scan as measured, complex64 (coils, coils).
    """

    matrix: np.ndarray | None = None
    covariance: np.ndarray | None = None


def find_prewhitening(acquisitions: Acquisitions, classes: Classes, bandwidth: float | None) -> Prewhitening:
    """Measure the noise covariance and invert it.

    Args:
        acquisitions (Acquisitions): All acquisitions.
        classes (Classes): Which of them are noise and which are image acquisitions.
        bandwidth (float or None): Effective over nominal receiver bandwidth of the noise scan.

    Returns:
        Prewhitening: Its matrix is None without a usable noise scan.

    Raises:
        InputError: If a noise sample is not finite.
    """
    cov = measure_noise(acquisitions, classes)
    if cov is None:
        return Prewhitening()
    matrix = whitening_matrix(cov)
    if matrix is None:
        _logger.warning("The noise covariance is singular: the data are not prewhitened.")
        return Prewhitening(covariance=cov.astype(np.complex64))
    matrix = matrix * noise_scale(acquisitions.headers["sample_time_us"], classes, bandwidth)
    return Prewhitening(matrix.astype(np.complex64), cov.astype(np.complex64))


def measure_noise(acquisitions: Acquisitions, classes: Classes) -> np.ndarray | None:
    """Read the noise scan, if there is one that fits the image acquisitions.

    Args:
        acquisitions (Acquisitions): All acquisitions.
        classes (Classes): Which of them are noise and which are image acquisitions.

    Returns:
        array or None: Noise covariance as measured, complex128 (coils, coils).

    Raises:
        InputError: If a noise sample is not finite.
    """
    headers = acquisitions.headers
    coils = int(headers["active_channels"][classes.image][0])
    usable = classes.noise & (headers["active_channels"] == coils) & (headers["number_of_samples"] > 0)
    if (count := int((classes.noise & ~usable).sum())) > 0:
        _logger.warning("%d noise acquisitions without samples of %d channels are left out.", count, coils)
    if not usable.any():
        _logger.info("There is no noise scan: the data are not prewhitened.")
        return None
    total: np.ndarray | float = 0.0  # the header may lie about the coils, so nothing is allocated yet
    weight = 0
    for numbers, samples in acquisitions.samples(usable):
        acquisitions.check_finite(samples, numbers)
        degrees = samples.shape[0] * samples.shape[2] - 1
        total = total + degrees * noise_covariance(samples)
        weight += degrees
    if weight < coils:
        _logger.warning("The noise scan has too few samples for %d channels: the data are not prewhitened.", coils)
        return None
    return np.asarray(total) / weight


def noise_scale(dwell_time: np.ndarray, classes: Classes, bandwidth: float | None) -> float:
    r"""Compute the factor from noise of the noise scan to noise of the image acquisitions.

    The noise variance of a sample is proportional to the bandwidth, one over the dwell time. The effective bandwidth
    of the noise scan is smaller than its nominal one.

    Args:
        dwell_time (array): Dwell time of each acquisition [us].
        classes (Classes): Which of them are noise and which are image acquisitions.
        bandwidth (float or None): Effective over nominal receiver bandwidth of the noise scan.

    Returns:
        float: :math:`\sqrt{b\, t_\text{image} / t_\text{noise}}`, the factor of the whitening matrix.

    References:
        Kellman, P., & McVeigh, E. R. (2005). Image reconstruction in SNR units: a general method for SNR measurement.
        MRM, 54(6), 1439-1447.
    """
    image, noise = float(np.median(dwell_time[classes.image])), float(np.median(dwell_time[classes.noise]))
    if not (0 < image < MAX_DWELL_TIME and 0 < noise < MAX_DWELL_TIME):
        _logger.warning("The file gives no dwell times of noise and image: the noise scale is 1.")
        return 1.0
    if np.ptp(dwell_time[classes.image]) > DWELL_TIME_TOLERANCE * image:
        _logger.warning("The dwell times of the image acquisitions differ: the noise scale follows their median.")
    if bandwidth is None:
        bandwidth = DEFAULT_BANDWIDTH
        _logger.info("The header gives no receiver noise bandwidth: %g is assumed.", bandwidth)
    scale = float(np.sqrt(bandwidth * image / noise))
    _logger.info("Noise scale %.3f (dwell time %g us, noise scan %g us, bandwidth %g).", scale, image, noise, bandwidth)
    return scale

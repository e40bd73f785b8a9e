"""Noise covariance between coils, and the matrix that whitens it."""

import numpy as np

#: Smallest standard deviation of a coil's noise: the inverse of a smaller one overflows single precision.
MIN_NOISE_STD = 1e-20
#: Largest condition number of the Cholesky factor of a noise correlation matrix that is inverted.
MAX_CONDITION = 1e6


def noise_covariance(noise: np.ndarray) -> np.ndarray:
    r"""Estimate the covariance :math:`E[n n^H]` of noise between coils.

    Args:
        noise (array): Noise samples (acquisitions, coils, samples).

    Returns:
        array: complex128 (coils, coils).
    """
    flat = np.moveaxis(noise, 1, 0).reshape(noise.shape[1], -1).astype(np.complex128)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat @ flat.conj().T / max(1, flat.shape[1] - 1)


def whitening_matrix(cov: np.ndarray) -> np.ndarray | None:
    r"""Invert the Cholesky factor of a noise covariance.

    Args:
        cov (array): Covariance (coils, coils).

    Returns:
        array or None: :math:`W` such that :math:`E|(W n)_i|^2 = 1` and coils are uncorrelated. None if the covariance
        is singular.
    """
    std = np.sqrt(np.abs(np.diag(cov)))
    if not (std > MIN_NOISE_STD).all():  # false for NaN
        return None
    correlation = cov / np.outer(std, std)  # its condition number does not depend on the gains of the coils
    try:
        factor = np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        return None
    if np.linalg.cond(factor) > MAX_CONDITION:
        return None
    return np.linalg.inv(factor) / std

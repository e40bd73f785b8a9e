"""Virtual coils."""

import numpy as np
import pytest

from hggdp_plugin.coil_compression import coil_compression, compress_coils


@pytest.fixture
def ksp():
    """Six coils that are combinations of three, and a little noise; one sample is not measured."""
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((2, 3, 16, 12)) + 1j * rng.standard_normal((2, 3, 16, 12))
    mixing = rng.standard_normal((6, 3)) + 1j * rng.standard_normal((6, 3))
    ksp = np.einsum("cs,nsyx->ncyx", mixing, sources) + 1e-3 * rng.standard_normal((2, 6, 16, 12))
    ksp[..., 3, 4] = 0
    return ksp.astype(np.complex64)


@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_orthonormal_and_energy_as_told(ksp, number):
    matrix, kept = coil_compression(ksp, number)
    assert matrix.dtype == np.complex64
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(number), atol=1e-5)
    virtual = compress_coils(matrix, ksp)
    assert virtual.shape == (2, number, 16, 12)
    assert not virtual[..., 3, 4].any()
    np.testing.assert_allclose(np.linalg.norm(virtual) ** 2 / np.linalg.norm(ksp) ** 2, kept, rtol=1e-4)
    assert (kept > 0.9999) == (number >= 3)


def test_all_coils_lose_nothing(ksp):
    matrix, __ = coil_compression(ksp, 6)
    np.testing.assert_allclose(compress_coils(matrix.conj().T, compress_coils(matrix, ksp)), ksp, atol=1e-4)


def test_strongest_first_and_any_units(ksp):
    matrix, kept = coil_compression(ksp * np.float32(1e-9), 6)
    power = (abs(compress_coils(matrix, ksp)) ** 2).sum(axis=(0, 2, 3))
    assert (np.diff(power[:4]) < 0).all()  # the rest is below single precision
    assert kept == pytest.approx(1)


@pytest.mark.parametrize("number", [0, 7])
def test_numbers_that_do_not_fit(ksp, number):
    with pytest.raises(ValueError, match="1 to 6 virtual coils"):
        coil_compression(ksp, number)

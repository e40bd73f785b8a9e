"""Data consistency: its closed form, its conjugate gradients and what both minimise."""

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin.linops import FFT2, Sense, kspace_diagonal
from hggdp_plugin.prox import L2DataConsistency

SHAPE = (2, 6, 7)  # two slices


def complex_array(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def single_coil(device, weights):
    """One coil: the operator, its measurements and its closed form."""
    weights = sp.to_device(weights.astype(np.float32), device)
    with device:
        A = Sense(device.xp.ones((1, *SHAPE[1:]), np.complex64), SHAPE[:1], weights=weights)
        y = A(sp.to_device(complex_array(*SHAPE, seed=1), device)) + 0.1 * (weights > 0).astype(np.float32)
    return A, y, {"transform": sp.linop.FFT(SHAPE, axes=(-2, -1)), "diagonal": weights[:, 0], "max_iter": 0}


def mask():
    return np.random.default_rng(2).random((2, 1, *SHAPE[1:])) < 0.5


def lamda_of_each_slice(device):
    return sp.to_device(np.array([0.1, 2], np.float32)[:, None, None], device)


def test_without_noise_it_replaces_the_measured_samples(device):
    A, y, closed = single_coil(device, mask())
    x = sp.to_device(complex_array(*SHAPE), device)
    k = sp.to_device(sp.fft(L2DataConsistency(A, y, 0.0, **closed)(0.3, x), axes=(-2, -1)))
    before = sp.to_device(sp.fft(x, axes=(-2, -1)))
    sampled = mask()[:, 0]
    np.testing.assert_allclose(k[sampled], sp.to_device(y)[:, 0][sampled], atol=1e-5)
    np.testing.assert_allclose(k[~sampled], before[~sampled], atol=1e-5)


@pytest.mark.parametrize("noisy", [False, True])
def test_the_closed_form_is_where_conjugate_gradients_end(noisy, device):
    A, y, closed = single_coil(device, mask() * np.random.default_rng(3).random((2, 1, *SHAPE[1:])))
    lamda = lamda_of_each_slice(device) if noisy else 0.0
    x = sp.to_device(complex_array(*SHAPE), device)
    direct = L2DataConsistency(A, y, lamda, **closed)(0.5, x)
    iterated = L2DataConsistency(A, y, lamda, max_iter=60)(0.5, x)
    np.testing.assert_allclose(sp.to_device(iterated), sp.to_device(direct), rtol=1e-2, atol=1e-3)
    assert direct.dtype == iterated.dtype == np.complex64


def test_the_result_is_optimal(device):
    """The gradient of 1/2 |u - x|^2 + alpha / (2 lamda) |A u - y|^2 vanishes, for several coils."""
    lamda, alpha = lamda_of_each_slice(device), 0.7
    mps = sp.to_device(complex_array(3, *SHAPE[1:], seed=4) / 2, device)
    x, y = (sp.to_device(complex_array(*s, seed=i), device) for i, s in enumerate([SHAPE, (2, 3, *SHAPE[1:])]))
    with device:
        A = Sense(mps, (2,), weights=sp.to_device(mask().astype(np.float32), device))
        y = y * sp.to_device(mask(), device)
        u = L2DataConsistency(A, y, lamda, max_iter=40)(alpha, x)
        gradient = (u - x) + alpha / lamda * A.H(A(u) - y)
        scale = float(device.xp.linalg.norm(alpha / lamda * A.H(y)))
        assert float(device.xp.linalg.norm(gradient)) < 1e-4 * scale


def test_chebyshev_and_conjugate_gradients_end_at_the_same_image(device):
    mps = sp.to_device(complex_array(3, *SHAPE[1:], seed=4) / 2, device)
    x, y = (sp.to_device(complex_array(*s, seed=i), device) for i, s in enumerate([SHAPE, (2, 3, *SHAPE[1:])]))
    with device:
        A = Sense(mps, (2,), weights=sp.to_device(mask().astype(np.float32), device))
        largest = (abs(mps) ** 2).sum(axis=0).max()
        results = [
            sp.to_device(L2DataConsistency(A, y, lamda_of_each_slice(device), max_iter=60, **options)(0.7, x))
            for options in ({"largest": largest}, {})
        ]
    np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-4)


def test_a_preconditioner_saves_iterations(device):
    """Spokes, which are far denser at the centre of k-space than at its edge."""
    shape = (1, 24, 24)
    angle, radius = np.pi * np.arange(36)[:, None] / 36, np.linspace(-12, 12, 48, endpoint=False)[None]
    coord = np.stack([radius * np.sin(angle), radius * np.cos(angle)], -1).astype(np.float32)
    coord, mps, x, truth = (
        sp.to_device(a, device)
        for a in (coord, np.ones(shape, np.complex64), complex_array(*shape), complex_array(*shape, seed=1))
    )
    A = Sense(mps, shape[:1], coord)
    y, density = A(truth), kspace_diagonal(mps, coord)

    def run(iterations, *preconditioner):
        prox = L2DataConsistency(A, y, 1.0, *preconditioner or (None, None), max_iter=iterations)
        return sp.to_device(prox(10.0, x))

    exact = run(100)
    plain, preconditioned = run(4), run(4, FFT2(shape), density)
    assert np.linalg.norm(preconditioned - exact) < 0.6 * np.linalg.norm(plain - exact)


def test_a_step_of_zero_changes_nothing(device):
    A, y, closed = single_coil(device, mask())
    x = sp.to_device(complex_array(*SHAPE), device)
    for lamda in (0.0, lamda_of_each_slice(device)):
        assert (L2DataConsistency(A, y, lamda, **closed)(0, x) == x).all()
        assert (L2DataConsistency(A, y, lamda)(0, x) == x).all()


def test_the_input_is_left_as_it_was(device):
    A, y, closed = single_coil(device, mask())
    x = sp.to_device(complex_array(*SHAPE), device)
    y_before, x_before = y.copy(), x.copy()
    for options in (closed, {}):
        assert (L2DataConsistency(A, y, 0.1, **options)(0.5, x) != x).any()
        assert (x == x_before).all()
        assert (y == y_before).all()


def test_few_iterations_start_at_the_input():
    """What the coils do not see stays: conjugate gradients move within the range of A^H only."""
    mps = np.zeros((1, *SHAPE[1:]), np.complex64)
    mps[:, 2:4] = 0.5
    A = Sense(mps, SHAPE[:1])
    x = complex_array(*SHAPE)
    u = L2DataConsistency(A, A(0 * x), 0.0, max_iter=2)(1.0, x)
    np.testing.assert_allclose(u[:, 2:4], 0, atol=1e-5)
    np.testing.assert_allclose(np.delete(u, [2, 3], axis=1), np.delete(x, [2, 3], axis=1), atol=1e-5)


def test_the_image_stays_in_its_support():
    mps = np.zeros((1, *SHAPE[1:]), np.complex64)
    mps[:, 2:4] = 0.5
    A, x = Sense(mps, SHAPE[:1]), complex_array(*SHAPE)
    u = L2DataConsistency(A, A(x), 0.0, support=mps[0] != 0)(1.0, x)
    np.testing.assert_allclose(u[:, 2:4], x[:, 2:4], atol=1e-5)
    assert not np.delete(u, [2, 3], axis=1).any()

"""Linear solvers of batches: against SigPy's, against the theory."""

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array, random_hermitian
from sigpy.alg import ConjugateGradient

from hggdp_plugin.solvers import BatchConjugateGradient, ChebyshevIteration, Diagonal, run


@pytest.fixture
def systems(device):
    """Three independent positive definite systems of 4 x 5 unknowns, of very different scale."""
    matrices = [random_hermitian(20, 0.2, 1.0, seed=i) * c for i, c in enumerate((1, 100, 0.01))]
    H = sp.to_device(np.stack(matrices).astype(np.complex64), device)
    b = sp.to_device(complex_array(3, 4, 5), device)
    return H, b


def solve(H, b, max_iter):
    xp = sp.get_array_module(b)
    with sp.get_device(b):
        x = xp.zeros_like(b)
        alg = BatchConjugateGradient(lambda u: (H @ u.reshape(-1, 20, 1)).reshape(u.shape), b, x, max_iter=max_iter)
        while not alg.done():
            alg.update()
    assert alg.x is x
    return sp.to_device(x)


def test_one_system_is_solved_as_in_sigpy(systems, device):
    H, b = systems
    with device:
        x = device.xp.zeros_like(b[0])
        alg = ConjugateGradient(lambda u: (H[0] @ u.reshape(20, 1)).reshape(4, 5), b[0], x, max_iter=6)
        while not alg.done():
            alg.update()
    np.testing.assert_allclose(solve(H[:1], b[:1], 6)[0], sp.to_device(x), rtol=1e-4, atol=1e-5)


def test_systems_are_solved_independently(systems):
    H, b = systems
    together = solve(H, b, 7)
    for i in range(3):
        np.testing.assert_allclose(together[i], solve(H[i : i + 1], b[i : i + 1], 7)[0], rtol=1e-4)


def test_a_preconditioner_is_used_as_in_sigpy(systems):
    H, b = systems[0][0], systems[1][0]
    P = sp.to_device(np.linspace(0.5, 2, b.size).reshape(b.shape).astype(np.float32), sp.get_device(b))

    def A(u):
        return (H @ u.reshape(-1, 1)).reshape(u.shape)

    x, expected = b * 0, b * 0
    for alg in (
        BatchConjugateGradient(A, b, x, max_iter=4, P=lambda r: P * r),
        ConjugateGradient(A, b, expected, P=lambda r: P * r, max_iter=4),
    ):
        while not alg.done():
            alg.update()
    np.testing.assert_allclose(sp.to_device(x), sp.to_device(expected), rtol=1e-4, atol=1e-5)


def test_systems_are_solved(systems):
    H, b = systems
    x = solve(H, b, 40)
    exact = np.linalg.solve(sp.to_device(H), sp.to_device(b).reshape(3, 20, 1)).reshape(3, 4, 5)
    size = abs(exact).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(x / size, exact / size, atol=1e-4)


def chebyshev(H, b, max_iter):
    scale = sp.to_device(np.array([1, 100, 0.01], np.float32)[: len(b), None, None], sp.get_device(b))
    applied = []
    before = b.copy()

    def A(u):
        applied.append(1)
        return (H @ u.reshape(-1, 20, 1)).reshape(u.shape)

    with sp.get_device(b):
        alg = ChebyshevIteration(A, b, 0.2 * scale, scale, max_iter)
        while not alg.done():
            alg.update()
    assert len(applied) == max_iter - 1
    assert (b == before).all()
    return sp.to_device(alg.x)


def test_chebyshev_solves_systems_independently(systems):
    H, b = systems
    x = chebyshev(H, b, 30)
    exact = np.linalg.solve(sp.to_device(H), sp.to_device(b).reshape(3, 20, 1)).reshape(3, 4, 5)
    size = abs(exact).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(x / size, exact / size, atol=1e-4)
    np.testing.assert_allclose(chebyshev(H[:1], b[:1], 4)[0], chebyshev(H, b, 4)[0], rtol=1e-5)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_error_of_chebyshev_is_that_of_his_polynomial(iterations):
    """T_n((high + low - 2 lambda) / (high - low)) / T_n((high + low) / (high - low)), below the interval too."""
    low, high = 0.2, 1.0
    eigenvalues = np.linspace(0.05, 1, 20).reshape(4, 5)
    alg = ChebyshevIteration(lambda u: eigenvalues * u, np.ones((4, 5), np.complex64), low, high, iterations)
    while not alg.done():
        alg.update()
    T = np.polynomial.Chebyshev.basis(iterations)
    error = T((high + low - 2 * eigenvalues) / (high - low)) / T((high + low) / (high - low))
    np.testing.assert_allclose(1 - eigenvalues * alg.x, error, atol=1e-6)


def test_a_system_that_is_solved_stays_solved():
    b = np.zeros((2, 4, 5), np.complex64)
    b[1] = 1
    H = np.stack([np.eye(20), np.eye(20)]).astype(np.complex64)
    np.testing.assert_array_equal(solve(H, b, 20), b)


def test_a_direction_without_curvature_is_left_alone():
    b = np.ones((1, 4, 5), np.complex64)
    np.testing.assert_array_equal(solve(np.zeros((1, 20, 20), np.complex64), b, 3), 0 * b)


def test_the_preconditioner_of_an_item_does_not_depend_on_the_others():
    F, r = sp.linop.Identity((2, 4, 5)), complex_array(2, 4, 5)
    weight = np.float32([1e-6, 1e3])[:, None, None]
    P = Diagonal(F, np.linspace(1e-5, 1, 20, dtype=np.float32).reshape(4, 5)).preconditioner(weight)
    alone = Diagonal(sp.linop.Identity((1, 4, 5)), np.linspace(1e-5, 1, 20, dtype=np.float32).reshape(4, 5))
    np.testing.assert_array_equal(P(r)[:1], alone.preconditioner(weight[:1])(r[:1]))


def test_chebyshev_with_equal_bounds_solves_a_multiple_of_the_identity():
    b = np.arange(1, 5, dtype=np.complex64)[None]
    upper = np.full((1, 1), 2, np.float32)
    x = run(ChebyshevIteration(lambda v: 2 * v, b, upper, upper, 2))
    assert x.dtype == np.complex64
    np.testing.assert_allclose(x, b / 2, rtol=1e-5)

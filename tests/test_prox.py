"""Data consistency: its solvers, and what they minimize."""

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array, radial

from hggdp_plugin.linops import FFT2, Sense, kspace_diagonal
from hggdp_plugin.prox import GradientConsistency, KSpaceReplacement, L2DataConsistency
from hggdp_plugin.solvers import Chebyshev, ConjugateGradient, Diagonal

SHAPE = (2, 6, 7)  # two slices


def single_coil(device, weights):
    """One coil: the operator, its measurements and the solver in closed form."""
    weights = sp.to_device(weights.astype(np.float32), device)
    with device:
        A = Sense(device.xp.ones((1, *SHAPE[1:]), np.complex64), SHAPE[:1], weights=weights)
        y = A(sp.to_device(complex_array(*SHAPE, seed=1), device)) + 0.1 * (weights > 0).astype(np.float32)
    return A, y, Diagonal(sp.linop.FFT(SHAPE, axes=(-2, -1)), weights[:, 0])


def mask():
    return np.random.default_rng(2).random((2, 1, *SHAPE[1:])) < 0.5


def noise_var_of_each_slice(device):
    return sp.to_device(np.array([0.2, 4], np.float32)[:, None, None], device)


def test_without_noise_it_replaces_the_measured_samples(device):
    A, y, diagonal = single_coil(device, mask())
    x = sp.to_device(complex_array(*SHAPE), device)
    k = sp.to_device(sp.fft(KSpaceReplacement(A, y, diagonal)(0.3, x), axes=(-2, -1)))
    before = sp.to_device(sp.fft(x, axes=(-2, -1)))
    sampled = mask()[:, 0]
    np.testing.assert_allclose(k[sampled], sp.to_device(y)[:, 0][sampled], atol=1e-5)
    np.testing.assert_allclose(k[~sampled], before[~sampled], atol=1e-5)


@pytest.mark.parametrize("noisy", [False, True])
def test_the_closed_form_is_where_conjugate_gradients_end(noisy, device):
    A, y, diagonal = single_coil(device, mask() * np.random.default_rng(3).random((2, 1, *SHAPE[1:])))
    noise_var = noise_var_of_each_slice(device) if noisy else 0.0
    x = sp.to_device(complex_array(*SHAPE), device)
    direct = L2DataConsistency(A, y, noise_var=noise_var, solver=diagonal)(0.5, x)
    iterated = L2DataConsistency(A, y, noise_var=noise_var, solver=ConjugateGradient(60))(0.5, x)
    np.testing.assert_allclose(sp.to_device(iterated), sp.to_device(direct), rtol=1e-2, atol=1e-3)
    assert direct.dtype == iterated.dtype == np.complex64


def test_the_result_is_optimal(device):
    """The gradient of 1/2 |u - x|^2 + alpha / noise_var |A u - y|^2 vanishes, for several coils."""
    noise_var, alpha = noise_var_of_each_slice(device), 0.7
    mps = sp.to_device(complex_array(3, *SHAPE[1:], seed=4) / 2, device)
    x, y = (sp.to_device(complex_array(*s, seed=i), device) for i, s in enumerate([SHAPE, (2, 3, *SHAPE[1:])]))
    with device:
        A = Sense(mps, (2,), weights=sp.to_device(mask().astype(np.float32), device))
        y = y * sp.to_device(mask(), device)
        u = L2DataConsistency(A, y, noise_var=noise_var, solver=ConjugateGradient(40))(alpha, x)
        gradient = (u - x) + 2 * alpha / noise_var * A.H(A(u) - y)
        scale = float(device.xp.linalg.norm(2 * alpha / noise_var * A.H(y)))
        assert float(device.xp.linalg.norm(gradient)) < 1e-4 * scale


def test_chebyshev_and_conjugate_gradients_end_at_the_same_image(device):
    mps = sp.to_device(complex_array(3, *SHAPE[1:], seed=4) / 2, device)
    x, y = (sp.to_device(complex_array(*s, seed=i), device) for i, s in enumerate([SHAPE, (2, 3, *SHAPE[1:])]))
    with device:
        A = Sense(mps, (2,), weights=sp.to_device(mask().astype(np.float32), device))
        max_eigenvalue = (abs(mps) ** 2).sum(axis=0).max()
        results = [
            sp.to_device(L2DataConsistency(A, y, noise_var=noise_var_of_each_slice(device), solver=solver)(0.7, x))
            for solver in (Chebyshev(max_eigenvalue, 60), ConjugateGradient(60))
        ]
    np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-4)


def test_a_preconditioner_saves_iterations(device):
    """Spokes, which are far denser at the center of k-space than at its edge."""
    shape = (1, 24, 24)
    coord, mps, x, truth = (
        sp.to_device(a, device)
        for a in (
            radial(shape[1:], 36, 48),
            np.ones(shape, np.complex64),
            complex_array(*shape),
            complex_array(*shape, seed=1),
        )
    )
    A = Sense(mps, shape[:1], coord)
    y, density = A(truth), kspace_diagonal(mps, coord)

    def run(iterations, preconditioner=None):
        solver = ConjugateGradient(iterations, preconditioner)
        return sp.to_device(L2DataConsistency(A, y, noise_var=2.0, solver=solver)(10.0, x))

    exact = run(100)
    plain, preconditioned = run(4), run(4, Diagonal(FFT2(shape), density))
    assert np.linalg.norm(preconditioned - exact) < 0.6 * np.linalg.norm(plain - exact)


def test_a_step_of_zero_changes_nothing(device):
    A, y, diagonal = single_coil(device, mask())
    x = sp.to_device(complex_array(*SHAPE), device)
    for noise_var in (0.0, noise_var_of_each_slice(device)):
        for solver in (diagonal, ConjugateGradient()):
            assert (L2DataConsistency(A, y, noise_var=noise_var, solver=solver)(0, x) == x).all()


def test_the_input_is_left_as_it_was(device):
    A, y, diagonal = single_coil(device, mask())
    x = sp.to_device(complex_array(*SHAPE), device)
    y_before, x_before = y.copy(), x.copy()
    for solver in (diagonal, Chebyshev(1.0), ConjugateGradient()):
        assert (L2DataConsistency(A, y, noise_var=0.2, solver=solver)(0.5, x) != x).any()
        assert (x == x_before).all()
        assert (y == y_before).all()


def test_few_iterations_start_at_the_input():
    """What the coils do not see stays: conjugate gradients move within the range of A^H only."""
    mps = np.zeros((1, *SHAPE[1:]), np.complex64)
    mps[:, 2:4] = 0.5
    A = Sense(mps, SHAPE[:1])
    x = complex_array(*SHAPE)
    u = L2DataConsistency(A, A(0 * x), solver=ConjugateGradient(2))(1.0, x)
    np.testing.assert_allclose(u[:, 2:4], 0, atol=1e-5)
    np.testing.assert_allclose(np.delete(u, [2, 3], axis=1), np.delete(x, [2, 3], axis=1), atol=1e-5)


def test_the_image_stays_in_its_support():
    mps = np.zeros((1, *SHAPE[1:]), np.complex64)
    mps[:, 2:4] = 0.5
    A, x = Sense(mps, SHAPE[:1]), complex_array(*SHAPE)
    u = L2DataConsistency(A, A(x), support=mps[0] != 0)(1.0, x)
    np.testing.assert_allclose(u[:, 2:4], x[:, 2:4], atol=1e-5)
    assert not np.delete(u, [2, 3], axis=1).any()


@pytest.mark.parametrize("name", ["diagonal", "chebyshev", "converged", "gradient"])
def test_the_linear_part_maps_differences_and_is_self_adjoint(name, device):
    A, y, diagonal = single_coil(device, mask())
    x, u, v = (sp.to_device(complex_array(*SHAPE, seed=i), device) for i in range(3))
    solver = {"diagonal": diagonal, "chebyshev": Chebyshev(1.0), "converged": ConjugateGradient(60)}.get(name)
    support = sp.to_device(np.arange(SHAPE[-1]) > 1, device)
    if solver is None:
        prox = GradientConsistency(A, y, support=support)
    else:
        prox = L2DataConsistency(A, y, noise_var=noise_var_of_each_slice(device), solver=solver)
    difference = prox(0.5, x + u) - prox(0.5, x)
    np.testing.assert_allclose(sp.to_device(prox.linear(0.5, u)), sp.to_device(difference), atol=1e-5)
    if name != "gradient":  # whose support comes after the step
        with device:
            left, right = (complex(device.xp.vdot(a, prox.linear(0.5, b))) for a, b in ((v, u), (u, v)))
        assert left == pytest.approx(right.conjugate(), rel=1e-4)


@pytest.mark.parametrize("name", ["diagonal", "chebyshev", "conjugate gradients", "default"])
def test_the_old_arguments_still_work(name):
    A, y, diagonal = single_coil(sp.cpu_device, mask())
    x = complex_array(*SHAPE)
    form = {"transform": diagonal.transform, "diagonal": diagonal.diagonal}
    old, solver = {
        "diagonal": ({**form, "max_iter": 0}, diagonal),
        "chebyshev": ({"largest": 1.0, "max_iter": 2}, Chebyshev(1.0, 2)),
        "conjugate gradients": ({**form, "max_iter": 2}, ConjugateGradient(2, diagonal)),
        "default": ({}, ConjugateGradient(3)),
    }[name]
    with pytest.warns(DeprecationWarning, match="L2DataConsistency: lamda"):
        prox = L2DataConsistency(A, y, lamda=0.1, **old)
    expected = L2DataConsistency(A, y, noise_var=0.2, solver=solver)(0.5, x)
    np.testing.assert_array_equal(prox(0.5, x), expected)


def test_the_old_closed_form_needs_its_transform():
    A, y, _ = single_coil(sp.cpu_device, mask())
    with pytest.warns(DeprecationWarning, match="lamda, max_iter"), pytest.raises(ValueError, match=r"^max_iter: 0"):
        L2DataConsistency(A, y, lamda=0.1, max_iter=0)


def test_the_noise_variance_is_keyword_only():
    """It was the third in earlier versions, with half of its present value."""
    A, y, _ = single_coil(sp.cpu_device, mask())
    with pytest.raises(TypeError):
        L2DataConsistency(A, y, 0.1)

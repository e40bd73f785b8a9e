"""The SENSE problem: its scale, noise variance, start and data consistency."""

import numpy as np
import pytest
import sigpy as sp
import sigpy.mri as mr
from helpers import radial, relative_error

from hggdp_plugin.problem import CARTESIAN_NOISE_SHARE, LEAST_SQUARES_ITERATIONS, SenseProblem
from hggdp_plugin.prox import KSpaceReplacement, L2DataConsistency
from hggdp_plugin.scaling import estimate_scale
from hggdp_plugin.solvers import Chebyshev, ConjugateGradient, Diagonal


@pytest.mark.parametrize("factor", [1.0, 1e3, 1e-6, 2j])
def test_the_scaled_problem_does_not_depend_on_the_units(factor, measurement, device):
    m = measurement
    expected = SenseProblem.build(m.y, m.mps)
    problem = SenseProblem.build((factor * m.y).astype(np.complex64), m.mps, device=device)
    np.testing.assert_allclose(sp.to_device(problem.scale), factor * expected.scale, rtol=1e-3)
    np.testing.assert_allclose(sp.to_device(problem.noise_var), expected.noise_var, rtol=1e-3)
    assert relative_error(sp.to_device(problem.y), expected.y) < 1e-4
    assert relative_error(sp.to_device(problem.start), expected.start) < 1e-3
    assert sp.get_device(problem.y) == sp.get_device(problem.start) == device


def test_the_operator_and_the_data_belong_together(measurement):
    m = measurement
    problem = SenseProblem.build(m.y, m.mps, weights=np.float32(0.25) * m.mask)
    assert relative_error(problem.A(m.image / problem.scale), problem.y) < 0.05
    np.testing.assert_allclose(problem.y, 0.5 * m.y / problem.scale, rtol=1e-5, atol=1e-7)


def test_the_start_is_the_least_squares_image(measurement):
    m = measurement
    problem = SenseProblem.build(m.y, m.mps)
    A = mr.linop.Sense(m.mps, weights=m.mask.astype(np.float32))
    options = {"lamda": 0, "max_iter": LEAST_SQUARES_ITERATIONS, "show_pbar": False}
    expected = sp.app.LinearLeastSquares(A, m.y, **options).run()
    assert relative_error(problem.start * problem.scale, expected) < 1e-3
    np.testing.assert_allclose(problem.scale, estimate_scale(expected), rtol=1e-3)


def test_noise_is_estimated_in_the_units_of_the_data(make_measurement):
    m = make_measurement(shape=(96, 96), noise=0.05)
    problem = SenseProblem.build(1e3 * m.y, m.mps)
    expected = CARTESIAN_NOISE_SHARE * 2 * (1e3 * 0.05 / abs(problem.scale)) ** 2
    np.testing.assert_allclose(problem.noise_var, expected, rtol=0.2)


def test_a_given_noise_variance_is_that_of_a_complex_sample_of_y(measurement):
    m = measurement
    problem = SenseProblem.build(m.y, m.mps, 0.3)
    np.testing.assert_allclose(problem.noise_var, 0.3 / abs(problem.scale) ** 2, rtol=1e-5)
    assert problem.noise_var.dtype == np.float32


def test_the_solver_follows_from_the_sampling(measurement, make_measurement):
    m, single = measurement, make_measurement(coils=1)
    coord = radial(m.image.shape, 24, 40)
    for problem, solver, many in (
        (SenseProblem.build(m.y, m.mps), Chebyshev, ConjugateGradient),
        (SenseProblem.build(single.y), Diagonal, Diagonal),
        (SenseProblem.build(single.y, 1j * single.mps), Diagonal, Diagonal),
        (
            SenseProblem.build(sp.nufft(m.mps * m.image, coord), m.mps, coord=coord),
            ConjugateGradient,
            ConjugateGradient,
        ),
    ):
        assert type(problem.solver) is solver
        assert type(problem.conjugate_gradient(7)) is many
        assert problem.consistency().solver is problem.solver
        assert problem.consistency(given := ConjugateGradient(3)).solver is given


def test_exact_data_of_one_coil_are_replaced(make_measurement):
    m = make_measurement(coils=1)
    exact, noisy = SenseProblem.build(m.y).consistency(), SenseProblem.build(m.y, noise_var=1e-3).consistency()
    assert type(exact) is KSpaceReplacement
    assert type(noisy) is L2DataConsistency


def test_maps_limit_the_support(measurement):
    mps = measurement.mps.copy()
    mps[:, :4] = 0
    problem = SenseProblem.build(measurement.y, mps)
    assert not problem.support[:4].any()
    assert problem.support[4:].all()


def test_bad_arguments_are_refused_by_name(measurement):
    with pytest.raises(ValueError, match=r"^mps: y has 4 coils"):
        SenseProblem.build(measurement.y)
    with pytest.raises(ValueError, match=r"^coil_batch_size: expected at least 1"):
        SenseProblem.build(measurement.y, measurement.mps, coil_batch_size=0)

"""The batched SENSE operator: a linear operator, the same as SigPy's for one slice, the same in parts as whole."""

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array, radial
from sigpy import mri

from hggdp_plugin.linops import Sense, kspace_diagonal

COILS, SHAPE = 5, (12, 9)


def arguments(name: str) -> dict:
    weights = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    rows, of_coils = np.broadcast_to(weights[:, :1], SHAPE), np.arange(COILS, dtype=np.float32)[:, None, None]
    return {
        "cartesian": {},
        "weights of all coils": {"weights": weights},
        "weights per coil": {"weights": np.stack([weights * c for c in range(COILS)])},
        "rows": {"weights": rows},
        "columns": {"weights": weights[:1]},
        "rows per coil": {"weights": of_coils * rows},
        "radial": {"coord": radial(SHAPE, 7, 16)},
        "radial, weights": {"coord": radial(SHAPE, 7, 16), "weights": np.linspace(0, 1, 16, dtype=np.float32)},
        "list of samples": {"coord": radial(SHAPE, 7, 16).reshape(-1, 2)},
    }[name]


KINDS = ["cartesian", "weights of all coils", "weights per coil", "rows", "columns", "rows per coil"]
KINDS += ["radial", "radial, weights", "list of samples"]


def kspace_shape(options):
    return SHAPE if options.get("coord") is None else options["coord"].shape[:-1]


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_linear_operator(kind, batch, size, device, check_linop):
    options = arguments(kind)
    mps = sp.to_device(complex_array(COILS, *SHAPE), device)
    A = Sense(mps, batch, coil_batch_size=size, **options)
    check_linop(A, (*batch, *SHAPE), (*batch, COILS, *kspace_shape(options)), device)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("of_batch", [False, True])
@pytest.mark.parametrize("batch", [(), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_several_sets_of_maps_are_a_linear_operator(kind, batch, of_batch, size, device, check_linop):
    options = arguments(kind)
    mps = sp.to_device(complex_array(*batch * of_batch, 2, COILS, *SHAPE), device)
    A = Sense(mps, batch, coil_batch_size=size, maps=2, **options)
    check_linop(A, (*batch, 2, *SHAPE), (*batch, COILS, *kspace_shape(options)), device)


@pytest.mark.parametrize("kind", ["cartesian", "weights per coil", "radial"])
def test_kspace_is_the_sum_over_the_sets(kind):
    options = arguments(kind)
    mps, x = complex_array(3, 2, COILS, *SHAPE), complex_array(3, 2, *SHAPE, seed=2)
    y = Sense(mps, (3,), maps=2, coil_batch_size=2, **options)(x)
    for i in range(3):
        expected = sum(Sense(mps[i, m], **options)(x[i, m]) for m in range(2))
        np.testing.assert_allclose(y[i], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "coord" not in arguments(kind)])
def test_one_slice_is_as_in_sigpy(kind, size):
    options, mps, x = arguments(kind), complex_array(COILS, *SHAPE), complex_array(*SHAPE, seed=2)
    expected = mri.linop.Sense(mps, **options)
    A = Sense(mps, coil_batch_size=size, **options)
    np.testing.assert_allclose(A(x), expected(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(A.H(A(x)), expected.H(expected(x)), rtol=1e-4, atol=1e-4)


def test_non_cartesian_samples_are_fourier_sums():
    coord, mps, x = radial(SHAPE, 7, 16), complex_array(COILS, *SHAPE), complex_array(*SHAPE, seed=2)
    pixels = np.stack(np.meshgrid(*[(np.arange(n) - n // 2) / n for n in SHAPE], indexing="ij"), -1)
    waves = np.exp(-2j * np.pi * np.einsum("...d,hwd->...hw", coord, pixels)) / np.sqrt(np.prod(SHAPE))
    expected = np.einsum("...hw,chw,hw->c...", waves, mps, x)
    assert np.linalg.norm(Sense(mps, coord=coord)(x) - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", ["cartesian", "weights per coil", "radial"])
def test_a_batch_is_its_slices(kind, check_linop):
    options = arguments(kind)
    mps, x = complex_array(2, COILS, *SHAPE), complex_array(2, *SHAPE, seed=2)
    A = Sense(mps, (2,), coil_batch_size=3, **options)
    for i, y in enumerate(A(x)):
        np.testing.assert_allclose(y, Sense(mps[i], **options)(x[i]), rtol=1e-5, atol=1e-6)
    check_linop(A, (2, *SHAPE), (2, COILS, *kspace_shape(options)))


def test_weights_of_each_slice():
    weights = np.random.default_rng(1).random((2, 1, *SHAPE)).astype(np.float32)
    mps, x = complex_array(COILS, *SHAPE), complex_array(2, *SHAPE, seed=2)
    whole = Sense(mps, (2,), weights=weights, coil_batch_size=2)(x)
    for i in range(2):
        np.testing.assert_allclose(whole[i], Sense(mps, weights=weights[i])(x[i]), rtol=1e-5, atol=1e-6)


class Sum:
    """A communicator of one process that stands for two: what it reduces, it adds to what the other has sent."""

    size, rank = 2, 0

    def __init__(self, other):
        self.other = other

    def allreduce(self, array):
        array += self.other


def test_the_adjoint_sums_over_processes():
    mps, x = complex_array(COILS, *SHAPE), complex_array(*SHAPE, seed=2)
    whole = Sense(mps)
    other = Sense(mps[2:])
    A = Sense(mps[:2], comm=Sum(other.N(x)))
    np.testing.assert_allclose(A(x), whole(x)[:2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(A.H(A(x)), whole.N(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_in_kspace_is_that_of_the_matrix(kind, device):
    options, mps = arguments(kind), complex_array(COILS, *SHAPE)
    waves = np.fft.ifft2(np.eye(np.prod(SHAPE)).reshape(-1, *SHAPE), norm="ortho").astype(np.complex64)
    expected = [np.vdot(wave, Sense(mps, **options).N(wave)).real for wave in waves]
    diagonal = kspace_diagonal(sp.to_device(mps, device), **options)
    assert diagonal.dtype == np.float32
    np.testing.assert_allclose(sp.to_device(diagonal).ravel(), expected, rtol=1e-4)


def test_the_diagonal_of_each_slice():
    weights = np.random.default_rng(1).random((2, 1, *SHAPE)).astype(np.float32)
    mps = complex_array(2, COILS, *SHAPE)
    for i, diagonal in enumerate(kspace_diagonal(mps, weights=weights)):
        np.testing.assert_allclose(diagonal, kspace_diagonal(mps[i], weights=weights[i]), rtol=1e-5)

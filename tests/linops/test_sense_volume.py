"""The SENSE operator of volumes: a linear operator, the same as SigPy's, and its diagonal in k-space."""

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array, kooshball, relative_error
from sigpy import mri

from hggdp_plugin.linops import FFT, Sense, kspace_diagonal

COILS, SHAPE = 3, (6, 5, 4)


def arguments(name: str) -> dict:
    weights = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    coord = kooshball(SHAPE, 9, 10)
    return {
        "cartesian": {"ndim": 3},
        "weights of all coils": {"ndim": 3, "weights": weights},
        "weights per coil": {"ndim": 3, "weights": np.stack([weights * c for c in range(COILS)])},
        "kooshball": {"coord": coord},
        "kooshball, weights": {"coord": coord, "weights": np.linspace(0, 1, 10, dtype=np.float32)},
    }[name]


KINDS = ["cartesian", "weights of all coils", "weights per coil", "kooshball", "kooshball, weights"]


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_linear_operator(kind, batch, size, device, check_linop):
    options = arguments(kind)
    mps = sp.to_device(complex_array(COILS, *SHAPE), device)
    A = Sense(mps, batch, coil_batch_size=size, **options)
    kspace_shape = options["coord"].shape[:-1] if "coord" in options else SHAPE
    check_linop(A, (*batch, *SHAPE), (*batch, COILS, *kspace_shape), device)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("kind", KINDS)
def test_several_sets_of_maps_are_a_linear_operator(kind, batch, size, device, check_linop):
    options = arguments(kind)
    mps = sp.to_device(complex_array(*batch, 2, COILS, *SHAPE), device)
    A = Sense(mps, batch, coil_batch_size=size, maps=2, **options)
    kspace_shape = options["coord"].shape[:-1] if "coord" in options else SHAPE
    check_linop(A, (*batch, 2, *SHAPE), (*batch, COILS, *kspace_shape), device)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "coord" not in arguments(kind)])
def test_one_volume_is_as_in_sigpy(kind):
    options, mps, x = arguments(kind), complex_array(COILS, *SHAPE), complex_array(*SHAPE, seed=2)
    expected = mri.linop.Sense(mps, weights=options.get("weights"))
    assert relative_error(Sense(mps, coil_batch_size=1, **options)(x), expected(x)) < 1e-5


def test_non_cartesian_samples_are_fourier_sums():
    coord, mps, x = kooshball(SHAPE, 9, 10), complex_array(COILS, *SHAPE), complex_array(*SHAPE, seed=2)
    voxels = np.stack(np.meshgrid(*[(np.arange(n) - n // 2) / n for n in SHAPE], indexing="ij"), -1)
    waves = np.exp(-2j * np.pi * np.einsum("...d,zyxd->...zyx", coord, voxels)) / np.sqrt(np.prod(SHAPE))
    expected = np.einsum("...zyx,czyx,zyx->c...", waves, mps, x)
    assert relative_error(Sense(mps, coord=coord)(x), expected) < 1e-5


def test_a_batch_is_its_volumes(check_linop):
    mps, x = complex_array(2, COILS, *SHAPE), complex_array(2, *SHAPE, seed=2)
    A = Sense(mps, (2,), **arguments("kooshball"))
    check_linop(A, (2, *SHAPE), (2, COILS, 9, 10))
    for i, y in enumerate(A(x)):
        np.testing.assert_allclose(y, Sense(mps[i], **arguments("kooshball"))(x[i]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_in_kspace_is_that_of_the_matrix(kind, device):
    options, mps = arguments(kind), complex_array(COILS, *SHAPE)
    waves = np.fft.ifftn(np.eye(np.prod(SHAPE)).reshape(-1, *SHAPE), axes=(1, 2, 3), norm="ortho").astype(np.complex64)
    A = Sense(mps, **options)
    expected = [np.vdot(wave, A.N(wave)).real for wave in waves]
    diagonal = kspace_diagonal(sp.to_device(mps, device), **options)
    assert diagonal.dtype == np.float32
    np.testing.assert_allclose(sp.to_device(diagonal).ravel(), expected, rtol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_transform_of_volumes_is_unitary(inverse, device, check_linop):
    F = FFT((2, *SHAPE), 3, inverse)
    check_linop(F, (2, *SHAPE), (2, *SHAPE), device)
    x = complex_array(2, *SHAPE)
    expected = (np.fft.ifftn if inverse else np.fft.fftn)(x, axes=(1, 2, 3), norm="ortho")
    np.testing.assert_allclose(F(x), expected, atol=1e-6)

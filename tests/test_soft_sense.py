"""Two sets of coil maps, where the object is larger than the field of view (soft-SENSE)."""

import numpy as np
import pytest
import sigpy as sp
from bart_tool import bart, needs_bart
from helpers import complex_array, radial, relative_error
from test_app import Ranks

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.coil_maps import combine_sets, espirit_maps
from hggdp_plugin.io.cfl import read_cfl, write_cfl
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.schedule import FewStep, Langevin, geometric
from hggdp_plugin.simulation import coil_maps, head_phantom, masks
from hggdp_plugin.solvers import Chebyshev
from hggdp_plugin.uncertainty import UncertaintyMap

SIZE, FIELD_OF_VIEW, COILS, NOISE = 96, 68, 8, 0.01
QUIET = NoiseSchedule(geometric(0.2, 0.02, 6), rule=FewStep(momentum=0.3))
RULES = {
    "fast": NoiseSchedule(geometric(0.2, 0.02, 6), rule=FewStep(eta=0.3, momentum=0.3, random_flips=True)),
    "langevin": NoiseSchedule((0.2, 0.1), steps=3, rule=Langevin(eps=0.1), from_data=False),
    "hggdp": NoiseSchedule.hggdp(levels=2, steps=3),
    "posterior": NoiseSchedule.posterior(),
}


def folded(array):
    """What falls into the field of view: rows (..., SIZE, W) that are FIELD_OF_VIEW apart add up."""
    place = (np.arange(SIZE) - SIZE // 2 + FIELD_OF_VIEW // 2) % FIELD_OF_VIEW
    return np.stack([array[..., place == row, :].sum(axis=-2) for row in range(FIELD_OF_VIEW)], axis=-2)


def norm(array, axis=-3):
    return np.sqrt((abs(array) ** 2).sum(axis=axis))


@pytest.fixture(scope="module")
def scan():
    """Coil images in the field of view, their k-space with noise, and where two positions share a pixel."""
    image = head_phantom((SIZE, SIZE), num_slices=1)[0]
    images = folded(coil_maps(COILS, (SIZE, SIZE)) * image)
    noise = complex_array(*images.shape) * (NOISE / 2**0.5)
    shared = folded((abs(image) > 0.1).astype(float)) > 1
    assert 0.02 < shared.mean() < 0.3
    return images, (sp.fft(images, axes=(-2, -1)) + noise).astype(np.complex64), shared


@pytest.fixture
def problem(measurement):
    """A measurement of two images, whose maps are orthonormal in each pixel: y, mps, images."""
    m = measurement
    other = np.conj(m.mps[::-1]) * np.linspace(1, 2, 18)
    mps = np.linalg.qr(np.stack([m.mps, other], axis=-1).swapaxes(0, -2))[0].swapaxes(0, -2)
    mps = np.moveaxis(mps, -1, 0).astype(np.complex64)
    images = np.stack([m.image, 0.3j * m.image[::-1]])
    y = sp.fft((mps * images[:, None]).sum(0), axes=(-2, -1)) + 0.002 * complex_array(*m.y.shape)
    return (y * m.mask).astype(np.complex64), mps, images


def recon(y, mps, prior, schedule=QUIET, **options):
    return HGGDPRecon(y, mps, prior=prior, schedule=schedule, show_pbar=False, **{"maps": 2} | options).run()


@pytest.mark.parametrize("acceleration", [2, 3])
def test_an_object_that_folds_over_needs_two_sets(acceleration, scan):
    """The error is then that of the noise, which undersampling and the geometry of the coils amplify."""
    images, kspace, shared = scan
    truth, prior = norm(images), load_prior(autocast=False)
    y = kspace * masks.uniform_lines(FIELD_OF_VIEW, acceleration, 24)[:, None]
    found = []
    for maps in (1, 2):
        mps = espirit_maps(y, 24, maps=maps)
        x = HGGDPRecon(y, mps, maps=maps, prior=prior, show_pbar=False).run()
        found.append(combine_sets(x) if maps > 1 else x)
    assert x.shape == (2, FIELD_OF_VIEW, SIZE)
    noise = NOISE * truth.size**0.5 / np.linalg.norm(truth)
    one, two = (relative_error(abs(image), truth) for image in found)
    assert two < 1.5 * acceleration**0.5 * noise
    assert one > 3 * two
    # Coil by coil, with phases, and where two positions share a pixel: there the sum of the two is not an image.
    assert relative_error((mps * x[:, None]).sum(0), images) < 2 * acceleration**0.5 * noise
    where_shared = relative_error(abs(found[1])[shared], truth[shared])
    assert where_shared < 1.5 * acceleration**0.5 * noise
    assert relative_error(abs(x.sum(0))[shared], truth[shared]) > 3 * where_shared


@pytest.mark.parametrize("acceleration", [2, 3])
def test_an_object_that_fits_needs_one(acceleration):
    """There the second set is zero, and so is its image."""
    image = head_phantom((FIELD_OF_VIEW, SIZE), num_slices=1)[0]
    truth, prior = coil_maps(COILS, image.shape) * image, load_prior(autocast=False)
    noise = complex_array(*truth.shape) * (NOISE / 2**0.5)
    y = (sp.fft(truth, axes=(-2, -1)) + noise) * masks.uniform_lines(FIELD_OF_VIEW, acceleration, 24)[:, None]
    y, found = y.astype(np.complex64), []
    for maps in (1, 2):
        x = HGGDPRecon(y, espirit_maps(y, 24, maps=maps), maps=maps, prior=prior, show_pbar=False).run()
        found.append(combine_sets(x) if maps > 1 else x)
    assert np.linalg.norm(x[1]) < 0.01 * np.linalg.norm(x[0])
    assert relative_error(found[1], found[0]) < 0.01


@needs_bart
def test_maps_span_the_space_of_barts(scan, tmp_path):
    _, kspace, shared = scan
    write_cfl(tmp_path / "ksp.cfl", kspace[:, None])
    bart("ecalib -m2 -r 24 ksp mps", tmp_path)
    theirs, ours = read_cfl(tmp_path / "mps.cfl").reshape(2, *kspace.shape), espirit_maps(kspace, 24, maps=2)
    has_two = [(norm(mps) > 0.5).all(axis=0) for mps in (ours, theirs)]
    both = has_two[0] & has_two[1]
    assert (both & shared).sum() > 0.9 * shared.sum()
    bases = [np.linalg.qr(np.moveaxis(mps[..., both], -1, 0).swapaxes(1, 2))[0] for mps in (ours, theirs)]
    # The cosines of the angles between two planes are the singular values of the product of their bases.
    cosines = np.linalg.svd(bases[0].conj().swapaxes(1, 2) @ bases[1], compute_uv=False)
    sine = np.sqrt(np.clip(1 - cosines.min(axis=-1).astype(float) ** 2, 0, 1))
    assert np.sqrt(np.mean(sine**2)) < 0.05


def test_combined_images_do_not_depend_on_the_basis(device):
    images = sp.to_device(complex_array(3, 2, 6, 5), device)
    combined = combine_sets(images)
    assert combined.shape == (3, 6, 5)
    assert combined.dtype == np.complex64
    assert sp.get_device(combined) == device
    with device:
        xp, (c, s) = device.xp, (np.float32(0.6), np.float32(0.8))
        first, second = images[:, 0], images[:, 1]
        mixed = xp.stack([c * first + s * second, -s * first + c * second], axis=1)
        xp.testing.assert_allclose(abs(combine_sets(mixed)), abs(combined), rtol=1e-5)
        xp.testing.assert_allclose(combine_sets(np.complex64(2j) * images), np.complex64(2j) * combined, rtol=1e-5)
        for factor in (np.float32(1e-30), np.float32(1e30)):
            xp.testing.assert_allclose(combine_sets(factor * images), factor * combined, rtol=1e-5)
        one = images * xp.asarray([1, 0], np.float32)[:, None, None]
        xp.testing.assert_allclose(combine_sets(one), first, rtol=1e-5)
        xp.testing.assert_allclose(combine_sets(one[:, ::-1]), abs(first), rtol=1e-5)


@pytest.mark.parametrize("noise_var", [0.05, 0.3])
def test_data_consistency_couples_the_sets(noise_var, problem):
    """Solvers go to the solution of the normal equations, as a matrix. The bound of its eigenvalues is exact."""
    y, mps, images = problem
    found = SenseProblem.build(y, mps, noise_var, maps=2)
    assert found.scale.shape == found.noise_var.shape == (1, 1, 1)
    assert found.start.shape == tuple(found.A.ishape) == found.support.shape == images.shape
    n, x = found.start.size, complex_array(*found.start.shape)
    units = np.eye(n, dtype=np.complex64).reshape(n, *found.start.shape)
    normal = np.stack([found.A.N(unit).ravel() for unit in units], axis=1).astype(complex)
    weight = 0.5 * found.noise_var.item() / 0.25
    expected = np.linalg.solve(normal + weight * np.eye(n), (found.A.H(found.y) + weight * x).ravel())
    assert found.solver.max_eigenvalue.item() == pytest.approx(1, abs=1e-3)
    assert np.linalg.norm(normal, 2) == pytest.approx(1, abs=1e-3)
    for solver in (found.conjugate_gradient(200), Chebyshev(found.solver.max_eigenvalue, 200)):
        assert relative_error(found.consistency(solver)(0.25, x).ravel(), expected) < 1e-3


def test_maps_that_are_not_orthonormal_have_a_bound_too(problem):
    y, mps, _ = problem
    mps[1] = 0.9 * mps[0] + 0.5 * mps[1]
    found = SenseProblem.build(y, mps, maps=2)
    x = complex_array(*found.start.shape)
    for _ in range(50):
        x = found.A.N(x / np.linalg.norm(x))
    largest = np.linalg.norm(x)
    assert largest < found.solver.max_eigenvalue.item() < 1.3 * largest


def test_images_that_the_data_determine_are_found(problem, prior):
    _, mps, images = problem
    y = sp.fft((mps * images[:, None]).sum(0), axes=(-2, -1)).astype(np.complex64)
    found = recon(y, mps, prior, noise_var=1e-6, max_cg_iter=10)
    assert found.shape == images.shape
    assert found.dtype == np.complex64
    assert relative_error(found, images) < 1e-2
    assert relative_error(recon(y, mps, prior, coil_batch_size=3), recon(y, mps, prior)) < 1e-4


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule, views, problem, make_network):
    """The same seed gives the same images, which follow the units; those of a batch are those of its slices."""
    y, mps, _ = problem
    prior = ScorePrior(make_network(views), autocast=False)
    batch, both = np.stack([y, 3j * y[:, ::-1], 1e-3 * y]), np.stack([mps, mps[:, :, ::-1], mps])
    together = recon(batch, both, prior, RULES[rule])
    assert together.shape == (3, *mps[:, 0].shape)
    assert np.isfinite(together).all()
    np.testing.assert_array_equal(recon(batch, both, prior, RULES[rule]), together)
    for i in range(3):
        single = recon(batch[i], both[i], prior, RULES[rule])
        assert relative_error(together[i], single) < 3e-4
    assert relative_error(1e3 * together[2], together[0]) < 3e-4


@pytest.mark.parametrize("noise_var", [None, 0.0])
def test_a_second_set_of_zeros_changes_nothing(noise_var, measurement, prior):
    m = measurement
    found = recon(m.y, np.stack([m.mps, 0 * m.mps]), prior, noise_var=noise_var)
    assert not found[1].any()
    assert relative_error(found[0], recon(m.y, m.mps, prior, maps=1, noise_var=noise_var)) < 1e-4


def test_a_volume_with_two_sets(prior):
    shape = (6, 8, 10)
    mps, images = complex_array(2, 4, *shape), complex_array(2, *shape, seed=1)
    y = sp.fft((mps * images[:, None]).sum(0), axes=(-3, -2, -1))
    found = recon(y, mps, prior, ndim=3, noise_var=0, max_cg_iter=60)
    assert relative_error(found, images) < 1e-2


def test_coils_in_several_processes(problem, prior):
    y, mps, _ = problem
    weights = (y != 0).any(axis=0).astype(np.float32)

    def work(comm):
        mine = slice(2 * comm.rank, 2 * comm.rank + 2)
        return recon(y[mine], mps[:, mine], prior, weights=weights, comm=comm, noise_var=1e-4)

    first, second = Ranks(2).run(work)
    np.testing.assert_array_equal(first, second)
    assert relative_error(first, recon(y, mps, prior, weights=weights, noise_var=1e-4)) < 1e-2


@pytest.mark.cuda
def test_on_a_gpu_as_on_a_cpu(problem, prior):
    y, mps, _ = problem
    found = recon(y, mps, prior, device=sp.Device(0))
    assert sp.get_device(found) == sp.Device(0)
    assert relative_error(sp.to_device(found), recon(y, mps, prior)) < 1e-3


def test_what_does_not_fit(problem, prior):
    y, mps, _ = problem
    with pytest.raises(ValueError, match=r"^mps: expected shape \(2, 4, 20, 18\).*got \(4, 20, 18\)"):
        recon(y, mps[0], prior)
    with pytest.raises(ValueError, match=r"^mps: expected shape \(4, 20, 18\).*; for two sets give maps=2"):
        recon(y, mps, prior, maps=1)
    with pytest.raises(ValueError, match=r"^mps: y has 1 coils .* \(maps, coils, H, W\)"):
        recon(y[:1], None, prior)
    with pytest.raises(ValueError, match=r"^maps: expected 1 with coord, got 2"):
        recon(y[..., 0], mps, prior, coord=radial((20, 18), 1, 20)[0])
    with pytest.raises(ValueError, match=r"^maps: expected at least 1"):
        recon(y, mps, prior, maps=0)
    with pytest.raises(ValueError, match=r"^maps: reference_noise is for one set"):
        recon(y, mps, prior, NoiseSchedule.hggdp(levels=2, steps=3, reference_noise=True))
    app = HGGDPRecon(y, mps, maps=2, prior=prior, schedule=QUIET, show_pbar=False)
    with pytest.raises(ValueError, match=r"^recon: the uncertainty is that of one image"):
        UncertaintyMap(app)

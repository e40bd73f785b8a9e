"""Volumes that do not fall apart into slices: 3D data consistency, and a prior that sees slices across all axes."""

import json

import numpy as np
import pytest
import sigpy as sp
from helpers import complex_array, kooshball, relative_error

from hggdp_plugin import HGGDPRecon, NoiseSchedule, io, load_prior
from hggdp_plugin.apps.recon import main
from hggdp_plugin.io.cfl import write_cfl
from hggdp_plugin.linops import Sense
from hggdp_plugin.metrics import score
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.prox import KSpaceReplacement
from hggdp_plugin.sampling import build_sampler
from hggdp_plugin.schedule import FewStep, Langevin
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.volume.calibration import estimate_maps

COILS, SHAPE = 4, (16, 20, 24)
FAST = ["-N", "3", "--float32", "-q"]


def coil_maps(shape=SHAPE, coils=COILS):
    """Smooth maps of coils around the volume, with a sum of squares of 1."""
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), axis=-1)
    angle = 2 * np.pi * np.arange(coils) / coils
    coil = 1.3 * np.stack([np.where(np.arange(coils) % 2, 0.6, -0.6), np.sin(angle), np.cos(angle)], axis=-1)
    mps = [np.exp(-((places - c) ** 2).sum(-1) / 2 + 1j * (0.8 * places @ c + k)) for k, c in enumerate(coil)]
    return (mps / np.linalg.norm(mps, axis=0)).astype(np.complex64)


@pytest.fixture(scope="module")
def truth():
    return sp.resize(head_phantom(SHAPE[1:], num_slices=SHAPE[0] - 6, seed=2), SHAPE)


@pytest.fixture(scope="module")
def scan(truth):
    """A kooshball with a seventh of the spokes that sample the volume fully."""
    coord, mps = kooshball(SHAPE, 120, 48), coil_maps()
    y = Sense(mps, coord=coord)(truth)
    return y + 0.005 * complex_array(*y.shape), mps, coord


def psnr(image, reference):
    return score(image.reshape(-1, image.shape[-1]), reference.reshape(-1, reference.shape[-1])).psnr


def density_compensated(y, mps, coord):
    return Sense(mps, coord=coord).H(y * (np.linalg.norm(coord, axis=-1) ** 2 + 0.1).astype(np.float32))


@pytest.fixture(scope="module")
def bundled():
    return load_prior(autocast=False)


def test_a_kooshball_is_reconstructed(truth, scan, bundled):
    y, mps, coord = scan
    app = HGGDPRecon(y, mps, coord=coord, prior=bundled, schedule=NoiseSchedule.fast(levels=6), show_pbar=False)
    start = app.image.copy()
    image = app.run()
    assert (image.shape, image.dtype) == (SHAPE, np.complex64)
    assert psnr(image, truth) > psnr(start, truth) + 1
    assert psnr(image, truth) > psnr(density_compensated(y, mps, coord), truth) + 4


def test_a_volume_on_the_grid_is_reconstructed(truth, bundled):
    rng, mps = np.random.default_rng(0), coil_maps()
    distance = np.linalg.norm(np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")), axis=0)
    mask = (rng.random(SHAPE) < 0.12) | (distance < 0.35)
    y = mask * sp.fft(mps * truth, axes=(-3, -2, -1)).astype(np.complex64)
    y += mask * 0.005 * complex_array(*y.shape)
    options = {"prior": bundled, "schedule": NoiseSchedule.fast(levels=6), "show_pbar": False, "ndim": 3}
    image = HGGDPRecon(y, mps, **options).run()
    zero_filled = Sense(mps, ndim=3).H(y)
    assert psnr(image, truth) > psnr(zero_filled, truth) + 4


def test_one_coil_on_the_grid_has_a_closed_form(truth):
    mask = np.random.default_rng(0).random(SHAPE) < 0.5
    y = (mask * sp.fft(truth))[None].astype(np.complex64)
    problem = SenseProblem.build(y, ndim=3)
    assert isinstance(consistency := problem.consistency(), KSpaceReplacement)
    x = complex_array(*SHAPE)
    expected = np.where(mask, problem.y[0], sp.fft(x))
    assert relative_error(sp.fft(consistency(1.0, x)), expected) < 1e-5


def test_data_consistency_is_that_of_the_volume(scan):
    """Many iterations solve the equations of the volume."""
    y, mps, coord = scan
    problem = SenseProblem.build(y, mps, 0.1, coord=coord)
    x = problem.start + 0.1 * complex_array(*SHAPE)
    u = problem.consistency(problem.conjugate_gradient(30))(1.0, x)
    weight = 0.5 * problem.noise_var
    before, after = (problem.A.N(z - x) + weight * (z - x) - problem.A.H(problem.y - problem.A(x)) for z in (x, u))
    assert np.linalg.norm(after) < 0.02 * np.linalg.norm(before)


def test_units_and_seed(scan, prior):
    y, mps, coord = scan
    options = {"coord": coord, "prior": prior, "schedule": NoiseSchedule.fast(levels=3), "show_pbar": False}
    image = HGGDPRecon(y, mps, **options).run()
    assert (HGGDPRecon(y, mps, **options).run() == image).all()
    factor = np.complex64(3e3j)
    assert relative_error(HGGDPRecon(factor * y, mps, **options).run(), factor * image) < 1e-3
    assert relative_error(HGGDPRecon(y, mps, seed=1, **options).run(), image) > 1e-4


def test_the_axis_of_slices_alternates(scan, prior, monkeypatch):
    y, mps, coord = scan
    seen = []
    denoise = prior.denoise
    monkeypatch.setattr(prior, "denoise", lambda x, *args: seen.append(x.shape) or denoise(x, *args))
    problem = SenseProblem.build(y, mps, coord=coord)
    sampler = build_sampler(prior, problem, NoiseSchedule([0.1, 0.05, 0.02, 0.01], rule=FewStep()))
    while not sampler.done():
        sampler.update()
    assert seen == [(16, 20, 24), (20, 16, 24), (24, 16, 20), (16, 20, 24)]


def test_several_volumes_are_a_batch(scan, prior):
    y, mps, coord = scan
    options = {"coord": coord, "prior": prior, "schedule": NoiseSchedule.fast(levels=3), "show_pbar": False}
    both = HGGDPRecon(np.stack([y, 2 * y[:, ::-1]]), mps, **options).run()
    assert relative_error(both[1], HGGDPRecon(2 * y[:, ::-1], mps, **options).run()) < 1e-3


@pytest.mark.cuda
def test_on_a_gpu_as_on_a_cpu(scan, prior):
    y, mps, coord = scan
    options = {"coord": coord, "prior": prior, "schedule": NoiseSchedule([0.01]), "show_pbar": False}
    image = HGGDPRecon(y, mps, device=sp.Device(0), **options).run()
    assert relative_error(sp.to_device(image), HGGDPRecon(y, mps, **options).run()) < 1e-3


@pytest.mark.parametrize(
    ("schedule", "says"),
    [(NoiseSchedule.hggdp(), "HGGDP is for slices"), (NoiseSchedule.posterior(), "Gibbs is for slices")],
)
def test_rules_that_need_slices(schedule, says, scan, prior):
    y, mps, coord = scan
    with pytest.raises(ValueError, match=says):
        HGGDPRecon(y, mps, coord=coord, prior=prior, schedule=schedule)


def test_langevin_dynamics_of_volumes(scan, prior):
    y, mps, coord = scan
    schedule = NoiseSchedule([0.02, 0.01], steps=2, rule=Langevin(0.1))
    assert HGGDPRecon(y, mps, coord=coord, prior=prior, schedule=schedule, show_pbar=False).run().shape == SHAPE


def test_arguments_that_do_not_fit(scan, truth):
    y, mps, coord = scan
    cartesian = sp.fft(mps * truth, axes=(-3, -2, -1)).astype(np.complex64)
    with pytest.raises(ValueError, match=r"^y: of shape .* ndim=3"):
        HGGDPRecon(cartesian, mps)
    with pytest.raises(ValueError, match=r"^mps: expected shape \(4, 16, 20, 24\)"):
        HGGDPRecon(cartesian, mps[:, 0], ndim=3)
    with pytest.raises(ValueError, match=r"^mps: expected shape .*; for two sets give maps=2"):
        HGGDPRecon(y, np.stack([mps, mps]), coord=coord)
    with pytest.raises(ValueError, match=r"^mps: coord needs sensitivity maps \(coils, D, H, W\)"):
        HGGDPRecon(y, coord=coord)
    with pytest.raises(ValueError, match=r"^coord: expected shape \(\.\.\., 2\)"):
        HGGDPRecon(y, mps, coord=coord, ndim=2)
    with pytest.raises(ValueError, match=r"^coord: expected shape \(\.\.\., 2 or 3\)"):
        HGGDPRecon(y, mps, coord=coord[..., :1])
    with pytest.raises(ValueError, match=r"^ndim: expected 2 for slices or 3"):
        HGGDPRecon(y, mps, coord=coord, ndim=4)


@pytest.fixture(scope="module")
def files(scan, tmp_path_factory):
    """The scan as k-space and trajectory of NumPy."""
    folder, (y, mps, coord) = tmp_path_factory.mktemp("scan"), scan
    for name, array in {"ksp": y, "mps": mps, "traj": coord}.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_trajectories_with_three_columns(files, truth):
    options = ["-t", str(files / "traj.npy"), "--mps", str(files / "mps.npy")]
    assert main([str(files / "ksp.npy"), *options, "-o", str(files / "given.npy"), "--complex", *FAST]) == 0
    image = np.load(files / "given.npy").squeeze()
    assert image.shape == SHAPE
    assert psnr(image, truth) > 24


def test_maps_from_the_center_of_the_trajectory(files, scan, truth):
    raw = io.read_kspace(files / "ksp.npy", files / "traj.npy", SHAPE)
    assert raw.slice_axis == "slab"
    mps = estimate_maps(raw)[0]
    assert mps.shape == (COILS, *SHAPE)
    inside = abs(truth) > 0.2
    similarity = abs((mps.conj() * scan[1]).sum(axis=0))[inside]  # 1 where the maps are equal up to a phase
    assert np.percentile(similarity, 10) > 0.99


def test_volumes_on_the_grid_from_bart(tmp_path, truth, capsys):
    mps = coil_maps()
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    mask[2:14, 4:16, 6:18] = True
    ksp = mask * sp.fft(mps * truth, axes=(-3, -2, -1)).astype(np.complex64)
    write_cfl(tmp_path / "ksp.cfl", ksp)
    assert main([str(tmp_path / "ksp.cfl"), "-o", str(tmp_path / "image.npy"), "--complex", "--coils", "3", *FAST]) == 0
    image = np.load(tmp_path / "image.npy").squeeze()
    record = json.loads((tmp_path / "image.npy.json").read_text())
    assert record["input"]["calibration_region"] == [12, 12, 12]
    assert any("undersampled along READ" in line for line in record["warnings"])
    # The phase is that of the estimated maps.
    assert psnr(abs(image), abs(truth)) > psnr(abs(Sense(mps, ndim=3).H(ksp)), abs(truth)) + 4

    write_cfl(tmp_path / "empty.cfl", ksp * (np.random.default_rng(1).random(SHAPE) < 0.5))
    assert main([str(tmp_path / "empty.cfl"), *FAST]) == 2
    assert "no fully sampled center" in capsys.readouterr().err


def test_options_that_are_for_slices(files, capsys):
    options = [str(files / "ksp.npy"), "-t", str(files / "traj.npy"), "-o", str(files / "none.npy"), "-q"]
    for option, says in {"--schedule=hggdp": "HGGDP is for slices", "--self-check": "3D data consistency"}.items():
        assert main([*options, option]) == 2
        assert says in capsys.readouterr().err
